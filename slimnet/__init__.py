"""Make convolutional networks smaller: find what can go, remove it exactly, keep the accuracy."""

from slimnet import models
from slimnet.calibrate import recalibrate
from slimnet.checkpoint import load, save
from slimnet.cost import count_macs, count_params
from slimnet.errors import SlimnetError
from slimnet.export import export_onnx, export_program
from slimnet.fold import fold
from slimnet.graph import ChannelGraph, ChannelGroup, trace
from slimnet.latency import Latency, measure_latency
from slimnet.plan import PruningPlan, load_plan, plan
from slimnet.surgery import mask, prune

__version__ = "0.1.0"

__all__ = [
    "ChannelGraph",
    "ChannelGroup",
    "Latency",
    "PruningPlan",
    "SlimnetError",
    "count_macs",
    "count_params",
    "export_onnx",
    "export_program",
    "fold",
    "load",
    "load_plan",
    "mask",
    "measure_latency",
    "models",
    "plan",
    "prune",
    "recalibrate",
    "save",
    "trace",
]
