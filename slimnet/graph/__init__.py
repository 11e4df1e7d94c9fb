"""Channel groups: what of a network must be kept or removed together."""

from slimnet.graph.trace import ChannelGraph, ChannelGroup, LayerUnits

__all__ = ["ChannelGraph", "ChannelGroup", "LayerUnits"]
