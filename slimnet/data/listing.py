"""A folder of pictures, one folder per class: which files there are, and which part each belongs to.

Without numpy and torch, as the driver of a sweep asks for its fingerprint.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from slimnet.errors import SlimnetError
from slimnet.files import check_name
from slimnet.wording import after_question, did_you_mean, plural

PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The parts, and the names of folders that hold them, in any case."""

SUFFIXES = (
    *(".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pcx"),
    *(".pgm", ".png", ".pnm", ".ppm", ".sgi", ".tga", ".tif", ".tiff", ".webp"),
)
"""What a picture's name ends in, in any case; other files are ignored."""

TABLES = (".csv", ".tsv", ".parquet")
"""What the name of a table of labels may end in."""

OTHER_TABLES = (".json", ".jsonl", ".xlsx")
"""What it may end in among the pictures; beside them, such files are too often something else."""

TEST_FRACTION = 0.2
"""Of the pictures of each class, which are the test part where no folder is."""

HELD_OUT = " Without a folder test or val, that part is held out of train."
"""What becomes of a part that should have pictures of its own."""


@dataclass(frozen=True)
class Picture:
    """A picture file: its path below the root, with slashes, and the number of its class."""

    path: str
    label: int


@dataclass(frozen=True)
class Listing:
    """The picture files below a folder.

    Attributes:
        root: the folder.
        classes: names of the folders with a class each, in the order of Unicode, as torchvision has them.
        train, test: the pictures of each part, by class and path.
        validation: where the folder holds such a part; None where it is held out of train.
        test_held_out: whether the test part was chosen by `held_out_for_test`, for want of a folder.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[Picture, ...]
    validation: tuple[Picture, ...] | None
    test: tuple[Picture, ...]
    test_held_out: bool

    @property
    def parts(self) -> dict[str, tuple[Picture, ...]]:
        """The parts that there are, by name."""
        every = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in every.items() if part is not None}


def list_pictures(root: Path) -> Listing:
    """Look through a folder that holds a folder per class, or such folders in train, val and test.

    Hidden files and folders, and files that are no pictures by their names, are passed over. Folders within a
    class belong to it.

    Raises:
        SlimnetError: no folder, one that may not be read, no picture, a single class, a class that a part
            lacks, or one that train lacks; or a link puts a folder into two classes or parts.
    """
    if not root.is_dir():
        raise SlimnetError(f"{root} is not a folder; it should hold a folder of pictures per class.")
    folders = _part_folders(root)
    found = {part: _by_class(folder, root) for part, folder in folders.items()}
    where = folders.get("train", root)
    by_class = found.pop("train", None) or _by_class(root, root)
    _check_classes(where, by_class)
    for part, pictures in found.items():
        _check_part(folders[part], pictures, where, by_class)
    _check_shared(root, {"train": by_class, **found})
    classes = tuple(by_class)
    held_out = "test" not in found
    if held_out:
        tested = {name: held_out_for_test(paths) for name, paths in by_class.items()}
        found["test"] = {name: [p for p in by_class[name] if p in tested[name]] for name in classes}
        by_class = {name: [p for p in by_class[name] if p not in tested[name]] for name in classes}
        for name, paths in by_class.items():
            if not paths:
                raise SlimnetError(f"{where / name} holds one picture; training and testing need one each.")
    return Listing(
        root,
        classes,
        _numbered(by_class),
        _numbered(found["validation"]) if "validation" in found else None,
        _numbered(found["test"]),
        held_out,
    )


def held_out_for_test(paths: list[str]) -> set[str]:
    """A fifth of the files of a class, at least one: those whose names have the lowest sha256.

    Names alone decide, not the pictures nor their order, so that a picture that is added or taken away moves
    no more than one other from part to part.
    """
    count = max(1, round(TEST_FRACTION * len(paths)))
    return set(sorted(paths, key=lambda path: hashlib.sha256(path.encode()).digest())[:count])


def _part_folders(root: Path) -> dict[str, Path]:
    """The folders of the parts, which hold folders themselves; none where those below `root` are classes."""
    below = {folder.name.lower(): folder for folder in _folders_in(root) if _folders_in(folder)}
    found = {part: below[name] for part, names in PARTS.items() for name in reversed(names) if name in below}
    if found and "train" not in found:
        there = ", ".join(folder.name for folder in found.values())
        raise SlimnetError(f"{root} holds {there}, but no folder train with a folder for each class.")
    if not found and len(below) > 1 and all(map(_is_like_a_part, below)):
        names = " and ".join(sorted(folder.name for folder in below.values()))
        raise SlimnetError(
            f"{root} holds {names}, which seem to be parts, not classes; call them train, val and test."
        )
    return found


def _is_like_a_part(name: str) -> bool:
    return name.lower().startswith(("train", "val", "test"))


def _folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, by name, but for those that are passed over."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and _is_shown(entry.name))
    except OSError as error:
        _refuse(error)
    return [folder / name for name in names]


def _refuse(error: OSError) -> NoReturn:
    raise SlimnetError(
        f"{error.filename} cannot be read: {error.strerror}; allow yourself to read it, or move it elsewhere"
    ) from error


def _by_class(folder: Path, root: Path) -> dict[str, list[str]]:
    """The paths below `root` of the pictures of each class, which are the folders in `folder`."""
    return {inner.name: pictures_below(inner, root) for inner in _folders_in(folder)}


def pictures_below(folder: Path, root: Path) -> list[str]:
    """The pictures in a folder and those within it, by their names: paths below `root`, sorted.

    What is hidden is passed over. Links are followed, to each folder once.

    Raises:
        SlimnetError: a folder may not be read, or a name is not UTF-8.
    """
    paths = [path for path in _files_below(folder, root) if _is_picture(path)]
    for path in paths:
        if not path.isascii():
            check_name(root / path)
    return sorted(paths)


def passed_over(listing: Listing) -> str:
    """What lies below the folder and is in no part, in words; empty if there is nothing."""
    taken = {picture.path for part in listing.parts.values() for picture in part}
    left = [path for path in _files_below(listing.root, listing.root) if path not in taken]
    kinds = Counter(_suffix(path) or "no suffix" for path in left if not _is_picture(path))
    loose = [listing.root / path for path in left if _is_picture(path)]
    if loose:  # unless classes link to them
        used = {_identity(listing.root / path) for path in taken if (listing.root / path).exists()}
        loose = [path for path in loose if not path.exists() or _identity(path) not in used]
    found = []
    if kinds:
        common = ", ".join(kind for kind, _ in kinds.most_common(3))
        found.append(f"{plural(kinds.total(), 'file')} not named like a picture ({common})")
    if loose:
        found.append(f"{plural(len(loose), 'picture')} in no class's folder")
    return " and ".join(found)


def _files_below(folder: Path, root: Path) -> Iterator[str]:
    """The files in a folder and those within it, but for hidden ones: paths below `root`."""
    prefix = len(root.parts)
    seen = {_identity(outer) for outer in folder.parents if outer.is_relative_to(root)}
    for where, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        if (identity := _identity(where)) in seen:  # links may lead back
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if _is_shown(name))
        inner = Path(where).parts[prefix:]
        yield from ("/".join((*inner, name)) for name in files if _is_shown(name))


def _identity(path: Path | str) -> tuple[int, int]:
    """What all links to a file or a folder share."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name not in ("__MACOSX", "lost+found")


def _is_picture(path: str) -> bool:
    return _suffix(path) in SUFFIXES


def _check_classes(folder: Path, by_class: dict[str, list[str]]) -> None:
    if not any(by_class.values()):
        raise SlimnetError(
            f"{folder} holds no folder of pictures; it needs one per class.{_seen(folder)}{_table(folder)}"
        )
    if len(by_class) == 1:
        inner = folder / min(by_class)
        deeper = f" If its folders are the classes, or hold them, name {inner}." if _folders_in(inner) else ""
        raise SlimnetError(
            f"{folder} holds a single class, {inner.name}; telling classes apart takes two."
            f"{deeper or _table(folder)}"
        )
    if empty := [name for name, paths in by_class.items() if not paths]:
        raise SlimnetError(
            f"{folder / empty[0]} holds no picture.{_seen(folder / empty[0])} Put some there, or remove it."
        )


def _check_part(
    folder: Path, pictures: dict[str, list[str]], train: Path, by_class: dict[str, list[str]]
) -> None:
    if unknown := [name for name in pictures if name not in by_class]:
        todo = f"rename it, put pictures of it into {train.name} too, or remove it."
        raise SlimnetError(
            f"{folder / unknown[0]} is of a class that {train} does not have; "
            f"{after_question(did_you_mean(unknown[0], by_class), todo)}"
        )
    if absent := [name for name in by_class if not pictures.get(name)]:
        raise SlimnetError(
            f"{folder} holds no picture of {absent[0]}, a class of {train}; put some there, or remove "
            f"{folder.name} to have a part of {train.name} held out."
        )


def _check_shared(root: Path, parts: dict[str, dict[str, list[str]]]) -> None:
    """Refuse a folder that links put into two classes, or into two parts."""
    seen: dict[tuple[int, int], tuple[str, str, Path]] = {}
    for part, by_class in parts.items():
        for name, paths in by_class.items():
            for folder in sorted({os.path.dirname(path) for path in paths}):
                before, other, first = seen.setdefault(_identity(root / folder), (part, name, root / folder))
                twice = f"of two classes, {other} and {name}" if other != name else ""
                if not twice and before != part:
                    twice = f"in two parts, {before} and {part}"
                if twice:
                    raise SlimnetError(
                        f"{first} and {root / folder} are one folder, so its pictures are {twice}; keep the "
                        f"folder, or the link to it, in one of them.{HELD_OUT if other == name else ''}"
                    )


def _table(folder: Path) -> str:
    """What to do with labels in a table, if there seems to be one in a folder or beside it."""
    ends = {folder.parent: TABLES, folder: (*TABLES, *OTHER_TABLES)}
    found = [path for where in ends for path in where.glob("*") if _suffix(path.name) in ends[where]]
    if not (tables := sorted(path.name for path in found if path.is_file())):
        return ""
    return (
        f" If {tables[0]} says which picture is of which class, let a function read it (data.factory, or "
        "--data MODULE:FUNCTION; docs/data.md has one)."
    )


def _seen(folder: Path) -> str:
    """What lies in a folder instead of pictures, by the ends of the names."""
    kinds = Counter(_suffix(path) or "no suffix" for path in _files_below(folder, folder))
    if not kinds:
        return ""
    if loose := sum(count for kind, count in kinds.items() if kind in SUFFIXES):
        are = "picture that lies in it is" if loose == 1 else "pictures that lie in it are"
        return f" The {loose:,} {are} in no such folder."
    common = ", ".join(kind for kind, _ in kinds.most_common(3))
    return f" The files in it ({common}) are no pictures by their names."


def _numbered(by_class: dict[str, list[str]]) -> tuple[Picture, ...]:
    numbers = {name: label for label, name in enumerate(sorted(by_class))}
    return tuple(Picture(path, numbers[name]) for name in sorted(by_class) for path in by_class[name])
