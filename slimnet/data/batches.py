"""The split, and batches made on the device that holds the images, or that they stream to.

The images stay uint8 until their batch is due; a whole batch is then normalised and augmented at once. All
chance comes from generators on the CPU, seeded from what the caller names, so that every device and every
resumed run sees the same batches, whether the images stream or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from slimnet.data.augmentation import NONE, Augmentation
from slimnet.data.catalogue import Resize
from slimnet.data.draws import generator_of
from slimnet.data.sets import Dataset
from slimnet.data.streaming import is_mapped, stream, takes_whole
from slimnet.data.upstream import Labels, Pixels
from slimnet.errors import SlimnetError
from slimnet.preprocessing import Preprocessing
from slimnet.wording import plural

Batches = Iterator[tuple[Tensor, Tensor]]
"""Pairs of images (B, C, H, W), float32, normalised, channels_last, and labels (B,), int64.

With mixup the labels are the weights of the classes, (B, num_classes), float32.
"""

CHUNK = 2**26  # bytes of images that are counted at a time

Statistic = Sequence[float]
"""A number for each channel, of pixels in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images (N, C, H, W), uint8, stored channels last, and labels (n,), int64.

    Attributes:
        x: on the device of `y`; or, where they stream to it, in memory-mapped files.
        y: labels.
        rows: (n,), int64, on the CPU, where they stream: which images of `x` these are; None for all.
    """

    x: Tensor
    y: Tensor
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def device(self) -> torch.device:
        """Where batches of them are."""
        return self.y.device

    def first(self, count: int) -> Images:
        """The first few, held by the device."""
        return self.part(0, count)

    def part(self, start: int, stop: int) -> Images:
        """Those from `start` to before `stop`, held by the device."""
        if self.rows is None:
            return Images(self.x[start:stop], self.y[start:stop])
        x = self.x.permute(0, 2, 3, 1)[self.rows[start:stop]].to(self.device)
        return Images(x.permute(0, 3, 1, 2), self.y[start:stop])


@dataclass(frozen=True, eq=False)
class Splits:
    """The three parts of a data set, and the pixel statistics by which all are normalised.

    Attributes:
        train, validation, test: the parts.
        mean, std: (1, C, 1, 1), float32, in 0..255 units: of the train part, where they are not given; std is
            then 1 where a channel is constant.
        num_classes: labels go from 0 to one below it.
        classes: their names; where none are given, the numbers.
        resize: how a picture of another size is brought to the size of these images.
        held_out: whether the validation images were taken from the training images.
        notes: as the data set has them.
    """

    train: Images
    validation: Images
    test: Images
    mean: Tensor
    std: Tensor
    num_classes: int
    classes: tuple[str, ...] = ()
    resize: Resize = "pool"
    held_out: bool = True
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.classes:
            object.__setattr__(self, "classes", tuple(map(str, range(self.num_classes))))

    @property
    def device(self) -> torch.device:
        """Where batches of the images are."""
        return self.train.device

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.x.shape[1:]
        return channels, height, width

    @property
    def example(self) -> Tensor:
        """One empty image, (1, C, H, W), float32, on the device of the data."""
        return torch.zeros((1, *self.image_shape), device=self.device)

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture becomes an input like these, to be kept with a network that is trained on them."""
        channels, height, width = self.image_shape
        mean, std = (tuple((s.cpu().double() / 255).flatten().tolist()) for s in (self.mean, self.std))
        return Preprocessing((height, width), channels, mean, std, self.classes, self.resize)


def split(
    dataset: Dataset,
    *,
    validation: float,
    seed: int,
    device: torch.device | str = "cpu",
    mean: Statistic | None = None,
    std: Statistic | None = None,
) -> Splits:
    """Hold out a part of the training images for validation, and put everything on `device`.

    Images in memory-mapped files stay there and stream to the device, batch after batch, where that is a
    processor, whose memory the files are in as they are, or has too little free memory for them.

    Args:
        dataset: with a train and a test part.
        validation: the fraction held out, in (0, 0.5], of every class, rounded to whole images. Not used
            where the data set has a validation part of its own.
        seed: which images are held out follows from it.
        device: that holds all three parts, or that they stream to.
        mean, std: to normalise by, a number per channel, of pixels in [0, 1]; by default those of the
            training images that are not held out.

    Raises:
        SlimnetError: a fraction outside the range, or one at which a class gives no image; mean or std of
            other channels, or a std that is not above 0.
    """
    if not 0 < validation <= 0.5:
        raise SlimnetError(f"validation is {validation}, and must be above 0 and at most 0.5.")
    x, y = dataset.x_train, dataset.y_train
    own = dataset.x_validation is not None
    held_out = np.zeros(len(y), np.bool_) if own else _held_out(dataset, validation, seed)
    trained = np.flatnonzero(~held_out)
    return Splits(
        train=_images(x, y, device, trained),
        validation=_images(dataset.x_validation, dataset.y_validation, device)
        if dataset.x_validation is not None and dataset.y_validation is not None
        else _images(x, y, device, np.flatnonzero(held_out)),
        test=_images(dataset.x_test, dataset.y_test, device),
        **_statistics(dataset, trained, mean, std, device),
        num_classes=dataset.num_classes,
        classes=dataset.classes,
        resize=dataset.resize,
        held_out=not own,
        notes=dataset.notes,
    )


def train_batches(
    images: Images,
    splits: Splits,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    augmentation: Augmentation = NONE,
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
        augmentation: how they are changed at random.

    Raises:
        SlimnetError: fewer than two images, or batches of fewer than two.
    """
    bounds = _train_bounds(len(images), batch_size)
    crop = augmentation.crop
    order, mirrored, corners = _draws(len(images), crop, seed=seed, epoch=epoch)
    corners = corners.to(images.device)

    def moved() -> Batches:
        """With nothing but crop and flip, in one pass over the pixels."""
        flipped = mirrored.to(images.device)
        for (start, stop), x, y in zip(bounds, *_selected(images, order, bounds), strict=True):
            x = _normalised(x, splits)
            if crop or augmentation.flip:
                x = _moved(
                    x, crop, corners[:, start:stop], flipped[start:stop] if augmentation.flip else None
                )
            yield x, y

    def changed() -> Batches:
        from slimnet.data.changes import Changes

        shape = splits.image_shape
        changes = Changes(augmentation, mirrored, shape, images.device, seed=seed, epoch=epoch)
        for bound, x, y in zip(bounds, *_selected(images, order, bounds), strict=True):
            part = slice(*bound)
            x = changes.shapes(_normalised(changes.colours(x, part, splits.mean), splits), part)
            if crop:
                x = _moved(x, crop, corners[:, part], None)
            yield changes.mixed(changes.cut_out(x, part), y, part, splits.num_classes)

    return moved() if augmentation.moves_only else changed()


def train_batch_count(n: int, batch_size: int) -> int:
    """How many batches `train_batches` makes of `n` images.

    Raises:
        SlimnetError: as `train_batches`.
    """
    return len(_train_bounds(n, batch_size))


def eval_batches(images: Images, splits: Splits, batch_size: int) -> Batches:
    """All images in their order, normalised; the last batch may be smaller."""
    bounds = [(start, min(start + batch_size, len(images))) for start in range(0, len(images), batch_size)]
    if images.rows is None:
        for start, stop in bounds:
            yield _normalised(images.x[start:stop], splits), images.y[start:stop]
    else:
        for x, y in zip(*_selected(images, torch.arange(len(images)), bounds), strict=True):
            yield _normalised(x, splits), y


# ------------------------------------------------------------------------------------------------------ split


def _held_out(dataset: Dataset, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """(N,), True where a training image is held out."""
    generator = generator_of("split", seed)
    held_out = np.zeros(len(dataset.y_train), dtype=np.bool_)
    for label, name in enumerate(dataset.classes):
        of_class = np.flatnonzero(dataset.y_train == label)
        count = round(fraction * len(of_class))
        if count == 0:
            raise SlimnetError(
                f"validation {fraction} takes no image of class {name}, which has {len(of_class)} to train "
                "on; a larger fraction would, or more images."
            )
        held_out[of_class[torch.randperm(len(of_class), generator=generator)[:count].numpy()]] = True
    return held_out


def _statistics(
    dataset: Dataset,
    rows: npt.NDArray[np.intp],
    mean: Statistic | None,
    std: Statistic | None,
    device: torch.device | str,
) -> dict[str, Tensor]:
    """Mean and deviation of training images, or those that are given."""
    channels = dataset.image_shape[0]
    for name, given in (("mean", mean), ("std", std)):
        if given is not None and len(given) != channels:
            numbers, images = plural(len(given), "number"), plural(channels, "channel")
            raise SlimnetError(f"{name} has {numbers}, but the images have {images}.")
    if std is not None and min(std) <= 0:
        raise SlimnetError(f"std is {list(std)}, and must be above 0 in every channel.")
    found = [None if given is None else np.array(given, np.float64) * 255 for given in (mean, std)]
    if mean is None or std is None:
        if dataset.moments is not None:
            pixels = dataset.x_train[0, ..., 0].size
            counted = _statistics_of_moments(dataset.moments[rows], pixels)
        else:
            counted = _pixel_statistics(dataset.x_train, rows)
        found = [own if given is None else given for given, own in zip(found, counted, strict=True)]
    return {
        name: torch.from_numpy(statistic).float().reshape(1, channels, 1, 1).to(device)
        for name, statistic in zip(("mean", "std"), found, strict=True)
    }


def _statistics_of_moments(
    moments: npt.NDArray[np.int64], pixels: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and deviation per channel from (N, C, 2): sums and sums of squares of images of so many pixels."""
    count, totals = len(moments) * pixels, moments.sum(axis=0).tolist()  # in integers of any size
    mean = np.array([total / count for total, _ in totals])
    variance = np.array([(count * squares - total**2) / count**2 for total, squares in totals])
    std = np.sqrt(variance)
    std[std == 0] = 1.0
    return mean, std


def _pixel_statistics(
    x: Pixels, rows: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation per channel of the images x[rows], x (N, H, W, C).

    Counted in integers, so that they come out the same in whatever order and on whatever machine.
    """
    channels = x.shape[-1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for chosen in np.array_split(rows, 1 + len(rows) * x[0].nbytes // CHUNK):
        chunk = torch.from_numpy(x[chosen])
        for channel in range(channels):  # torch counts bytes as they are, ten times as fast as numpy
            counts[channel] += torch.bincount(chunk[..., channel].flatten(), minlength=256).numpy()
    levels = np.arange(256)
    mean = counts @ levels / counts.sum(axis=1)
    std = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1))
    std[std == 0] = 1.0
    return mean, std


def _images(
    x: Pixels, y: Labels, device: torch.device | str, rows: npt.NDArray[np.intp] | None = None
) -> Images:
    """The images x[rows], whole on the device or streaming to it."""
    labels = torch.from_numpy(y if rows is None else y[rows]).to(device)
    if is_mapped(x) and not takes_whole(x.nbytes, torch.device(device)):
        numbers = torch.arange(len(y)) if rows is None else torch.from_numpy(rows)
        return Images(torch.from_numpy(x).permute(0, 3, 1, 2), labels, numbers)
    own = x if rows is None else x[rows]
    return Images(torch.from_numpy(own).permute(0, 3, 1, 2).to(device), labels)


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
    generator = generator_of("epoch", seed, epoch)
    order = torch.randperm(n, generator=generator)
    mirrored = torch.randint(2, (n,), generator=generator).bool()
    corners = torch.randint(2 * crop + 1, (2, n), generator=generator)
    return order, mirrored, corners


def _selected(
    images: Images, order: Tensor, bounds: Sequence[tuple[int, int]]
) -> tuple[Iterator[Tensor], Iterator[Tensor]]:
    """Batches of pixels, in channels_last, and of labels: the images in an order (N,), cut at the bounds."""
    placed = order.to(images.device)  # at once, as each transfer waits for the device
    labels = (images.y.index_select(0, placed[start:stop]) for start, stop in bounds)
    whole = images.x.permute(0, 2, 3, 1)
    if images.rows is not None:
        rows = images.rows.index_select(0, order).numpy()
        pixels = stream(whole.numpy(), [rows[start:stop] for start, stop in bounds], images.device)
    else:
        pixels = (whole.index_select(0, placed[start:stop]) for start, stop in bounds)
    return (x.permute(0, 3, 1, 2) for x in pixels), labels


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
