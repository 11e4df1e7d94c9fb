"""A stage that is killed, damaged or out of room goes on and ends like one left alone, each epoch once."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from slimnet.checkpoint import read
from slimnet.errors import SlimnetError
from slimnet.training.recovery import previous
from sweeps.config import load_config, resolve
from sweeps.jobs import Job, Place, Watch
from sweeps.records import Row
from sweeps.stages import Stage, Store, chain
from sweeps.worker import compute

EPOCHS = 4
KILLS = 12
FILES = {".lock", "spec.json", "history.jsonl", "timing.json", "checkpoint.pt", "result.json"}

Live = Callable[..., dict[str, Any]]


def sparse_stage() -> Stage:
    settings = load_config("smoke", [f"sparse.epochs={EPOCHS}", "sparse.batch_size=1000", "model.width=4"])
    return chain(resolve(settings, {"sparse.lambda": 0.02, "prune.ratio": 0.5}), "float32")[0]


def run(runs: Path | str, watch: Watch = Watch()) -> Store:  # noqa: B008 - it is frozen
    """Compute the stage, or go on with it."""
    store, stage = Store(Path(runs)), sparse_stage()
    store.folder(stage).prepare(stage)
    compute(Job(stage, store), Place("cpu", 1), watch)
    return store


def compute_stage(runs: str) -> None:
    """What a worker that may be killed does."""
    run(runs)


def folder_in(runs: Path) -> Path:
    return Store(runs).folder(sparse_stage()).path


def stopped(runs: Path, epochs: int) -> Path:
    """A stage that was stopped after some epochs; returns its newest checkpoint."""
    done: list[Row] = []
    run(runs, Watch(epoch=done.append, stop=lambda: len(done) >= epochs))
    return folder_in(runs) / "checkpoint.pt"


def rows(folder: Path) -> list[int]:
    path = folder / "history.jsonl"
    return [json.loads(line)["epoch"] for line in path.read_text().splitlines()] if path.exists() else []


def assert_like(runs: Path, alone: Path) -> None:
    """The stage has ended as the undisturbed one has."""
    found, wanted = folder_in(runs), folder_in(alone)
    assert rows(found) == list(range(1, EPOCHS + 1))
    assert (found / "history.jsonl").read_bytes() == (wanted / "history.jsonl").read_bytes()
    results = [json.loads((folder / "result.json").read_text()) for folder in (found, wanted)]
    assert results[0]["metrics"] == results[1]["metrics"]
    states = [read(folder / "checkpoint.pt").state for folder in (found, wanted)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[1].items():
        assert states[0][name].numpy().tobytes() == value.numpy().tobytes(), name
    assert {path.name for path in found.iterdir()} == FILES


@pytest.fixture(scope="module")
def undisturbed(live: Live, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """The runs folder of a stage left alone, and how many lines of the program it took."""
    runs = tmp_path_factory.mktemp("alone")
    return runs, live(compute_stage, {"runs": str(runs)})["counts"]


def test_killed_at_twelve_moments_a_stage_ends_the_same(
    live: Live, tmp_path: Path, undisturbed: tuple[Path, dict[str, int]]
) -> None:
    alone, counts = undisturbed
    moments = random.Random(0)
    kills, begun, killed = 0, 0, False
    while kills < KILLS or killed:
        begun += not killed
        runs = tmp_path / str(begun)
        place = ("stage", "saving", "training")[kills % 3]
        limit = moments.randint(1, counts[place] // 2) if kills < KILLS else 0
        before = rows(folder_in(runs))
        killed = live(compute_stage, {"runs": str(runs)}, place=place, limit=limit)["killed"]
        kills += killed
        after = rows(folder_in(runs))
        assert after == list(range(1, len(after) + 1))
        assert len(after) >= len(before)
        if not killed:
            assert_like(runs, alone)
    assert kills == KILLS


def test_a_damaged_checkpoint_costs_an_epoch_and_is_told(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, int]]
) -> None:
    newest = stopped(tmp_path, 3)
    newest.write_bytes(newest.read_bytes()[:5000])
    warnings: list[str] = []
    epochs: list[int] = []
    note = lambda row: epochs.append(row["epoch"])  # noqa: E731

    run(tmp_path, Watch(epoch=note, warning=warnings.append))

    assert warnings == [
        f"{newest} is truncated: its end is missing; the training goes on from the checkpoint before"
    ]
    assert epochs == [3, 4]
    assert_like(tmp_path, undisturbed[0])


def test_two_damaged_checkpoints_start_the_stage_again(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, int]]
) -> None:
    newest = stopped(tmp_path, 2)
    for file in (newest, previous(newest)):
        file.write_bytes(b"")
    warnings: list[str] = []
    epochs: list[int] = []
    note = lambda row: epochs.append(row["epoch"])  # noqa: E731

    run(tmp_path, Watch(epoch=note, warning=warnings.append))

    assert len(warnings) == 1
    assert warnings[0].endswith("starts again from the beginning")
    assert epochs == [1, 2, 3, 4]
    assert_like(tmp_path, undisturbed[0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "slimnet-test", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip(
            "mounting a small file system needs root; test_resume.py limits the size of files instead"
        )
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def fill(path: Path) -> None:
    """Leave no room on the disk."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_stops_the_stage_and_leaves_what_was_there(
    small_disk: Path, undisturbed: tuple[Path, dict[str, int]]
) -> None:
    newest = stopped(small_disk, 2)
    kept = {path.name: path.read_bytes() for path in newest.parent.iterdir()}
    filler = small_disk / "filler"
    fill(filler)

    with pytest.raises(SlimnetError) as caught:
        run(small_disk)

    assert str(caught.value).startswith(f"cannot write {newest.parent}")
    assert "No space left on device; make room" in str(caught.value)
    assert {path.name: path.read_bytes() for path in newest.parent.iterdir()} == kept
    filler.unlink()
    run(small_disk)
    assert_like(small_disk, undisturbed[0])
