import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimnet.data import IMAGE_SIDES, Source, default_data_dir, fingerprint, load_dataset, sets, split
from slimnet.data.catalogue import ARRAYS, PUBLISHED
from slimnet.errors import SlimnetError


def arrays(**changes: Any) -> dict[str, Any]:
    """A valid data set of 12 + 6 images, 4 x 6 pixels, three channels, three classes, with changes."""
    pixels = np.arange(18 * 4 * 6 * 3, dtype=np.uint64).astype(np.uint8).reshape(18, 4, 6, 3)
    labels = np.arange(18) % 3
    valid = {"x_train": pixels[:12], "y_train": labels[:12], "x_test": pixels[12:], "y_test": labels[12:]}
    return valid | changes


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "own.npz"
    np.savez_compressed(path, **arrays())
    return path


# ---------------------------------------------------------------------------------------------- fashion-mini


def test_fashion_mini_is_balanced() -> None:
    data = load_dataset("fashion-mini")
    assert (data.name, data.num_classes, data.image_shape) == ("fashion-mini", 10, (1, 28, 28))
    assert data.x_train.shape == (5000, 28, 28, 1)
    assert data.x_test.shape == (2000, 28, 28, 1)
    assert np.bincount(data.y_train).tolist() == [500] * 10
    assert np.bincount(data.y_test).tolist() == [200] * 10
    assert data.x_train.dtype == np.uint8
    assert data.y_train.dtype == np.int64


def test_a_changed_fashion_mini_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "fashion-mini.npz"
    damaged.write_bytes(sets.FASHION_MINI.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(sets, "FASHION_MINI", damaged)
    with pytest.raises(SlimnetError, match=r"not the file that shipped.*git checkout"):
        load_dataset("fashion-mini")


# ------------------------------------------------------------------------------------------------ image size


def test_pooling_takes_means_rounded_to_nearest() -> None:
    full, pooled = load_dataset("fashion-mini"), load_dataset("fashion-mini", image_size=7)
    blocks = full.x_test.astype(np.float64).reshape(2000, 7, 4, 7, 4, 1).mean(axis=(2, 4))
    assert pooled.image_shape == (1, 7, 7)
    assert np.array_equal(pooled.x_test, np.floor(blocks + 0.5))
    assert np.array_equal(pooled.y_train, full.y_train)


@pytest.mark.parametrize("size", [0, -7, 13, 56])
def test_a_size_that_does_not_divide_is_refused_with_those_that_do(size: int) -> None:
    with pytest.raises(SlimnetError, match=rf"image_size {size} .* one of these: 1, 2, 4, 7, 14, 28\."):
        load_dataset("fashion-mini", image_size=size)


def test_pooling_oblong_images_is_refused(npz: Path) -> None:
    with pytest.raises(SlimnetError, match=r"image_size needs square images; .*own\.npz has 4x6"):
        load_dataset(Source("npz", npz), image_size=2)


# ------------------------------------------------------------------------------------------------------- npz


def test_npz_of_colour_images(npz: Path) -> None:
    data = load_dataset(Source("npz", npz))
    expected = arrays()
    assert (data.num_classes, data.image_shape) == (3, (3, 4, 6))
    for name in ARRAYS:
        assert np.array_equal(getattr(data, name), expected[name])


def test_npz_of_grey_images_without_a_channel_axis(tmp_path: Path) -> None:
    grey = arrays(x_train=arrays()["x_train"][..., 0], x_test=arrays()["x_test"][..., 0])
    np.savez(tmp_path / "grey.npz", **(grey | {"y_train": grey["y_train"].astype(np.uint8)}))
    data = load_dataset(Source("npz", tmp_path / "grey.npz"))
    assert data.image_shape == (1, 4, 6)
    assert data.y_train.dtype == np.int64
    assert np.array_equal(data.x_train[..., 0], grey["x_train"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x_train": arrays()["x_train"] / 255}, "x_train is float64, and must be uint8"),
        ({"x_test": arrays()["x_test"][0, 0]}, r"x_test has shape \(6, 3\), and must be \(images, height"),
        ({"x_test": arrays()["x_test"][:, :2]}, r"images of shape \(4, 6, 3\), x_test of \(2, 6, 3\)"),
        ({"x_test": arrays()["x_test"][..., :1]}, r"x_test of \(4, 6, 1\)"),
        (
            {"x_train": np.zeros((12, 3, 8, 8), np.uint8)},
            r"channels go last: x_train.transpose\(0, 2, 3, 1\)",
        ),
        ({"y_train": np.zeros(11, int)}, r"y_train has shape \(11,\), and must be \(12,\)"),
        ({"y_train": np.eye(12, dtype=int)}, r"y_train has shape \(12, 12\)"),
        ({"y_test": np.zeros(6)}, "y_test is float64, and must hold integers"),
        ({"y_test": np.zeros(6, bool)}, "y_test is bool, and must hold integers"),
        ({"y_train": np.arange(12) - 1}, "y_train holds the label -1; labels count from 0"),
        ({"y_train": np.arange(12) % 3 * 2}, "y_train goes up to 4 but never is 1"),
        ({"y_train": np.arange(12) + 1}, "y_train goes up to 12 but never is 0"),
        ({"y_test": np.arange(6)}, "y_test holds the label 5, but y_train only goes up to 2"),
        ({"x_test": np.zeros((0, 4, 6, 3), np.uint8), "y_test": np.zeros(0, int)}, "holds no pixel"),
        ({"y_test": np.array([0, 1, 2, 0, 1, "two"], dtype=object)}, "y_test cannot be read .*allow_pickle"),
    ],
)
def test_wrong_arrays_are_refused_with_the_reason(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays(**changes))
    with pytest.raises(SlimnetError, match=reason) as refusal:
        load_dataset(Source("npz", path))
    assert str(path) in str(refusal.value)


def test_an_array_that_is_missing_is_named(tmp_path: Path) -> None:
    content = arrays()
    del content["x_test"], content["y_test"]
    np.savez(tmp_path / "half.npz", **content)
    with pytest.raises(SlimnetError, match="lacks x_test, y_test; it holds x_train, y_train"):
        load_dataset(Source("npz", tmp_path / "half.npz"))


def test_files_that_are_no_npz_are_refused(npz: Path, tmp_path: Path) -> None:
    whole = npz.read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    contents = [b"", b"no arrays here", whole[: len(whole) // 2], (tmp_path / "array.npy").read_bytes()]
    for content in contents:
        npz.write_bytes(content)
        with pytest.raises(SlimnetError, match="is not an npz file, or is cut short"):
            load_dataset(Source("npz", npz))


def test_an_npz_with_a_flipped_byte_is_refused(npz: Path) -> None:
    content = bytearray(npz.read_bytes())
    content[120] ^= 0xFF
    npz.write_bytes(content)
    with pytest.raises(SlimnetError, match="x_train cannot be read"):
        load_dataset(Source("npz", npz))


@pytest.mark.parametrize("read", [load_dataset, fingerprint])
def test_a_file_that_is_not_there(read: Any, tmp_path: Path) -> None:
    with pytest.raises(SlimnetError, match=r"absent.npz cannot be read: No such file"):
        read(Source("npz", tmp_path / "absent.npz"))
    with pytest.raises(SlimnetError, match="cannot be read: Is a directory"):
        read(Source("npz", tmp_path))


# ------------------------------------------------------------------------------------- names and fingerprints


@pytest.mark.parametrize("read", [load_dataset, fingerprint])
def test_names_and_paths_that_do_not_go_together(read: Any, tmp_path: Path) -> None:
    with pytest.raises(SlimnetError, match="no data set 'mnist'; did you mean torchvision/MNIST"):
        read("mnist")
    with pytest.raises(SlimnetError, match="'npz' needs a path"):
        read("npz")
    with pytest.raises(SlimnetError, match="'cifar10' takes no path"):
        read(Source("cifar10", tmp_path))


def test_fingerprints_tell_data_sets_apart(npz: Path) -> None:
    published = [fingerprint(name) for name in IMAGE_SIDES]
    assert len(set(published)) == len(published)
    assert fingerprint("cifar10") == "md5:c58f30108f718f92721af3b95e74349a"

    before = fingerprint(Source("npz", npz))
    assert fingerprint(Source("npz", npz)) == before
    np.savez_compressed(npz, **arrays(y_train=np.arange(12) % 3 * 0))
    assert fingerprint(Source("npz", npz)) != before


def test_the_default_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMNET_DATA", "~/sets")
    assert default_data_dir() == Path.home() / "sets"
    monkeypatch.delenv("SLIMNET_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_data_dir() == Path("/caches/slimnet")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_data_dir() == Path.home() / ".cache" / "slimnet"


def test_the_shipped_set_needs_neither_torchvision_nor_filelock() -> None:
    program = (
        "import sys; sys.modules['torchvision'] = sys.modules['filelock'] = None\n"
        "from slimnet.data import load_dataset; load_dataset('fashion-mini')"
    )
    root = str(Path(__file__).parents[3])
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONPATH": root})


def test_classes_have_names() -> None:
    data = load_dataset("fashion-mini")
    assert data.classes[9] == "Ankle boot"
    parts = split(data, validation=0.1, seed=0)
    assert (parts.classes, parts.resize) == (data.classes, "pool")
    assert {name: len(entry.classes) for name, entry in PUBLISHED.items()} == {
        "fashion-mnist": 10,
        "cifar10": 10,
        "cifar100": 100,
    }


def test_classes_without_names_are_numbered(npz: Path) -> None:
    assert load_dataset(Source("npz", npz)).classes == ("0", "1", "2")
