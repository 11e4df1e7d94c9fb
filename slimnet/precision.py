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
    """bfloat16 where the device multiplies it in hardware and training is quicker for it, else float32.

    On Apple's GPUs and on arm64 processors that has not been measured, so they train in float32.
    """
    import torch

    device = torch.device(device)
    match device.type:
        case "cuda":
            native = torch.cuda.get_device_capability(device) >= (8, 0)
        case "xpu":
            native = torch.xpu.is_bf16_supported(including_emulation=False)
        case "cpu":
            native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        case _:
            native = False
    return "bfloat16" if native else "float32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Convolutions and products in `precision`; parameters, statistics and the loss stay float32."""
    if precision == "float32":
        return nullcontext()
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16)
