"""How good and how large a network is."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from slimnet.cost import count_macs, count_params
from slimnet.data import Images, Splits, eval_batches
from slimnet.modes import evaluating
from slimnet.precision import Precision, autocast

BATCH = 1000
CPU_BATCH = 250  # stays in a processor's cache


def evaluate(model: nn.Module, splits: Splits, images: Images, precision: Precision = "float32") -> float:
    """The fraction of `images` that the network classifies correctly; its mode is left as it was."""
    device = images.device
    batch_size = CPU_BATCH if device.type == "cpu" else BATCH
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with torch.inference_mode(), evaluating(model), autocast(device, precision):
        for x, y in eval_batches(images, splits, batch_size):
            correct += (model(x).argmax(1) == y).sum()
    return float(correct) / len(images)


def measure(model: nn.Module, splits: Splits) -> dict[str, Any]:
    """Size and accuracy of a finished network, in float32 whatever it was trained in.

    Returns:
        params, macs (of one image), val_accuracy, test_accuracy, and on how many images (val_images,
        test_images).
    """
    return {
        "params": count_params(model),
        "macs": count_macs(model, splits.example),
        "val_accuracy": evaluate(model, splits, splits.validation),
        "test_accuracy": evaluate(model, splits, splits.test),
        "val_images": len(splits.validation),
        "test_images": len(splits.test),
    }
