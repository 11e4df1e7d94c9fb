"""Which data sets there are: names, image sizes, where they are published; without numpy and torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from slimnet.errors import SlimnetError
from slimnet.files import content_hash

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
"""What an npz file must hold."""

Resize = Literal["crop", "stretch", "pad", "pool"]
"""How a picture of another size is brought to the size of the others; see `slimnet.data.pictures.resized`."""

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

NAMES = (*IMAGE_SIDES, "npz")
"""What `slimnet.data.load_dataset` knows: named data sets, and the user's own file."""


def default_data_dir() -> Path:
    """Where published data sets are kept: $SLIMNET_DATA, else `slimnet` in the user's cache folder."""
    if chosen := os.environ.get("SLIMNET_DATA"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slimnet"


def fingerprint(name: str, *, path: Path | None = None) -> str:
    """A short text that changes when the data change, without decoding or fetching them.

    Args:
        name: one of `NAMES`.
        path: the user's file, for "npz" and only for it.

    Returns:
        The sha256 of the npz file, or for a published set the md5 sums of upstream's archives joined by "+".

    Raises:
        SlimnetError: an unknown name, or an npz file that cannot be read.
    """
    check_name(name, path)
    if name == "fashion-mini":
        return f"sha256:{FASHION_MINI_SHA256}"
    if path is not None:
        return f"sha256:{content_hash(path)}"
    return "md5:" + "+".join(archive.md5 for archive in PUBLISHED[name].archives)


def check_name(name: str, path: Path | None) -> None:
    """Refuse a name that is not in `NAMES`, and a path where none belongs or one is missing.

    Raises:
        SlimnetError: with the names, or what the path should be.
    """
    if name not in NAMES:
        raise SlimnetError(f"There is no data set {name!r}; the names are {', '.join(NAMES)}.")
    if name == "npz" and path is None:
        raise SlimnetError(f"The data set 'npz' needs a path to a file that holds {', '.join(ARRAYS)}.")
    if name != "npz" and path is not None:
        raise SlimnetError(
            f"The data set {name!r} takes no path ({path}); name it 'npz' to read your own file."
        )
