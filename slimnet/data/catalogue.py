"""Which data sets there are: names, image sizes, where they are published; without numpy and torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from slimnet.data.hashes import OnProgress, combined_hash, silent
from slimnet.errors import SlimnetError
from slimnet.files import content_hash, user_path
from slimnet.wording import after_question, did_you_mean

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
"""What an npz file must hold, and a folder of npy files."""

ALL_ARRAYS = (*ARRAYS, "x_val", "y_val", "classes")
"""What they may hold."""

Resize = Literal["crop", "stretch", "pad", "pool"]
"""How a picture of another size is brought to the size of the others; see `slimnet.data.pictures.resized`."""

Channels = Literal[1, 3]
"""Of pictures: greys or RGB."""

FASHION_MINI_SHA256 = "1c4d729a3c0a8627010c2b374d57d63efcb153b60ebd61f5772d455f8e7ffceb"

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"

CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
    lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
    pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal
    shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
    telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


@dataclass(frozen=True)
class Archive:
    """A file as upstream publishes it, and the data files in it.

    Attributes:
        url: where upstream keeps it.
        md5: of the archive.
        path: below the data folder, where torchvision keeps the archive.
        folder: below the data folder, where torchvision keeps what is unpacked.
        members: name of a data file -> its md5.
    """

    url: str
    md5: str
    path: PurePosixPath
    folder: PurePosixPath
    members: dict[str, str]


@dataclass(frozen=True)
class Published:
    """A data set as upstream publishes it: its archives, classes, and the side of its square images."""

    archives: tuple[Archive, ...]
    classes: tuple[str, ...]
    image_side: int


def _fashion_mnist_archive(name: str, md5: str, content_md5: str) -> Archive:
    raw = PurePosixPath("FashionMNIST/raw")
    url = f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{name}.gz"
    return Archive(url, md5, path=raw / f"{name}.gz", folder=raw, members={name: content_md5})


def _cifar_archive(name: str, md5: str, members: dict[str, str], *, folder: str) -> Archive:
    url = f"https://www.cs.toronto.edu/~kriz/{name}"
    return Archive(url, md5, path=PurePosixPath(name), folder=PurePosixPath(folder), members=members)


PUBLISHED = {
    "fashion-mnist": Published(
        archives=(
            _fashion_mnist_archive(
                "train-images-idx3-ubyte",
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            ),
            _fashion_mnist_archive(
                "train-labels-idx1-ubyte",
                "25c81989df183df01b3e8a0aad5dffbe",
                "9018921c3c673c538a1fc5bad174d6f9",
            ),
            _fashion_mnist_archive(
                "t10k-images-idx3-ubyte",
                "bef4ecab320f06d8554ea6380940ec79",
                "8181f5470baa50b63fa0f6fddb340f0a",
            ),
            _fashion_mnist_archive(
                "t10k-labels-idx1-ubyte",
                "bb300cfdad3c16e7a12a480ee83cd310",
                "15d484375f8d13e6eb1aabb0c3f46965",
            ),
        ),
        classes=FASHION_CLASSES,
        image_side=28,
    ),
    "cifar10": Published(
        archives=(
            _cifar_archive(
                "cifar-10-python.tar.gz",
                "c58f30108f718f92721af3b95e74349a",
                {
                    "data_batch_1": "c99cafc152244af753f735de768cd75f",
                    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                    "data_batch_4": "634d18415352ddfa80567beed471001a",
                    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                    "test_batch": "40351d587109b95175f43aff81a1287e",
                },
                folder="cifar-10-batches-py",
            ),
        ),
        classes=tuple(CIFAR10_CLASSES.split()),
        image_side=32,
    ),
    "cifar100": Published(
        archives=(
            _cifar_archive(
                "cifar-100-python.tar.gz",
                "eb9058c3a382ffc7106e4002c42a8d85",
                {
                    "train": "16019d7e3df5f24257cddd939b257f8d",
                    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
                },
                folder="cifar-100-python",
            ),
        ),
        classes=tuple(CIFAR100_CLASSES.split()),
        image_side=32,
    ),
}

IMAGE_SIDES = {"fashion-mini": 28, **{name: entry.image_side for name, entry in PUBLISHED.items()}}
"""The side in pixels of the images of each data set that slimnet knows by name."""

TorchvisionName = Literal[
    "torchvision/Country211",
    "torchvision/DTD",
    "torchvision/FER2013",
    "torchvision/FGVCAircraft",
    "torchvision/FashionMNIST",
    "torchvision/Flowers102",
    "torchvision/Food101",
    "torchvision/GTSRB",
    "torchvision/ImageNet",
    "torchvision/Imagenette",
    "torchvision/KMNIST",
    "torchvision/MNIST",
    "torchvision/OxfordIIITPet",
    "torchvision/PCAM",
    "torchvision/QMNIST",
    "torchvision/RenderedSST2",
    "torchvision/STL10",
    "torchvision/SVHN",
    "torchvision/StanfordCars",
    "torchvision/USPS",
]
"""The classification sets of `torchvision.datasets` that have a train and a test part.

Without those that it unpickles, which slimnet reads by itself.
"""

_UNPICKLED = {"torchvision/cifar10": "cifar10", "torchvision/cifar100": "cifar100"}  # in any case


def _by_split(train: str, test: str, validation: str | None = None) -> dict[str, dict[str, Any]]:
    parts = {"train": train, "validation": validation, "test": test}
    return {part: {"split": split} for part, split in parts.items() if split is not None}


_BY_TRAIN: dict[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
_BY_SPLIT = _by_split("train", "test")
_THREE = _by_split("train", "test", "val")

_SPECIAL = {
    "Country211": _by_split("train", "test", "valid"),
    "ImageNet": _by_split("train", "val"),
    "Imagenette": _by_split("train", "val"),
    "OxfordIIITPet": _by_split("trainval", "test"),
    **dict.fromkeys(("FashionMNIST", "KMNIST", "MNIST", "QMNIST", "USPS"), _BY_TRAIN),
    **dict.fromkeys(("DTD", "FGVCAircraft", "Flowers102", "PCAM", "RenderedSST2"), _THREE),
}

TORCHVISION: dict[str, dict[str, dict[str, Any]]] = {
    name: _SPECIAL.get(name.partition("/")[2], _BY_SPLIT) for name in get_args(TorchvisionName)
}
"""How the class of each set is told which part to open; where test labels are secret, val is test."""

DataName = Literal[
    "fashion-mini",
    "fashion-mnist",
    "cifar10",
    "cifar100",
    "folder",
    "npz",
    "npy",
    "factory",
    TorchvisionName,
]
"""What `load_dataset` knows: data sets with a name, and the user's own."""

NAMES: tuple[str, ...] = get_args(DataName)

PATHS = {
    "folder": "a folder with a folder of pictures per class",
    "npz": f"a file with the arrays {', '.join(ARRAYS)}",
    "npy": f"a folder with {', '.join(f'{name}.npy' for name in ARRAYS)}",
}
"""The names that take a path, and what it names."""


@dataclass(frozen=True)
class Source:
    """Which data, and where they are.

    Attributes:
        name: one of `NAMES`.
        path: the user's own file or folder, for the names in `PATHS`; for "factory" the folder where its
            module is looked for first, if any.
        factory: "package.module:function", for "factory": it makes the data.
        args: of the factory, as keyword arguments.

    Raises:
        SlimnetError: an unknown name, or a field that does not go with it.
    """

    name: str
    path: Path | None = None
    factory: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = self.name
        if own := _UNPICKLED.get(name.lower()):
            raise SlimnetError(f"torchvision unpickles {name}, which may run code; take slimnet's own {own}.")
        if name not in NAMES:
            names = f"the names are {', '.join(NAMES)}."
            raise SlimnetError(
                f"There is no data set {name!r}; {after_question(did_you_mean(name, NAMES), names)}"
            )
        if name in PATHS and self.path is None:
            raise SlimnetError(f"The data set {name!r} needs a path: {PATHS[name]}.")
        if name not in (*PATHS, "factory") and self.path is not None:
            raise SlimnetError(f"The data set {name!r} takes no path ({self.path}); {', '.join(PATHS)} do.")
        if (name == "factory") != (self.factory is not None):
            raise SlimnetError("The data set 'factory' and a factory, package.module:function, go together.")

    def __str__(self) -> str:
        """What a message calls the data."""
        return str(self.factory or self.path or self.name)


def default_data_dir() -> Path:
    """Where data sets and decoded pictures are kept: $SLIMNET_DATA, else `slimnet` in the user's cache."""
    if chosen := os.environ.get("SLIMNET_DATA"):
        return user_path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slimnet"


def fingerprint(source: Source | str, on_progress: OnProgress = silent) -> str:
    """A short text that changes when the data change, without decoding or fetching them.

    Of a folder, names and contents count; files that have not changed since they were last read are not read
    again (`slimnet.data.hashes`). Of a factory, its source and arguments count, not what it reads.

    Args:
        source: the data; or the name of a set that is published.
        on_progress: told how far the reading of files is.

    Raises:
        SlimnetError: a file cannot be read, a folder holds no classes, a factory is not found.
    """
    if isinstance(source, str):
        source = Source(source)
    name, path = source.name, source.path
    if name == "fashion-mini":
        return f"sha256:{FASHION_MINI_SHA256}"
    if name in PUBLISHED:
        return "md5:" + "+".join(archive.md5 for archive in PUBLISHED[name].archives)
    if name.startswith("torchvision/"):
        return name
    if source.factory is not None:
        from slimnet.models.source import source_hash

        args = json.dumps(source.args, sort_keys=True, default=repr)
        return f"{source_hash(source.factory, source.path)}:{source.factory}:{args}"
    assert path is not None, "other names have paths"
    if name == "npz":
        return f"sha256:{content_hash(path)}"
    if name == "npy":
        paths = [f"{array}.npy" for array in ALL_ARRAYS if (path / f"{array}.npy").is_file()]
    else:
        from slimnet.data.listing import list_pictures

        paths = [f.path for part in list_pictures(path).parts.values() for f in part]
    return f"sha256:{combined_hash(path, paths, default_data_dir() / 'hashes', on_progress)}"
