"""What each operation does to channels: one rule for each of its kinds (`slimnet.graph.operations`).

A rule labels what an operation returns, ties atoms that must go together, and blocks those that must stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slimnet.graph import operations as ops
from slimnet.graph.record import SCRIPT
from slimnet.graph.rules import attention, elementwise, gradients, layers, moves, positions
from slimnet.graph.step import Step

RULES: dict[str, Callable[[Step], Any]] = {
    **dict.fromkeys(ops.ALONG, positions.along),
    **dict.fromkeys(ops.MOVES, moves.move),
    **dict.fromkeys(ops.POINTWISE | ops.COMBINATIONS, elementwise.elementwise),
    **dict.fromkeys(ops.FILLS, elementwise.fill),
    **dict.fromkeys(ops.REDUCTIONS, positions.reduce),
    **dict.fromkeys(ops.SPATIAL, positions.spatial),
    **dict.fromkeys(ops.VIEWS, moves.view),
    **dict.fromkeys(ops.CONVOLUTIONS, layers.convolution),
    **dict.fromkeys(ops.LINEAR, layers.linear),
    **dict.fromkeys(ops.NORMS, layers.norm),
    **dict.fromkeys(("cat", "concat"), moves.join),
    **dict.fromkeys(("select", "unbind"), moves.pick),
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"), moves.split),
    **dict.fromkeys(("expand", "repeat"), moves.grow),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), moves.pixel_shuffle),
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), moves.channel_shuffle),
    **dict.fromkeys(("matmul", "bmm"), attention.product),
    "baddbmm": attention.product_sum,
    "scaled_dot_product_attention": attention.attention,
    "multi_head_attention_forward": attention.torchs,
    "grad": gradients.gradient,
    SCRIPT: layers.scripted,
    "native_group_norm": layers.group_norm,
    "native_layer_norm": layers.layer_norm,
    "stack": moves.stack,
    "slice": moves.slice,
    "constant_pad_nd": positions.pad,
    "copy": elementwise.copy,
    "index": moves.index,
}
