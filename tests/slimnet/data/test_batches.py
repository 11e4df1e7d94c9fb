import gc
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slimnet.data import (
    Augmentation,
    Dataset,
    Images,
    Splits,
    eval_batches,
    load_dataset,
    split,
    train_batch_count,
    train_batches,
)
from slimnet.errors import SlimnetError


def noise(counts: list[int], size: int = 8, channels: int = 3) -> Dataset:
    """Random images, as many of each class as counts say, shuffled; the test part has ten."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    x = rng.integers(0, 256, (len(labels) + 10, size, size, channels), dtype=np.uint8)
    test_labels = np.arange(10, dtype=np.int64) % len(counts)
    return Dataset("noise", x[10:], labels, x[:10], test_labels, num_classes=len(counts))


@pytest.fixture(scope="module")
def splits() -> Splits:
    return split(noise([20, 20, 20]), validation=0.1, seed=0)


def normalised(images: Images, splits: Splits) -> Tensor:
    return (images.x.float() - splits.mean) / splits.std


def epoch(
    splits: Splits, *, seed: int = 0, epoch: int = 0, crop: int = 0, flip: bool = False
) -> tuple[Tensor, Tensor]:
    """A whole epoch, in the order of training."""
    batches = list(
        train_batches(
            splits.train, splits, 16, seed=seed, epoch=epoch, augmentation=Augmentation(crop=crop, flip=flip)
        )
    )
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def sources(x: Tensor, images: Tensor) -> Tensor:
    """For each of x the index of the image that it equals."""
    equal = (x[:, None] == images[None]).flatten(2).all(dim=2)
    assert (equal.sum(dim=1) == 1).all()
    return equal.int().argmax(dim=1)


# ----------------------------------------------------------------------------------------------------- split


def test_the_split_is_balanced_and_loses_no_image() -> None:
    data = noise([20, 30, 50])
    parts = split(data, validation=0.1, seed=3)
    assert torch.bincount(parts.validation.y).tolist() == [2, 3, 5]
    assert torch.bincount(parts.train.y).tolist() == [18, 27, 45]
    assert parts.image_shape == (3, 8, 8)
    together = torch.cat([parts.train.x, parts.validation.x])
    everything = torch.from_numpy(data.x_train).permute(0, 3, 1, 2)
    order = sources(together, everything)
    assert sorted(order.tolist()) == list(range(100))
    assert torch.equal(torch.cat([parts.train.y, parts.validation.y]), torch.from_numpy(data.y_train)[order])
    assert torch.equal(parts.test.x.permute(0, 2, 3, 1), torch.from_numpy(data.x_test))


def test_the_split_follows_from_the_seed() -> None:
    data = noise([20, 20])
    first, again, other = (split(data, validation=0.25, seed=seed).validation.x for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 0.51, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(SlimnetError, match=r"validation is .* above 0 and at most 0.5"):
        split(noise([20, 20]), validation=fraction, seed=0)


def test_a_class_too_small_to_hold_anything_out_is_refused() -> None:
    with pytest.raises(SlimnetError, match="no image of class 1, which has 4 to train on"):
        split(noise([20, 4]), validation=0.1, seed=0)


def test_statistics_are_those_of_the_train_part_alone(splits: Splits) -> None:
    x = splits.train.x.double()
    assert splits.mean.shape == splits.std.shape == (1, 3, 1, 1)
    assert torch.allclose(splits.mean.double(), x.mean(dim=(0, 2, 3), keepdim=True))
    assert torch.allclose(splits.std.double(), x.std(dim=(0, 2, 3), keepdim=True, correction=0))


def test_a_constant_channel_becomes_zero_and_not_nan() -> None:
    data = noise([20, 20])
    data.x_train[..., 1] = 7
    parts = split(data, validation=0.1, seed=0)
    x, _ = epoch(parts)
    assert (x[:, 1] == 0).all()
    assert x.isfinite().all()


# --------------------------------------------------------------------------------------------------- batches


def test_an_epoch_holds_each_image_once_normalised_and_channels_last(splits: Splits) -> None:
    x, y = epoch(splits)
    order = sources(x, normalised(splits.train, splits))
    assert sorted(order.tolist()) == list(range(54))
    assert order.tolist() != list(range(54))
    assert torch.equal(y, splits.train.y[order])
    for batch, _ in train_batches(
        splits.train, splits, 16, seed=0, epoch=0, augmentation=Augmentation(crop=1, flip=True)
    ):
        assert batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last)


def test_evaluation_keeps_the_order(splits: Splits) -> None:
    batches = list(eval_batches(splits.test, splits, 4))
    assert [len(y) for _, y in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([y for _, y in batches]), splits.test.y)
    assert torch.equal(torch.cat([x for x, _ in batches]), normalised(splits.test, splits))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x, _ in batches)


def test_every_draw_follows_from_seed_and_epoch(splits: Splits) -> None:
    first = epoch(splits, crop=2, flip=True, seed=5, epoch=7)
    torch.manual_seed(99)
    again = epoch(splits, crop=2, flip=True, seed=5, epoch=7)
    assert all(map(torch.equal, first, again))
    for other in ({"seed": 5, "epoch": 8}, {"seed": 6, "epoch": 7}, {"seed": 7, "epoch": 5}):
        assert not torch.equal(epoch(splits, crop=2, flip=True, **other)[0], first[0])


def test_drawing_leaves_the_global_generator_alone(splits: Splits) -> None:
    before = torch.get_rng_state()
    epoch(splits, crop=2, flip=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_cropping_pads_with_zeros_and_reaches_every_corner(splits: Splits) -> None:
    crop = 2
    plain, _ = epoch(splits)
    seen = set()
    for number in range(5):
        order = sources(epoch(splits, epoch=number)[0], plain)
        cropped, _ = epoch(splits, crop=crop, epoch=number)
        padded = torch.nn.functional.pad(plain[order], (crop,) * 4)
        for image, wide in zip(cropped, padded, strict=True):
            corners = [
                (top, left)
                for top in range(2 * crop + 1)
                for left in range(2 * crop + 1)
                if torch.equal(image, wide[:, top : top + 8, left : left + 8])
            ]
            assert len(corners) == 1
            seen.add(corners[0])
    assert len(seen) == 25


def test_flipping_mirrors_about_half_of_the_images(splits: Splits) -> None:
    plain, _ = epoch(splits)
    flipped, _ = epoch(splits, flip=True)
    as_is = (flipped == plain).flatten(1).all(dim=1)
    mirrored = (flipped == plain.flip(3)).flatten(1).all(dim=1)
    assert (as_is ^ mirrored).all()
    assert 15 <= int(mirrored.sum()) <= 39


def test_a_crop_is_cut_and_mirrored_within_one_image() -> None:
    """On oblong images, where rows and columns cannot be taken for each other unnoticed."""
    data = noise([20, 20])
    oblong = replace(data, x_train=data.x_train[:, :5].copy(), x_test=data.x_test[:, :5].copy())
    parts = split(oblong, validation=0.1, seed=0)
    plain, _ = epoch(parts)
    moved, _ = epoch(parts, crop=1, flip=True)
    padded = torch.nn.functional.pad(plain, (1,) * 4)
    for image, wide in zip(moved, padded, strict=True):
        cuts = [wide[:, top : top + 5, left : left + 8] for top in range(3) for left in range(3)]
        assert any(torch.equal(image, cut) or torch.equal(image, cut.flip(2)) for cut in cuts)


@given(n=st.integers(2, 200), batch_size=st.integers(2, 64))
def test_no_batch_is_left_with_a_single_image(n: int, batch_size: int) -> None:
    images = Images(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.arange(n))
    one = torch.ones(1, 1, 1, 1)
    parts = Splits(images, images, images, mean=one, std=one, num_classes=n)
    labels = [y for _, y in train_batches(images, parts, batch_size, seed=0, epoch=0)]
    assert len(labels) == train_batch_count(n, batch_size)
    assert sorted(torch.cat(labels).tolist()) == list(range(n))
    assert all(2 <= len(y) <= batch_size + 1 for y in labels)
    assert all(len(y) == batch_size for y in labels[:-1])


@pytest.mark.parametrize(("n", "batch_size"), [(1, 8), (0, 8), (8, 1)])
def test_too_few_images_for_batch_norm_are_refused_at_once(splits: Splits, n: int, batch_size: int) -> None:
    few = Images(splits.train.x[:n], splits.train.y[:n])
    with pytest.raises(SlimnetError, match="at least two images in batches of at least two"):
        train_batches(few, splits, batch_size, seed=0, epoch=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_sees_the_batches_that_a_cpu_sees() -> None:
    data = load_dataset("fashion-mini", image_size=14)
    on_cpu, on_gpu = (split(data, validation=0.1, seed=0, device=device) for device in ("cpu", "cuda"))
    for here, there in zip(epoch(on_cpu, crop=2, flip=True), epoch(on_gpu, crop=2, flip=True), strict=True):
        assert torch.equal(here, there.cpu())


# ------------------------------------------------------------------------------------------------- streaming


def mapped(data: Dataset, folder: Path) -> Dataset:
    """The same data set in memory-mapped files."""
    for name in ("x_train", "x_test"):
        np.save(folder / f"{name}.npy", getattr(data, name))
    files = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in ("x_train", "x_test")}
    return replace(data, **files)


@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(), Augmentation(crop=2, flip=True), Augmentation(flip=True, jitter=0.3, mixup=0.2)],
)
def test_images_that_stream_make_the_same_batches(tmp_path: Path, augmentation: Augmentation) -> None:
    data = noise([30, 30, 30])
    whole = split(data, validation=0.2, seed=1)
    streamed = split(mapped(data, tmp_path), validation=0.2, seed=1)
    assert streamed.train.rows is not None
    assert whole.train.rows is None
    assert torch.equal(whole.mean, streamed.mean)
    made = [
        list(train_batches(s.train, s, 16, seed=2, epoch=3, augmentation=augmentation))
        for s in (whole, streamed)
    ]
    for (x, y), (other_x, other_y) in zip(*made, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)
        assert other_x.is_contiguous(memory_format=torch.channels_last)
    for part in ("validation", "test"):
        for (x, y), (other_x, other_y) in zip(
            *(eval_batches(getattr(s, part), s, 7) for s in (whole, streamed)), strict=True
        ):
            assert torch.equal(x, other_x)
            assert torch.equal(y, other_y)


def test_a_stream_that_is_left_early_ends_its_threads(tmp_path: Path) -> None:
    streamed = split(mapped(noise([30, 30]), tmp_path), validation=0.2, seed=1)
    before = threading.active_count()
    batches = train_batches(streamed.train, streamed, 4, seed=0, epoch=0)
    next(batches)
    assert threading.active_count() > before
    del batches
    gc.collect()
    assert threading.active_count() == before


# ----------------------------------------------------------------------------------------------- augmentation


def pictures(count: int = 40, side: int = 16, channels: int = 3) -> Splits:
    """Smooth images, so that a stretched one is near one that was drawn larger."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((count, channels, 4, 4), generator=generator) * 255
    x = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    pixels = x.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    images = Images(pixels, torch.arange(count) % 4)
    statistic = torch.full((1, channels, 1, 1), 100.0)
    return Splits(images, images, images, mean=statistic, std=statistic, num_classes=4)


def changed(splits: Splits, **changes: Any) -> tuple[Tensor, Tensor]:
    """The images in their order before and after, in 0..255."""
    before, after = (
        list(train_batches(splits.train, splits, 16, seed=4, epoch=1, augmentation=Augmentation(**given)))
        for given in ({}, changes)
    )
    return tuple(torch.cat([x for x, _ in made]) * 100 + 100 for made in (before, after))  # type: ignore[return-value]


EVERY = {
    "vertical_flip": True,
    "resized_crop": 0.3,
    "jitter": 0.4,
    "randaugment": 2,
    "cutout": 0.5,
    "mixup": 0.3,
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("change", [*({name: value} for name, value in EVERY.items()), EVERY])
def test_every_change_follows_from_seed_and_epoch(change: dict[str, Any], channels: int) -> None:
    splits = pictures(channels=channels)

    def epoch(number: int, seed: int = 0) -> list[Tensor]:
        made = train_batches(
            splits.train, splits, 16, seed=seed, epoch=number, augmentation=Augmentation(flip=True, **change)
        )
        return [tensor for pair in made for tensor in pair]

    first = epoch(1)
    assert all(torch.equal(a, b) for a, b in zip(first, epoch(1), strict=True))
    assert not torch.equal(first[0], epoch(2)[0])
    assert not torch.equal(first[0], epoch(1, seed=1)[0])
    assert first[0].shape == (16, channels, 16, 16)
    assert first[0].dtype == torch.float32
    assert first[0].is_contiguous(memory_format=torch.channels_last)


def test_vertical_flips_turn_half_of_the_images() -> None:
    before, after = changed(pictures(200), vertical_flip=True)
    turned = [torch.allclose(a, b.flip(1), atol=1e-3) for a, b in zip(after, before, strict=True)]
    kept = [torch.allclose(a, b, atol=1e-3) for a, b in zip(after, before, strict=True)]
    assert all(a != b for a, b in zip(turned, kept, strict=True))
    assert 70 < sum(turned) < 130


def test_a_resized_crop_shows_a_part_of_the_image() -> None:
    before, after = changed(pictures(), resized_crop=0.25)
    assert (after.amin((2, 3)) >= before.amin((2, 3)) - 1e-2).all()
    assert (after.amax((2, 3)) <= before.amax((2, 3)) + 1e-2).all()
    assert not torch.allclose(before, after, atol=5)
    _, whole = changed(pictures(), resized_crop=1.0)
    spread = (whole - before).abs().amax((1, 2, 3))
    assert spread.median() < 80  # the sides still change, from 3:4 to 4:3, as far as the image reaches


def test_a_resized_crop_and_a_flip_are_drawn_apart() -> None:
    _, one = changed(pictures(), resized_crop=0.5)
    _, both = changed(pictures(), resized_crop=0.5, flip=True)
    mirrored = [torch.allclose(a, b.flip(2), atol=0.1) for a, b in zip(both, one, strict=True)]
    kept = [torch.allclose(a, b, atol=0.1) for a, b in zip(both, one, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 8 < sum(mirrored) < 32


def test_jitter_changes_colours_and_no_places() -> None:
    before, after = changed(pictures(), jitter=0.4)
    assert not torch.allclose(before, after, atol=10)
    assert after.min() >= -1e-3
    assert after.max() <= 255.001
    grey = pictures()
    grey = replace(grey, train=Images(torch.full_like(grey.train.x, 100), grey.train.y))
    _, flat = changed(grey, jitter=0.4)
    assert (flat.amax((1, 2, 3)) - flat.amin((1, 2, 3))).max() < 1e-2  # neither contrast nor saturation
    assert 60 <= flat.min() < 80
    assert 120 < flat.max() <= 140


def test_cutout_blanks_a_square_with_the_mean() -> None:
    splits = pictures()
    splits = replace(splits, train=Images(torch.full_like(splits.train.x, 200), splits.train.y))
    _, after = changed(splits, cutout=0.5)
    blank = (after == 100).all(1)
    assert ((after == 200).all(1) | blank).all()
    areas = blank.sum((1, 2))
    assert areas.max() == 64
    assert areas.min() >= 16  # the centre is within the image
    rows, columns = blank.any(2).sum(1), blank.any(1).sum(1)
    assert (rows * columns == areas).all()


def test_mixup_blends_images_as_it_blends_labels() -> None:
    splits = pictures()
    plain = list(train_batches(splits.train, splits, 16, seed=4, epoch=1))
    mixed = list(
        train_batches(splits.train, splits, 16, seed=4, epoch=1, augmentation=Augmentation(mixup=0.4))
    )
    for (x, y), (mixed_x, weights) in zip(plain, mixed, strict=True):
        assert weights.shape == (len(y), 4)
        torch.testing.assert_close(weights.sum(1), torch.ones(len(y)))
        other = y != y.flip(0)
        own = weights[torch.arange(len(y)), y]
        assert (own >= 0.5).all()
        assert own[other].min() < 0.95
        blend = own[:, None, None, None] * x + (1 - own)[:, None, None, None] * x.flip(0)
        torch.testing.assert_close(mixed_x[other], blend[other])


def test_randaugment_draws_other_operations_for_each_image() -> None:
    before, after = changed(pictures(200), randaugment=1)
    difference = (after - before).abs().amax((1, 2, 3))
    assert 2 < (difference < 1e-3).sum() < 60  # one of fourteen changes nothing; some others change little
    assert (difference > 20).sum() > 80
    assert after.min() >= 0
    assert after.max() <= 255


def test_augmentations_out_of_range_are_refused() -> None:
    for wrong in ({"jitter": 2}, {"resized_crop": 0}, {"mixup": -1}, {"crop": 2, "resized_crop": 0.5}):
        with pytest.raises(SlimnetError):
            Augmentation(**wrong)
