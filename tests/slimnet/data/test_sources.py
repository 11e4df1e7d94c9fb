"""Data sets from factories, torchvision and folders of npy files."""

from __future__ import annotations

import gzip
import struct
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from slimnet.data import Dataset, Source, fingerprint, load_dataset, split
from slimnet.data import sources as sources_module
from slimnet.data.catalogue import TORCHVISION
from slimnet.data.streaming import is_mapped
from slimnet.errors import SlimnetError

Write = Callable[[str], Source]

# Factories


@pytest.fixture
def write(tmp_path: Path, request: pytest.FixtureRequest) -> Write:
    """Writes a module with a function `make`; each test has a module of its own name."""
    module = f"own_{abs(hash(request.node.name))}"

    def call(body: str, **args: Any) -> Source:
        lines = ["import numpy as np, torch", "from PIL import Image", textwrap.dedent(body)]
        (tmp_path / f"{module}.py").write_text("\n".join(lines))
        return Source("factory", tmp_path, f"{module}:make", args)

    return call


ARRAYS = """
def make(count=12, **more):
    x = np.arange(count * 5 * 4 * 3).astype(np.uint8).reshape(count, 5, 4, 3)
    y = np.arange(count) % 3
    return {"x_train": x, "y_train": y, "x_test": x[:6], "y_test": y[:6], **more}
"""

PAIRS = """
class Pairs:
    classes = ["red", "green"]
    def __init__(self, count, form): self.count, self.form = count, form
    def __len__(self): return self.count
    def __getitem__(self, number):
        if number >= self.count: raise IndexError
        pixels = np.full((6, 8, 3), 20 * number % 256, np.uint8)
        pixels[..., number % 2] = 255
        forms = {
            "PIL": Image.fromarray(pixels),
            "array": pixels,
            "tensor": torch.from_numpy(pixels).permute(2, 0, 1),
            "floats": torch.from_numpy(pixels) / 255,
        }
        return forms[self.form], number % 2

def make(form="PIL"):
    return {"train": Pairs(20, form), "test": Pairs(6, form)}
"""


def test_a_factory_gives_arrays(write: Write) -> None:
    data = load_dataset(write(ARRAYS, count=15))
    assert (len(data.y_train), data.num_classes, data.image_shape) == (15, 3, (3, 5, 4))
    assert data.classes == ("0", "1", "2")


@pytest.mark.parametrize("form", ["PIL", "array", "tensor"])
def test_a_factory_gives_data_sets_of_pictures(write: Write, form: str, data_dir: Path) -> None:
    data = load_dataset(write(PAIRS, form=form))
    assert (data.classes, data.image_shape) == (("red", "green"), (3, 6, 8))
    assert data.y_train.tolist() == [0, 1] * 10
    assert data.x_train[3, 0, 0].tolist() == [60, 255, 60]
    assert is_mapped(data.x_train)
    assert len(list((data_dir / "pictures").glob("[!.]*"))) == 1
    small = load_dataset(write(PAIRS, form=form), image_size=4, channels=1)
    assert small.image_shape == (1, 4, 4)


def test_what_a_factory_gave_is_kept(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_dataset(write(PAIRS))
    monkeypatch.setattr(sources_module, "_call", lambda _: pytest.fail("called again"))
    np.testing.assert_array_equal(load_dataset(write(PAIRS)).x_train, first.x_train)


def test_an_edited_factory_is_another_data_set(write: Write) -> None:
    before = fingerprint(write(PAIRS))
    assert fingerprint(write(PAIRS)) == before
    assert fingerprint(write(PAIRS, form="array")) != before
    assert fingerprint(write(PAIRS.replace("20 *", "21 *"))) != before


def test_what_a_factory_prints_is_kept_out_of_json(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    load_dataset(write(ARRAYS + "\nold = make\ndef make(): print('made'); return old()"))
    assert capsys.readouterr() == ("", "made\n")


WRONG = [
    ("def make(): raise KeyError('gone')", r"failed: KeyError: 'gone' \(.*\.py, line \d+\)"),
    ("def make(): import sys; sys.exit(3)", r"failed: SystemExit: 3"),
    ("def make(needed): pass", "needs the argument needed; give it in data.args of a config"),
    ("def make(): return None", "gives nothing; it should give a dict of arrays"),
    ("def make(): return np.zeros(3)", "gives a ndarray; it should give"),
    ("def make(): return 1, 2, 3", "gives a tuple of 3; it should give"),
    ("def make(): return {'train': [], 'other': []}", "gives a dict of train, other; it should give"),
    ("def make(): return {'train': [], 'test': []}", "train is empty"),
    ("def make(): return {'train': [1], 'test': 5}", "test is a int; it should have a length"),
    ("def make(): return [1], [2]", "item 0 of train is a int; it should be a pair of a picture"),
    ("def make(): return [('a.png', 0)], [('b.png', 0)]", "item 0 of train is a str; a picture is a PIL"),
    (
        PAIRS + "\nold = make\ndef make(): return old('floats')",
        "Tensor of .*float32.*leave out ToTensor",
    ),
    ("def make(): return {'x_train': np.zeros((2, 4, 4))}", "lacks y_train, x_test, y_test"),
    (ARRAYS + "\nold = make\ndef make(): return old(masks=1)", "gives masks; beside arrays it may give"),
    (ARRAYS + "\nold = make\ndef make(): return old(classes=3)", "classes is a int; it should be a list"),
    (PAIRS + "\nold = make\ndef make(): return old() | {'classes': 2}", "classes is a int; it should be a"),
    (PAIRS + "\nold = make\ndef make(): return old() | {'classes': 'ab'}", "classes is a str; it should be"),
    (
        ARRAYS + "\nold = make\ndef make(): return old(x_test=[1])",
        "x_test is list, and must be",
    ),
]


@pytest.mark.parametrize(("body", "message"), WRONG)
def test_what_a_factory_may_not_do(write: Write, body: str, message: str, data_dir: Path) -> None:
    with pytest.raises(SlimnetError, match=message):
        load_dataset(write(body))
    assert not list(data_dir.rglob("facts.json"))


LABELS = [("'cat'", "has the label 'cat'"), ("-1", "has the label -1"), ("0.5", "has the label 0.5")]


@pytest.mark.parametrize(("label", "message"), LABELS)
def test_labels_that_are_no_classes(write: Write, label: str, message: str) -> None:
    body = f"def make():\n    one = (Image.new('RGB', (4, 4)), {label})\n    return [one] * 4, [one] * 2"
    with pytest.raises(SlimnetError, match=message):
        load_dataset(write(body))


def test_classes_without_pictures(write: Write) -> None:
    body = """
    def make(train, test):
        image = Image.new('RGB', (4, 4))
        return [(image, label) for label in train], [(image, label) for label in test]
    """
    for train, test, message in [
        ([0, 0], [0], "holds a single class, 0"),
        ([0, 1], [0, 2], "test has the label 2, but there are 2 classes"),
        ([0, 2], [0, 2], "train has no picture of 1"),
        ([0, 1], [0], "test has no picture of 1"),
    ]:
        with pytest.raises(SlimnetError, match=message):
            load_dataset(write(body, train=train, test=test))


def test_sizes_that_differ(write: Write) -> None:
    body = """
    def make():
        images = [(Image.new('RGB', (4 + n, 4)), n % 2) for n in range(4)]
        return images, images
    """
    with pytest.raises(SlimnetError, match=r"differ in size: 4x4 at first, 5x4 in train 1; .*--image-size"):
        load_dataset(write(body))
    assert load_dataset(write(body), image_size=4).image_shape == (3, 4, 4)


BAD_PICTURE = """
def make(bad=1):
    kinds = [Image.new("RGB", (4, 4))] * 40 + [Image.new("F", (4, 4))] * bad
    return [(image, n % 2) for n, image in enumerate(kinds)], [(kinds[0], n) for n in range(2)]
"""


def test_colours_among_greys(write: Write) -> None:
    source = write("""
    def make():
        part = [(Image.new("L" if n < 4 else "RGB", (8, 8)), n % 2) for n in range(8)]
        return part, part
    """)
    with pytest.raises(
        SlimnetError, match=r"the first is grey, train 4 has colours; say which .*data.channels"
    ):
        load_dataset(source)
    assert load_dataset(source, channels=3).image_shape == (3, 8, 8)


def test_a_picture_that_cannot_be_decoded_is_left_out_and_named(write: Write) -> None:
    data = load_dataset(write(BAD_PICTURE))
    assert len(data.y_train) == 40
    assert "item 40 of train cannot be read: ValueError: it holds floating-point numbers" in data.notes[0]
    with pytest.raises(SlimnetError, match=r"5 of the 45 pictures of train cannot be read, .*: .*item 40 of"):
        load_dataset(write(BAD_PICTURE, bad=5))


def test_a_damaged_picture_is_not_a_full_disk(write: Write) -> None:
    body = """
    import io
    def cut():
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file, "PNG")
        return Image.open(io.BytesIO(file.getvalue()[:5000]))
    def make():
        return [(cut(), n % 2) for n in range(4)], [(cut(), n % 2) for n in range(4)]
    """
    with pytest.raises(
        SlimnetError, match=r"4 of the 4 pictures of train cannot be read, .*: .*item 0 of train"
    ):
        load_dataset(write(body))


# torchvision


def test_every_set_is_there_and_takes_what_it_is_given() -> None:
    import inspect

    for name, parts in TORCHVISION.items():
        takes = inspect.signature(getattr(torchvision.datasets, name.partition("/")[2])).parameters
        assert {"train", "test"} <= parts.keys()
        for given in parts.values():
            assert given.keys() <= takes.keys() or "kwargs" in takes, name


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_sets_that_torchvision_unpickles_are_slimnets_own(name: str) -> None:
    with pytest.raises(SlimnetError, match=f"unpickles.*slimnet's own {name}"):
        Source(f"torchvision/{name.upper()}")


def test_a_set_of_torchvision(tmp_path: Path, data_dir: Path) -> None:
    raw = data_dir / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 40), ("t10k", 20)):
        pixels = np.arange(count * 28 * 28).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        head = struct.pack(">iiii", 0x803, count, 28, 28)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 0x801, count) + labels.tobytes())
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(b""))
    data = load_dataset("torchvision/KMNIST")
    assert (data.image_shape, data.num_classes, len(data.y_test)) == ((1, 28, 28), 10, 20)
    assert data.classes[0] == "o"
    expected = np.arange(40 * 28 * 28).astype(np.uint8).reshape(40, 28, 28, 1)
    np.testing.assert_array_equal(data.x_train, expected)
    assert load_dataset("torchvision/KMNIST", image_size=14, resize="pool").image_shape == (1, 14, 14)


def test_without_a_network_it_is_said_where_the_files_belong(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.USPS, "__init__", offline)
    with pytest.raises(SlimnetError, match=r"USPS is not in .*kept and cannot be fetched: no route"):
        load_dataset("torchvision/USPS")


# npy


@pytest.fixture
def npy(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "arrays"
    folder.mkdir()
    for part, count in (("train", 30), ("val", 9), ("test", 12)):
        np.save(folder / f"x_{part}.npy", rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8))
        np.save(folder / f"y_{part}.npy", np.arange(count) % 3)
    np.save(folder / "classes.npy", np.array(["one", "two", "three"]))
    return folder


def test_a_folder_of_npy_files_is_mapped(npy: Path) -> None:
    data: Dataset = load_dataset(Source("npy", npy))
    assert (data.classes, data.image_shape) == (("one", "two", "three"), (3, 6, 6))
    assert is_mapped(data.x_train)
    parts = split(data, validation=0.1, seed=0)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [30, 9, 12]
    assert parts.train.rows is not None
    own = np.load(npy / "x_train.npy")
    torch.testing.assert_close(
        parts.mean.flatten(), torch.from_numpy(own.mean((0, 1, 2))).float(), rtol=1e-6, atol=0
    )
    assert load_dataset(Source("npy", npy), image_size=3).image_shape == (3, 3, 3)


def test_npy_files_that_are_wrong(npy: Path) -> None:
    before = fingerprint(Source("npy", npy))
    for name, array, message in [
        (
            "x_test",
            np.zeros((12, 5, 6, 3), np.uint8),
            r"images of shape \(6, 6, 3\), x_test of",
        ),
        ("y_val", np.arange(9) % 3 + 1, "y_val holds the label 3, but y_train only goes up to 2"),
        ("y_train", np.zeros(30, int), "y_train holds a single class"),
        ("classes", np.array(3), "classes is a ndarray; it should be a list, a tuple or"),
        ("classes", np.array(["one", "two"]), "classes names 2 classes, but y_train has 3"),
        ("x_train", np.zeros((30, 6, 6, 3), np.float32), "x_train is float32, and must be uint8"),
    ]:
        kept = (npy / f"{name}.npy").read_bytes()
        np.save(npy / f"{name}.npy", array)
        assert fingerprint(Source("npy", npy)) != before
        with pytest.raises(SlimnetError, match=message):
            load_dataset(Source("npy", npy))
        (npy / f"{name}.npy").write_bytes(kept)
    (npy / "x_train.npy").write_bytes(b"?")
    with pytest.raises(SlimnetError, match=r"x_train\.npy cannot be read"):
        load_dataset(Source("npy", npy))
    (npy / "y_test.npy").unlink()
    with pytest.raises(SlimnetError, match="lacks y_test; it holds classes, x_test"):
        load_dataset(Source("npy", npy))


def test_pictures_and_arrays_take_other_options(npy: Path) -> None:
    with pytest.raises(SlimnetError, match="channels is for pictures"):
        load_dataset(Source("npy", npy), channels=1)


def test_pictures_drawn_by_a_mode(write: Write) -> None:
    body = """
    def make():
        images = [(Image.new('L', (4, 4), 10 * n), n % 2) for n in range(4)]
        return images, images
    """
    assert load_dataset(write(body)).image_shape == (1, 4, 4)
