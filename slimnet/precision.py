"""Which arithmetic a device computes natively, and one way to run under it; torch is imported when asked."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]
PrecisionWish = Literal["auto", Precision]
"""A precision, or whichever the device is best at."""


def native_precision(device: torch.device | str) -> Precision:
    """bfloat16 where the processor or GPU multiplies it in hardware, else float32."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return "bfloat16" if native else "float32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Convolutions and products in `precision`; parameters, statistics and the loss stay float32."""
    if precision == "float32":
        return nullcontext()
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16)
