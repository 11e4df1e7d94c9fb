"""A folder of pictures as a request to the cache of decoded ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from slimnet.data import catalogue
from slimnet.data.cache import Opened, Pictures, Request
from slimnet.data.catalogue import Channels, Resize, Source
from slimnet.data.hashes import OnProgress
from slimnet.data.listing import TEST_FRACTION, Listing, Picture, list_pictures, passed_over
from slimnet.data.pictures import Pixels, Size, read_picture
from slimnet.errors import SlimnetError
from slimnet.wording import plural

LIKELY_SIDES = (32, 64, 96, 128, 160, 192, 224, 256)  # that are proposed where pictures differ in size


def folder_request(
    root: Path,
    fingerprint: str,
    recorded: bool,
    image_size: int | None,
    channels: Channels | None,
    resize: Resize,
    on_progress: OnProgress,
) -> Request:
    """What is to be decoded of a folder; the folder is looked at only then.

    Args:
        root: the folder.
        fingerprint: of it.
        recorded: whether the fingerprint is an earlier one, with which the folder has to agree.
        image_size, channels, resize, on_progress: as in `slimnet.data.load_dataset`.

    Raises (when opened):
        SlimnetError: the pictures differ in size and none was given; or as `list_pictures`.
    """

    def opened() -> Opened:
        if recorded and catalogue.fingerprint(Source("folder", root), on_progress) != fingerprint:
            raise SlimnetError(
                f"the pictures in {root} have changed since the study began; give it another name"
            )
        listing = list_pictures(root)
        size = (image_size, image_size) if image_size else _common_size(listing, on_progress)
        parts = {
            name: Pictures(len(pictures), _reader(root, pictures, size, channels or 3, resize))
            for name, pictures in listing.parts.items()
        }
        return Opened(
            (*size, channels or 3), listing.classes, parts, tuple(_notes(listing, size, image_size))
        )

    content = {"fingerprint": fingerprint, "size": image_size, "channels": channels or 3, "resize": resize}
    return Request(root.resolve().name, content, opened)


def _notes(listing: Listing, size: Size, given: int | None) -> Iterator[str]:
    if given is None:
        yield f"all pictures are {_say(size)}, and stay so"
    if listing.test_held_out:
        yield (
            f"there is no folder test: {TEST_FRACTION:.0%} of each class, chosen by the names of files, are "
            f"the test part ({plural(len(listing.test), 'picture')})"
        )
    if others := passed_over(listing):
        yield f"passed over: {others}"


def _reader(
    root: Path, pictures: tuple[Picture, ...], size: Size, channels: int, resize: Resize
) -> Callable[[int], tuple[Pixels, int]]:
    def read(number: int) -> tuple[Pixels, int]:
        picture = pictures[number]
        return read_picture(root / picture.path, size, channels, resize), picture.label

    return read


def _common_size(listing: Listing, on_progress: OnProgress) -> Size:
    """The size that all pictures have; those that cannot be read are passed over here."""
    paths = [listing.root / picture.path for part in listing.parts.values() for picture in part]
    sizes: list[Size] = []
    with ThreadPoolExecutor() as pool:
        for done, size in enumerate(pool.map(_size, paths), 1):
            sizes += [size] if size else []
            on_progress("measuring pictures", done, len(paths))
    if not sizes:
        read_picture(paths[0], None)  # raises, and says why
    if len(set(sizes)) > 1:
        shorter = sorted(min(size) for size in sizes)
        fitting = [side for side in LIKELY_SIDES if side <= shorter[len(shorter) // 2]] or LIKELY_SIDES[:1]
        smallest, largest = min(sizes, key=_area), max(sizes, key=_area)
        raise SlimnetError(
            f"the pictures in {listing.root} are of {len(set(sizes))} sizes, from {_say(smallest)} to "
            f"{_say(largest)}; say to which side they are resized: data.image_size or --image-size, such as "
            f"{fitting[-1]}."
        )
    return sizes[0]


def _size(path: Path) -> Size | None:
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception:  # as `read_picture`, which will name it
        return None


def _area(size: Size) -> int:
    return size[0] * size[1]


def _say(size: Size) -> str:
    return f"{size[1]}x{size[0]}"
