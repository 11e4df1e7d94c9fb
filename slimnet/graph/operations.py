"""The operations that are understood, by what they do to channels.

A name is that of an ATen operation without namespace, overload and the underscore of its in-place form:
"add" is `torch.add`, `x + y`, `x += y` and `x.add_(y)`. Some functions that ATen takes apart are recorded
whole (`slimnet.graph.record.WHOLE`), as "linear" and "grad".
"""

from __future__ import annotations

from torch import nn

CONVOLUTIONS = {"convolution"}
LINEAR = {"linear"}
NORMS = {
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "miopen_batch_norm", "_batch_norm_no_update", "_batch_norm_with_update", "instance_norm",
}  # fmt: skip
"""Each channel is normalised alone."""

RELUS = {"relu"}
POINTWISE = RELUS | {
    "sigmoid", "tanh", "silu", "gelu", "elu", "selu", "celu", "mish", "hardtanh", "hardswish",
    "hardsigmoid", "leaky_relu",
    "softplus", "softshrink", "hardshrink", "threshold", "rrelu_with_noise", "log_sigmoid_forward", "logit",
    "clamp", "clamp_min", "clamp_max", "clip", "abs", "neg", "sign", "sgn", "floor", "ceil", "round",
    "trunc", "frac",
    "sqrt", "rsqrt", "square", "reciprocal", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p",
    "pow", "erf",
    "erfc", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "nan_to_num",
    "isnan", "isinf", "isfinite", "logical_not", "bitwise_not",
    "clone", "detach", "alias", "_to_copy", "lift_fresh", "native_dropout", "contiguous", "positive",
    "_adaptive_avg_pool_identity", "dropout", "alpha_dropout", "feature_dropout",
}  # fmt: skip
"""One channel in, the same out, element by element."""

COPIES = {"clone", "detach", "alias", "_to_copy", "lift_fresh", "contiguous", "positive"}
"""What comes out is what went in."""

FILLS = {"zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "fill", "zero"}
"""Of the shape of a tensor, but not of its contents."""

ADDS = {"add", "sub", "rsub"}
COMBINATIONS = ADDS | {
    "mul", "div", "pow", "maximum", "minimum", "fmax", "fmin", "where", "addcmul", "addcdiv", "lerp", "atan2",
    "remainder", "fmod", "clamp", "clamp_min", "clamp_max", "eq", "ne", "lt", "le", "gt", "ge",
    "logical_and", "logical_or",
    "logical_xor", "bitwise_and", "bitwise_or", "masked_fill", "prelu", "_prelu_kernel", "hypot", "copysign",
    "floor_divide", "sigmoid_backward", "bernoulli", "xlogy",
}  # fmt: skip
"""Of several tensors, element by element."""

AVERAGE_POOLS = {
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
}  # fmt: skip
SPATIAL = AVERAGE_POOLS | {
    "max_pool1d", "max_pool2d", "max_pool3d",
    "max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "fractional_max_pool2d",
    "max_unpool2d", "max_unpool3d",
    "mkldnn_max_pool2d", "mkldnn_adaptive_avg_pool2d",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "upsample_linear1d", "upsample_bilinear2d",
    "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
    "replication_pad3d", "grid_sampler_2d", "grid_sampler_3d", "roi_align", "roi_pool",
}  # fmt: skip
"""Over positions, each channel (dimension 1) alone."""

AVERAGES = {"mean"}
REDUCTIONS = AVERAGES | {
    "sum", "amax", "amin", "prod", "var", "std", "var_mean", "std_mean", "logsumexp", "linalg_vector_norm",
    "norm", "any",
    "all", "nansum", "median", "max", "min", "argmax", "argmin", "mode", "kthvalue",
}  # fmt: skip
"""Over dimensions that are named."""

ALONG = {
    "_softmax", "_log_softmax", "softmax", "log_softmax", "cumsum", "cumprod", "logcumsumexp", "cummax",
    "cummin", "sort",
    "topk", "flip", "roll", "glu", "index_select", "tril", "triu",
    "repeat_interleave",
}  # fmt: skip
"""Along dimensions that are named, which stay."""

VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_alias", "_reshape_copy", "unflatten"}
MOVES = {
    "unfold", "permute",
    "transpose", "t", "squeeze", "unsqueeze", "numpy_T", "movedim", "swapaxes", "diagonal",
    "expand", "repeat", "tile", "select", "slice", "split", "split_with_sizes", "unsafe_split",
    "unsafe_split_with_sizes",
    "unsafe_chunk", "chunk", "unbind", "cat", "concat", "stack", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle",
    "native_channel_shuffle",
} | VIEWS  # fmt: skip
"""Elements are moved and not changed."""

ALIASES = {
    "view", "_reshape_alias", "permute", "transpose", "t", "squeeze", "unsqueeze", "numpy_T", "movedim",
    "diagonal", "expand",
    "select", "slice", "split", "split_with_sizes", "chunk", "unbind", "detach", "alias", "reshape",
    "as_strided",
}  # fmt: skip
"""What comes out shares its memory with what went in."""


def is_reparametrized(module: nn.Module) -> bool:
    """Whether something computes a layer's weights: weight norm, spectral norm, masks of other tools."""
    hooked = not {"weight_orig", "weight_g"}.isdisjoint(module._parameters.keys())
    return hooked or nn.utils.parametrize.is_parametrized(module)
