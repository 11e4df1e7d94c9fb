"""Random changes to whole batches of images, on the device that holds them; see `Augmentation`.

All numbers are drawn once per epoch, on the CPU, each kind from a generator of its own: a change that is
switched on or off leaves the draws of the others as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from slimnet.data.augmentation import Augmentation
from slimnet.data.draws import generator_of, number_of
from slimnet.devices import pins_memory

MAGNITUDE = 9 / 30  # of RandAugment
SHEAR, TURN, SHIFT = 0.3, 30.0, 150 / 331  # at full magnitude: tangent, degrees, fraction of the side
SHAPES = 5  # the first of the operations below move pixels: shear x, shear y, shift x, shift y, turn
SIDES = (3 / 4, 4 / 3)  # width to height of what is cut out

ChangeColours = Callable[[Tensor, float], Tensor]


class Changes:
    """The draws of one epoch, and how they change its batches.

    Args:
        augmentation: which changes.
        mirrored: (N,), bool, which images of the epoch a flip mirrors.
        shape: (C, H, W) of an image.
        device: of the images; all that is drawn goes there at once, as each transfer waits for the device.
        seed, epoch: all draws follow from them.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        mirrored: Tensor,
        shape: tuple[int, int, int],
        device: torch.device,
        *,
        seed: int,
        epoch: int,
    ) -> None:
        self._augmentation = augmentation
        count = len(mirrored)

        def uniform(name: str, *size: int) -> Tensor:
            return torch.rand((count, *size), generator=generator_of("epoch", name, seed, epoch))

        if augmentation.randaugment:  # grouped on the CPU, so these stay there
            drawn = uniform("randaugment", augmentation.randaugment, 2)
            self._operations = (drawn[..., 0] * (1 + SHAPES + len(_COLOURS))).long()
            self._signs = torch.where(drawn[..., 1] < 0.5, -1.0, 1.0)
        upside_down = uniform("vertical_flip") < 0.5
        if augmentation.resized_crop is not None:
            centre, scale = _crops(uniform("resized_crop", 4), augmentation.resized_crop, shape)
            if augmentation.flip:
                scale[:, 0] *= torch.where(mirrored, -1.0, 1.0)
            if augmentation.vertical_flip:
                scale[:, 1] *= torch.where(upside_down, -1.0, 1.0)
            self._parts = torch.cat([torch.diag_embed(scale), centre[:, :, None]], dim=2).to(device)
        self._mirrored, self._upside_down = mirrored.to(device), upside_down.to(device)
        self._factors = (1 + augmentation.jitter * (2 * uniform("jitter", 3) - 1)).to(device)
        self._centres = uniform("cutout", 2).to(device)
        if augmentation.mixup:
            chance = np.random.default_rng(number_of("epoch", "mixup", seed, epoch))
            weights = chance.beta(augmentation.mixup, augmentation.mixup, count)
            # Of two images that are mixed, each is once the first: the larger weight may always be its own.
            self._weights = torch.from_numpy(np.maximum(weights, 1 - weights)).float().to(device)

    def colours(self, x: Tensor, part: slice, mean: Tensor) -> Tensor:
        """RandAugment and jitter of (B, C, H, W), uint8: those in `part` of the epoch; in 0..255."""
        for layer in range(self._augmentation.randaugment):
            x = _operate(x, self._operations[part, layer], self._signs[part, layer], mean)
        return _jittered(x, self._factors[part]) if self._augmentation.jitter else x

    def shapes(self, x: Tensor, part: slice) -> Tensor:
        """Resized crop and flips of (B, C, H, W), float32, normalised."""
        if self._augmentation.resized_crop is not None:
            return _warped(x, self._parts[part], "bilinear", "border")
        if self._augmentation.flip:
            x = _where(self._mirrored[part], x.flip(3), x)
        if self._augmentation.vertical_flip:
            x = _where(self._upside_down[part], x.flip(2), x)
        return x

    def cut_out(self, x: Tensor, part: slice) -> Tensor:
        """Blank a square in each of (B, C, H, W), normalised, in place."""
        if not self._augmentation.cutout:
            return x
        height, width = x.shape[2:]
        side = self._augmentation.cutout * min(height, width)
        centres = self._centres[part]
        down = (torch.arange(height, device=x.device) + 0.5 - centres[:, :1] * height).abs() < side / 2
        right = (torch.arange(width, device=x.device) + 0.5 - centres[:, 1:] * width).abs() < side / 2
        return x.masked_fill_((down[:, :, None] & right[:, None, :])[:, None], 0.0)  # keeps channels_last

    def mixed(self, x: Tensor, y: Tensor, part: slice, num_classes: int) -> tuple[Tensor, Tensor]:
        """Mix each image with the one at its place from the end of the batch, and their labels alike."""
        if not self._augmentation.mixup:
            return x, y
        weights = self._weights[part]
        labels = functional.one_hot(y, num_classes).float()
        return (
            torch.lerp(x.flip(0), x, weights[:, None, None, None]),
            torch.lerp(labels.flip(0), labels, weights[:, None]),
        )


def _crops(drawn: Tensor, smallest: float, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Centres and half sides (B, 2), x first, of boxes in an image that reaches from -1 to 1."""
    _, height, width = shape
    area = smallest + (1 - smallest) * drawn[:, 0]
    low, high = (math.log(side * height / width) for side in SIDES)
    ratio = torch.exp(low + (high - low) * drawn[:, 1])
    half = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1.0)
    return (2 * drawn[:, 2:] - 1) * (1 - half), half


def _warped(x: Tensor, theta: Tensor, mode: str, padding: str) -> Tensor:
    """Images seen through affine maps (B, 2, 3) from output to input, both from -1 to 1."""
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    warped = functional.grid_sample(x, grid, mode, padding, align_corners=False)
    return warped.contiguous(memory_format=torch.channels_last)


def _where(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], one, other)


def _jittered(x: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation of (B, C, H, W) in 0..255, times factors (B, 3); float32."""
    brightness, contrast, saturation = (factors[:, index, None, None, None] for index in range(3))
    x = (x.float() * brightness).clamp_(0, 255)
    x = torch.lerp(_grey(x).mean(dim=(2, 3), keepdim=True), x, contrast).clamp_(0, 255)
    return torch.lerp(_grey(x), x, saturation).clamp_(0, 255) if x.shape[1] == 3 else x


def _grey(x: Tensor) -> Tensor:
    """(B, 1, H, W), as ITU-R 601 weighs red, green and blue."""
    if x.shape[1] != 3:
        return x.mean(dim=1, keepdim=True)
    return 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]


# ------------------------------------------------------------------------------------------------ RandAugment


def _operate(x: Tensor, operations: Tensor, signs: Tensor, mean: Tensor) -> Tensor:
    """One operation for each image; the numbers of operations and their signs (B,) are on the CPU.

    Operation 0 leaves an image as it is; images that share another one go through it together.
    """
    x = x.clone(memory_format=torch.channels_last)
    kinds = 2 * operations + (signs > 0)
    order, counts = kinds.argsort(stable=True), kinds.bincount(minlength=2 * (1 + SHAPES + len(_COLOURS)))
    alike = torch.split(_sent(order, x.device), counts.tolist())
    moving = slice(2, 2 * (1 + SHAPES))
    if moved := int(counts[moving].sum()):
        first = int(counts[:2].sum())
        numbers = order[first : first + moved]
        theta = _sent(_thetas(operations[numbers] - 1, signs[numbers]), x.device)
        chosen = torch.cat(alike[moving])
        warped = _warped(x[chosen].float() - mean, theta, "nearest", "zeros") + mean
        x[chosen] = warped.round_().to(x.dtype)
    for kind, chosen in enumerate(alike):
        if kind >= moving.stop and len(chosen):
            change, sign = _COLOURS[kind // 2 - 1 - SHAPES], 1 if kind % 2 else -1
            x[chosen] = change(x[chosen], sign * MAGNITUDE)
    return x


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, without waiting for what the device is doing, where it can do so."""
    pinned = pins_memory(device)
    return (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=pinned)


def _thetas(operations: Tensor, signs: Tensor) -> Tensor:
    """(B, 2, 3): shear x, shear y, shift x, shift y, turn."""
    theta = torch.eye(2, 3).repeat(len(operations), 1, 1)
    for number, (row, column, size) in enumerate(
        [(0, 1, SHEAR), (1, 0, SHEAR), (0, 2, 2 * SHIFT), (1, 2, 2 * SHIFT)]
    ):
        chosen = operations == number
        theta[chosen, row, column] = signs[chosen] * MAGNITUDE * size
    chosen = operations == SHAPES - 1
    angle = signs[chosen] * math.radians(MAGNITUDE * TURN)
    theta[chosen, 0, 0] = theta[chosen, 1, 1] = angle.cos()
    theta[chosen, 0, 1], theta[chosen, 1, 0] = -angle.sin(), angle.sin()
    return theta


def _by_torchvision(name: str, *, of: Callable[[float], dict[str, float]]) -> ChangeColours:
    def change(x: Tensor, strength: float) -> Tensor:
        from torchvision.transforms.v2 import functional as transforms

        changed: Tensor = getattr(transforms, name)(x, **of(strength))
        return changed

    return change


_COLOURS: list[ChangeColours] = [
    _by_torchvision("adjust_brightness", of=lambda strength: {"brightness_factor": 1 + 0.9 * strength}),
    _by_torchvision("adjust_saturation", of=lambda strength: {"saturation_factor": 1 + 0.9 * strength}),
    _by_torchvision("adjust_contrast", of=lambda strength: {"contrast_factor": 1 + 0.9 * strength}),
    _by_torchvision("adjust_sharpness", of=lambda strength: {"sharpness_factor": 1 + 0.9 * strength}),
    _by_torchvision("posterize", of=lambda strength: {"bits": 8 - round(4 * abs(strength))}),
    _by_torchvision("solarize", of=lambda strength: {"threshold": 255 * (1 - abs(strength))}),
    _by_torchvision("autocontrast", of=lambda _: {}),
    _by_torchvision("equalize", of=lambda _: {}),
]
"""The operations that change colours, each of (B, C, H, W), uint8, and a strength from -1 to 1."""
