"""Exported files: written aside, run on the whole test split, and in place only if they score as reported."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from slimnet.data import Images
from slimnet.errors import SlimnetError
from slimnet.evaluation import CPU_BATCH
from slimnet.export.artifact import FORMATS, Artifact, Format, Predictor, open_network
from slimnet.export.aside import require, workspace, written
from slimnet.wording import after_question, did_you_mean, plural

FEW, FRACTION = 2, 0.001
"""By how many images, or which fraction of the test split if that is more, a file may differ from the report.

Runtimes add in another order than torch, and a processor in another one than a GPU: where two classes score
alike, float32 rounding decides.
"""
STEM = "model"  # of the files in a folder
CARD = "README.md"


@dataclass(frozen=True)
class Score:
    """How many pictures of the test split a file gets right, and how many were reported."""

    correct: int
    reported: int
    images: int

    @property
    def accuracy(self) -> float:
        """The fraction that it gets right."""
        return self.correct / self.images

    @property
    def allowed(self) -> int:
        """By how many pictures it may differ."""
        return max(FEW, int(FRACTION * self.images))

    def check(self, path: Path) -> None:
        """Refuse a file that scores otherwise than reported.

        Raises:
            SlimnetError: with the numbers.
        """
        if abs(self.correct - self.reported) > self.allowed:
            raise SlimnetError(
                f"{path} would get {self.correct:,} of {plural(self.images, 'test image')} right, where "
                f"{self.reported:,} are reported and {self.allowed} more or fewer could be rounding; it was "
                "not written"
            )

    def __str__(self) -> str:
        share = f"{self.accuracy:.1%} of {plural(self.images, 'test image')}"
        if not (difference := self.correct - self.reported):
            return f"{share}, as reported"
        return f"{share}, {abs(difference)} {'more' if difference > 0 else 'fewer'} than reported"


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: where it is.
        format: what it is.
        bytes: its size.
        score: of the file on the test split; None if it was not checked.
    """

    path: Path
    format: Format
    bytes: int
    score: Score | None

    def record(self) -> dict[str, Any]:
        """The facts, for JSON."""
        return {
            "file": str(self.path),
            "format": self.format.name,
            "bytes": self.bytes,
            "test_accuracy": self.score and self.score.accuracy,
            "test_images": self.score and self.score.images,
            "difference": self.score and self.score.correct - self.score.reported,
        }


@dataclass(frozen=True)
class TestSplit:
    """What exported files are checked on.

    Attributes:
        images: the test split.
        reported: how many of them the network is reported to classify correctly.
    """

    __test__ = False  # it is no test class for pytest

    images: Images
    reported: int

    @classmethod
    def of(cls, images: Images, artifact: Artifact, accuracy: float | None) -> TestSplit:
        """The test split of a data set.

        Args:
            images: the test split, on the CPU.
            artifact: whose network is measured if nothing was reported.
            accuracy: what was reported of the network on these images; None if nothing was.
        """
        if accuracy is None:
            return cls(images, _correct(open_network(artifact.network), images))
        return cls(images, round(accuracy * len(images)))


def target_format(out: Path) -> Format | None:
    """The format that the name of an output asks for; None for a folder.

    Raises:
        SlimnetError: it has a suffix that no format has.
    """
    found = FORMATS.get(out.suffix[1:])
    if found is None and out.suffix[1:].isalpha() and not out.is_dir():
        known = ", ".join(one.suffix for one in FORMATS.values())
        raise SlimnetError(
            f"{out} ends in {out.suffix}; files end in {known}, and the name of a folder in none of them"
        )
    return None if out.is_dir() else found


def written_files(path: Path, kind: Format) -> list[Path]:
    """The files that exporting one writes: a description lies beside one of safetensors."""
    return [path, path.with_suffix(".json")] if kind.name == "safetensors" else [path]


def chosen_formats(names: Sequence[str]) -> tuple[list[Format], str]:
    """Formats by name, or by default all that are installed; and a note on what is left out.

    Raises:
        SlimnetError: an unknown name, or a package that a named format needs is missing.
    """
    if unknown := [name for name in names if name not in FORMATS]:
        known = after_question(did_you_mean(unknown[0], FORMATS), f"formats are {', '.join(FORMATS)}")
        raise SlimnetError(f"there is no format {unknown[0]}; {known}")
    for name in names:
        require(FORMATS[name].needs)
    if names:
        return [FORMATS[name] for name in dict.fromkeys(names)], ""
    found = [one for one in FORMATS.values() if all(map(find_spec, one.needs))]
    missing = [one.name for one in FORMATS.values() if one not in found]
    return found, f"without {missing[0]}: pip install onnx onnxscript onnxruntime" if missing else ""


def folder_names(kinds: Iterable[Format]) -> list[str]:
    """The names of the files in a folder."""
    files = [file.name for kind in kinds for file in written_files(Path(f"{STEM}{kind.suffix}"), kind)]
    return [*files, CARD]


def refuse_existing(folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder that holds one of the names.

    Raises:
        SlimnetError: with the first of them.
    """
    if there := [folder / name for name in names if (folder / name).exists()]:
        raise SlimnetError(f"{there[0]} is there already; choose another folder, or replace it with --force")


def export_file(artifact: Artifact, path: Path, kind: Format, test: TestSplit | None) -> Exported:
    """Write one file; a safetensors file gets a JSON file of its name beside it.

    Args:
        artifact: what is written.
        path: the file, which is replaced if it is there.
        kind: its format.
        test: what it is checked on; None leaves the check out.

    Raises:
        SlimnetError: a package is missing, the network cannot be exported, the file scores otherwise than
            reported, or cannot be written. There is no file then.
    """
    require(kind.needs)
    with written(path) as aside:
        kind.write(artifact, aside)
        score = None
        if test is not None:
            score = Score(_correct(kind.open(aside, artifact), test.images), test.reported, len(test.images))
            score.check(path)
        size = aside.stat().st_size
    for beside in written_files(path, kind)[1:]:
        with written(beside) as aside:
            text = json.dumps(artifact.description_of_tensors(), indent=2, ensure_ascii=False)
            aside.write_text(f"{text}\n", encoding="utf-8")
    return Exported(path, kind, size, score)


def export_folder(
    artifact: Artifact,
    folder: Path,
    kinds: Iterable[Format],
    test: TestSplit | None,
    card: Callable[[Artifact, Sequence[Exported]], str],
    *,
    force: bool = False,
) -> list[Exported]:
    """Write a folder with a file in every format and a model card; all of them, or none.

    Args:
        artifact: what is written.
        folder: made if needed; other files in it stay.
        kinds: the formats.
        test: as in `export_file`.
        card: makes the text of the card.
        force: replace files of the same names.

    Raises:
        SlimnetError: as `export_file`, or a file of the same name is there.
    """
    kinds = list(kinds)
    names = folder_names(kinds)
    if not force:
        refuse_existing(folder, names)
    try:
        with workspace(folder.resolve()) as aside:  # "." has no name
            found = [export_file(artifact, aside / f"{STEM}{kind.suffix}", kind, test) for kind in kinds]
            (aside / CARD).write_text(card(artifact, found), encoding="utf-8")
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                os.replace(aside / name, folder / name)
    except OSError as error:
        raise SlimnetError(f"cannot write {folder}: {error}; make room or choose another folder") from error
    return [replace(one, path=folder / one.path.name) for one in found]


def _correct(predictor: Predictor, images: Images) -> int:
    """How many images a file classifies correctly."""
    correct = 0
    with torch.inference_mode():
        for start in range(0, len(images), CPU_BATCH):
            part = images.part(start, start + CPU_BATCH)
            correct += int((predictor.scores(part.x).argmax(1) == part.y).sum())
    return correct
