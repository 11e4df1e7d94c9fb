"""BatchNorm recalibration: statistics that fit the network as it is after pruning."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimnet.data import Splits, train_batches
from slimnet.data.augmentation import NONE, Augmentation
from slimnet.errors import SlimnetError
from slimnet.modes import evaluating
from slimnet.training.recipe import Recipe


def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Re-estimate the running statistics of every BatchNorm as the plain mean over `batches`.

    Parameters, momenta and modes stay as they are; the same batches give the same statistics. Without any
    batch nothing changes.

    Args:
        model: its BatchNorm buffers are replaced.
        batches: inputs (N, C, ...) on the model's device, N > 1; no labels.

    Raises:
        SlimnetError: a batch is not a tensor. Whatever fails, the statistics are then as before.

    Example:
        >>> model = slimnet.models.resnet([1], width=8)
        >>> slimnet.recalibrate(model, [torch.randn(16, 3, 8, 8) for _ in range(2)])
        >>> int(model.bn1.num_batches_tracked)
        2
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    momenta = [norm.momentum for norm in norms]
    before = [[buffer.clone() for buffer in norm.buffers()] for norm in norms]
    with torch.no_grad(), evaluating(model):
        try:
            for index, batch in enumerate(batches):
                if not isinstance(batch, Tensor):
                    raise SlimnetError(
                        f"a batch is a {type(batch).__name__}, not a tensor of images; take the images of a "
                        "DataLoader's pairs: recalibrate(model, (images for images, labels in loader))"
                    )
                for norm in norms if index == 0 else []:
                    norm.reset_running_stats()
                    norm.momentum = None  # cumulative mean instead of an exponential one
                    norm.training = True
                model(batch)
        except BaseException:
            for norm, buffers in zip(norms, before, strict=True):
                for buffer, old in zip(norm.buffers(), buffers, strict=True):
                    buffer.copy_(old)
            raise
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
                norm.training = False


def recalibrate_on(
    model: nn.Module,
    splits: Splits,
    count: int,
    *,
    seed: int,
    batch_size: int = Recipe.batch_size,
    augmentation: Augmentation = NONE,
) -> None:
    """`recalibrate` on the first `count` batches of the training images, drawn by `seed`; 0 does nothing.

    Of the augmentation, only what keeps colours and images whole is used, as the statistics are of real ones.
    """
    shown = augmentation.geometric
    batches = train_batches(splits.train, splits, batch_size, seed=seed, epoch=0, augmentation=shown)
    recalibrate(model, (images for images, _ in islice(batches, count)))
