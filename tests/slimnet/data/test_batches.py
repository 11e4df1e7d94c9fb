from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slimnet.data import (
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
    batches = list(train_batches(splits.train, splits, 16, seed=seed, epoch=epoch, crop=crop, flip=flip))
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
    for batch, _ in train_batches(splits.train, splits, 16, seed=0, epoch=0, crop=1, flip=True):
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
