"""The split, and batches made on the device that holds the images.

The images stay uint8 until their batch is due; a whole batch is then normalised, cropped and flipped at once.
All chance comes from a generator on the CPU, seeded from what the caller names, so that every device and
every resumed run sees the same batches.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from slimnet.data.catalogue import Resize
from slimnet.data.sets import Dataset
from slimnet.data.upstream import Labels, Pixels
from slimnet.errors import SlimnetError
from slimnet.preprocessing import Preprocessing

Batches = Iterator[tuple[Tensor, Tensor]]
"""Pairs of images (B, C, H, W), float32, normalised, channels_last, and labels (B,), int64."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images (N, C, H, W), uint8, stored channels last, and labels (N,), int64, on one device."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Splits:
    """The three parts of a data set, and the pixel statistics of the train part by which all are normalised.

    Attributes:
        train, validation, test: the parts.
        mean, std: (1, C, 1, 1), float32, in 0..255 units; std is 1 where a channel is constant.
        num_classes: labels go from 0 to one below it.
        classes: their names; where none are given, the numbers.
        resize: how a picture of another size is brought to the size of these images.
    """

    train: Images
    validation: Images
    test: Images
    mean: Tensor
    std: Tensor
    num_classes: int
    classes: tuple[str, ...] = ()
    resize: Resize = "pool"

    def __post_init__(self) -> None:
        if not self.classes:
            object.__setattr__(self, "classes", tuple(map(str, range(self.num_classes))))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.x.shape[1:]
        return channels, height, width

    @property
    def example(self) -> Tensor:
        """One empty image, (1, C, H, W), float32, on the device of the data."""
        return torch.zeros((1, *self.image_shape), device=self.train.x.device)

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture becomes an input like these, to be kept with a network that is trained on them."""
        channels, height, width = self.image_shape
        mean, std = (tuple((s.double() / 255).flatten().tolist()) for s in (self.mean, self.std))
        return Preprocessing((height, width), channels, mean, std, self.classes, self.resize)


def split(dataset: Dataset, *, validation: float, seed: int, device: torch.device | str = "cpu") -> Splits:
    """Hold out a part of the training images for validation, and put everything on `device`.

    Args:
        dataset: with a train and a test part.
        validation: the fraction held out, in (0, 0.5], of every class, rounded to whole images.
        seed: which images are held out follows from it.
        device: that holds all three parts.

    Raises:
        SlimnetError: a fraction outside the range, or one at which a class gives no image.
    """
    if not 0 < validation <= 0.5:
        raise SlimnetError(f"validation is {validation}, and must be above 0 and at most 0.5.")
    held_out = _held_out(dataset.y_train, dataset.num_classes, validation, seed)
    x_train, y_train = dataset.x_train[~held_out], dataset.y_train[~held_out]
    mean, std = _pixel_statistics(x_train)
    return Splits(
        train=_images(x_train, y_train, device),
        validation=_images(dataset.x_train[held_out], dataset.y_train[held_out], device),
        test=_images(dataset.x_test, dataset.y_test, device),
        mean=mean.to(device),
        std=std.to(device),
        num_classes=dataset.num_classes,
        classes=dataset.classes,
        resize=dataset.resize,
    )


def train_batches(
    images: Images,
    splits: Splits,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    crop: int = 0,
    flip: bool = False,
) -> Batches:
    """One epoch of shuffled batches, each image once; every draw follows from (seed, epoch).

    The last batch may be smaller, but a single image left over joins the batch before it, because BatchNorm
    cannot train on one image whose feature map is a single pixel.

    Args:
        images: to train on.
        splits: whose statistics normalise them.
        batch_size: images per batch.
        seed: of the order and the augmentation.
        epoch: each has draws of its own.
        crop: pixels of padding, of the mean colour (zero once normalised); an image of the old size is cut
            out at random.
        flip: mirror each image left to right with probability 1/2.

    Raises:
        SlimnetError: fewer than two images, or batches of fewer than two.
    """
    bounds = _train_bounds(len(images), batch_size)
    draws = _draws(len(images), crop, seed=seed, epoch=epoch)
    order, mirrored, corners = (drawn.to(images.x.device) for drawn in draws)

    def batches() -> Batches:
        for start, stop in bounds:
            chosen = order[start:stop]
            x = _normalised(_selected(images.x, chosen), splits)
            if crop or flip:
                x = _moved(x, crop, corners[:, start:stop], mirrored[start:stop] if flip else None)
            yield x, images.y[chosen]

    return batches()


def train_batch_count(n: int, batch_size: int) -> int:
    """How many batches `train_batches` makes of `n` images.

    Raises:
        SlimnetError: as `train_batches`.
    """
    return len(_train_bounds(n, batch_size))


def eval_batches(images: Images, splits: Splits, batch_size: int) -> Batches:
    """All images in their order, normalised; the last batch may be smaller."""
    for start in range(0, len(images), batch_size):
        stop = start + batch_size
        yield _normalised(images.x[start:stop], splits), images.y[start:stop]


# ------------------------------------------------------------------------------------------------------ split


def _held_out(labels: Labels, num_classes: int, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """(N,), True where the image is held out."""
    generator = _generator("split", seed)
    held_out = np.zeros(len(labels), dtype=np.bool_)
    for label in range(num_classes):
        of_class = np.flatnonzero(labels == label)
        count = round(fraction * len(of_class))
        if count == 0:
            raise SlimnetError(
                f"validation {fraction} takes no image of class {label}, which has {len(of_class)} to train "
                "on; a larger fraction would, or more images."
            )
        held_out[of_class[torch.randperm(len(of_class), generator=generator)[:count].numpy()]] = True
    return held_out


def _pixel_statistics(x: Pixels) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel of (N, H, W, C), each (1, C, 1, 1).

    Counted in integers, so that they come out the same in whatever order and on whatever machine.
    """
    channels = x.shape[-1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for chunk in np.array_split(x, 1 + len(x) // 4096):
        for channel in range(channels):
            counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    levels = np.arange(256)
    mean = counts @ levels / counts.sum(axis=1)
    std = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1))
    std[std == 0] = 1.0
    shape = (1, channels, 1, 1)
    return torch.from_numpy(mean).float().reshape(shape), torch.from_numpy(std).float().reshape(shape)


def _images(x: Pixels, y: Labels, device: torch.device | str) -> Images:
    return Images(torch.from_numpy(x).permute(0, 3, 1, 2).to(device), torch.from_numpy(y).to(device))


# ---------------------------------------------------------------------------------------------------- batches


def _train_bounds(n: int, batch_size: int) -> list[tuple[int, int]]:
    if n < 2 or batch_size < 2:
        raise SlimnetError(
            f"Training takes at least two images in batches of at least two, for BatchNorm's sake; "
            f"these are {n} in batches of {batch_size}."
        )
    starts = [start for start in range(0, n, batch_size) if start + 1 < n]
    return list(zip(starts, [*starts[1:], n], strict=True))


def _draws(n: int, crop: int, *, seed: int, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
    """The epoch's order (N,), which are mirrored (N,), and the corners (down, right) of the crops (2, N)."""
    generator = _generator("epoch", seed, epoch)
    order = torch.randperm(n, generator=generator)
    mirrored = torch.randint(2, (n,), generator=generator).bool()
    corners = torch.randint(2 * crop + 1, (2, n), generator=generator)
    return order, mirrored, corners


def _selected(x: Tensor, chosen: Tensor) -> Tensor:
    """x[chosen], in channels_last."""
    return x.permute(0, 2, 3, 1).index_select(0, chosen).permute(0, 3, 1, 2)


def _moved(x: Tensor, crop: int, corners: Tensor, mirrored: Tensor | None) -> Tensor:
    """Pad (B, C, H, W) with zeros, cut H x W out at the corners (2, B), mirror: one gather of pixels."""
    count, channels, height, width = x.shape
    pixels = functional.pad(x.permute(0, 2, 3, 1), (0, 0, crop, crop, crop, crop))
    image = torch.arange(count, device=x.device)[:, None]
    row = torch.arange(height, device=x.device) + corners[0, :, None]
    column = torch.arange(width, device=x.device) + corners[1, :, None]
    if mirrored is not None:
        column = torch.where(mirrored[:, None], column.flip(1), column)
    line = (image * pixels.shape[1] + row) * pixels.shape[2]
    source = (line[:, :, None] + column[:, None, :]).reshape(-1)
    # index_select over whole pixels is several times faster on a CPU than indexing by row and column.
    moved = pixels.reshape(-1, channels).index_select(0, source)
    return moved.reshape(count, height, width, channels).permute(0, 3, 1, 2)


def _normalised(x: Tensor, splits: Splits) -> Tensor:
    # Mean and deviation are laid out like an image: broadcast over three channels, they would not vectorise.
    mean, std = (
        statistic.expand(1, *x.shape[1:]).contiguous(memory_format=torch.channels_last)
        for statistic in (splits.mean, splits.std)
    )
    return x.to(torch.float32).sub_(mean).div_(std)


def _generator(*names: str | int) -> torch.Generator:
    """A generator on the CPU whose draws follow from the names alone; near names do not give near draws."""
    digest = hashlib.sha256(repr(names).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
