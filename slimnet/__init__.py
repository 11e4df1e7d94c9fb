"""Make convolutional networks smaller: find what can go, remove it exactly, keep the accuracy."""

from typing import TYPE_CHECKING

from slimnet._lazy import lazy

if TYPE_CHECKING:
    from slimnet import models
    from slimnet.checkpoint import load, read, save
    from slimnet.cost import count_macs, count_params
    from slimnet.errors import SlimnetError
    from slimnet.export import export_onnx, export_program
    from slimnet.folding import fold
    from slimnet.graph.trace import ChannelGraph, ChannelGroup, trace
    from slimnet.latency import Latency, measure_latency
    from slimnet.preprocessing import Preprocessing
    from slimnet.pruning.calibrate import recalibrate
    from slimnet.pruning.plan import PruningPlan, load_plan
    from slimnet.pruning.planning import plan
    from slimnet.pruning.surgery import mask, prune
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "ChannelGraph": "slimnet.graph.trace",
            "ChannelGroup": "slimnet.graph.trace",
            "Latency": "slimnet.latency",
            "Preprocessing": "slimnet.preprocessing",
            "PruningPlan": "slimnet.pruning.plan",
            "SlimnetError": "slimnet.errors",
            "count_macs": "slimnet.cost",
            "count_params": "slimnet.cost",
            "export_onnx": "slimnet.export",
            "export_program": "slimnet.export",
            "fold": "slimnet.folding",
            "load": "slimnet.checkpoint",
            "load_plan": "slimnet.pruning.plan",
            "mask": "slimnet.pruning.surgery",
            "measure_latency": "slimnet.latency",
            "models": "slimnet.models",
            "plan": "slimnet.pruning.planning",
            "prune": "slimnet.pruning.surgery",
            "read": "slimnet.checkpoint",
            "recalibrate": "slimnet.pruning.calibrate",
            "save": "slimnet.checkpoint",
            "trace": "slimnet.graph.trace",
        },
    )

__version__ = "0.2.0"

__all__ = [
    "ChannelGraph",
    "ChannelGroup",
    "Latency",
    "Preprocessing",
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
    "read",
    "recalibrate",
    "save",
    "trace",
]
