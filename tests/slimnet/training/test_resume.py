"""A training that is killed, or whose checkpoint is damaged, ends bit for bit like one left alone."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimnet import SlimnetError, models
from slimnet.checkpoint import read
from slimnet.data import split
from slimnet.data.augmentation import Augmentation
from slimnet.data.sets import Dataset
from slimnet.precision import Precision
from slimnet.training.loop import Row, train
from slimnet.training.recipe import Recipe
from slimnet.training.recovery import previous
from slimnet.training.sparsity import LambdaSchedule, PenaltyName, Sparsity

EPOCHS = 4
KILLS = 6  # of each combination: a third each in the loop, while saving, and after a random time
COMBINATIONS: list[dict[str, Any]] = [  # of the first three fields, any two values meet
    {"optimizer": "sgd", "precision": "float32", "penalty": "l1"},
    {"optimizer": "sgd", "precision": "bfloat16", "penalty": "proximal"},
    {"optimizer": "sgd", "precision": "float32", "penalty": "polarization"},
    {"optimizer": "adamw", "precision": "bfloat16", "penalty": "l1"},
    {"optimizer": "adamw", "precision": "float32", "penalty": "proximal"},
    {"optimizer": "adamw", "precision": "bfloat16", "penalty": "polarization"},
    {"penalty": "proximal", "target": 0.5},
    {"penalty": "proximal", "lambda_schedule": "warmup-tail"},
    {"schedule": "rewind", "distill": 0.5, "precision": "bfloat16"},
]
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "torn": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[:3000] + bytes([content[3000] ^ 1]) + content[3001:],
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
}

Live = Callable[..., dict[str, Any]]


def go_on(
    folder: Path | str,
    *,
    precision: Precision = "float32",
    compiled: bool = False,
    penalty: PenaltyName = "l1",
    lambda_schedule: LambdaSchedule = "constant",
    target: float | None = None,
    on_epoch: Callable[[list[Row]], None] = lambda history: None,
    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None,
    stop: Callable[[], bool] = lambda: False,
    **recipe: Any,
) -> list[Row]:
    """Begin the training in `folder` or go on with it."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (80, 8, 8, 1), dtype=np.uint8), np.arange(80, dtype=np.int64) % 2
    splits = split(Dataset("noise", x[:64], y[:64], x[64:], y[64:], 2), validation=0.25, seed=0)
    torch.manual_seed(0)
    model, teacher = (models.resnet([1], 4, num_classes=2, in_channels=1) for _ in range(2))
    gammas = {name: norm.weight for name, norm in model.named_modules() if isinstance(norm, nn.BatchNorm2d)}
    return train(
        model,
        splits,
        Recipe(EPOCHS, 0.01, 12, augmentation=Augmentation(crop=1, flip=True), **recipe),
        seed=0,
        gammas=gammas,
        strength=0.0 if target else 0.01,
        sparsity=Sparsity(penalty, lambda_schedule, target),
        teacher=teacher,
        precision=precision,
        compiled=compiled,
        checkpoint=Path(folder) / "checkpoint.pt",
        on_epoch=on_epoch,
        on_step=on_step,
        stop=stop,
    )


def go_on_until(folder: str, last: Sequence[int], **arguments: Any) -> None:
    """Go on, and die at a step of an epoch."""

    def die(epoch: int, step: int, steps: int) -> None:
        if (epoch, step) == tuple(last):
            os.kill(os.getpid(), signal.SIGKILL)

    go_on(folder, on_step=die, **arguments)


def content(folder: Path) -> dict[str, Any]:
    """The last checkpoint: weights, BatchNorm statistics, optimiser state, history."""
    return asdict(read(folder / "checkpoint.pt"))


def assert_same(found: Any, wanted: Any, where: str = "checkpoint") -> None:
    """Equal bit for bit, through nested dicts and lists."""
    assert type(found) is type(wanted), where
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
        for key in wanted:
            assert_same(found[key], wanted[key], f"{where}[{key!r}]")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for index, item in enumerate(wanted):
            assert_same(found[index], item, f"{where}[{index}]")
    elif isinstance(wanted, Tensor):
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), where
        assert found.numpy().tobytes() == wanted.numpy().tobytes(), where
    else:
        assert found == wanted, where


def epochs_kept(folder: Path) -> list[int]:
    """The epochs in the newest of the two checkpoints, both of which must be whole."""
    newest = folder / "checkpoint.pt"
    histories = [
        [row["epoch"] for row in read(file).training["history"]]
        for file in (newest, previous(newest))
        if file.exists()
    ]
    return histories[0] if histories else []


# Killed


@pytest.mark.parametrize(
    "arguments", COMBINATIONS, ids=lambda arguments: "-".join(map(str, arguments.values()))
)
def test_killed_at_six_moments_a_training_ends_bit_for_bit_the_same(
    live: Live, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    moments = random.Random(str(arguments))
    alone = tmp_path / "alone"
    undisturbed = live(go_on, {"folder": str(alone), **arguments})

    kills, begun = 0, 0
    while kills < KILLS:
        begun += 1
        folder = tmp_path / str(begun)
        done: list[int] = []
        killed = True
        while killed:
            moment = _moment(moments, kills, undisturbed) if kills < KILLS else {}
            killed = live(go_on, {"folder": str(folder), **arguments}, **moment)["killed"]
            kills += killed
            before, done = done, epochs_kept(folder)
            assert done == list(range(1, len(done) + 1))
            assert len(done) >= len(before)
        assert done == list(range(1, EPOCHS + 1))
        assert_same(content(folder), content(alone))
    assert kills == KILLS


@pytest.mark.slow  # the first process compiles, for ten to thirty seconds
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler")
def test_a_compiled_training_is_killed_and_ends_bit_for_bit_the_same(live: Live, tmp_path: Path) -> None:
    live = partial(live, counted=False, loaded=["torch._inductor.compile_fx"])
    alone = tmp_path / "alone"
    arguments = {"compiled": True, "penalty": "proximal"}
    live(go_on, {"folder": str(alone), **arguments})
    undisturbed = live(go_on, {"folder": str(tmp_path / "again"), **arguments})  # compiled already
    assert_same(content(tmp_path / "again"), content(alone))
    eager = tmp_path / "eager"
    live(go_on, {"folder": str(eager), **arguments, "compiled": False})
    loss, compiled_loss = (
        read(path / "checkpoint.pt").training["history"][-1]["loss"] for path in (eager, alone)
    )
    assert loss == pytest.approx(compiled_loss, abs=1e-4)

    killed = {"folder": str(tmp_path / "killed"), **arguments}
    live(go_on, killed, seconds=0.3 * undisturbed["seconds"])  # while it compiles
    for last in ((2, 3), (4, 1)):
        if len(epochs_kept(tmp_path / "killed")) < last[0]:
            assert live(go_on_until, {**killed, "last": last})["killed"]
            assert epochs_kept(tmp_path / "killed") == list(range(1, last[0]))
    live(go_on, killed)
    assert_same(content(tmp_path / "killed"), content(alone))


def _moment(moments: random.Random, kills: int, undisturbed: dict[str, Any]) -> dict[str, Any]:
    """When the next process dies: within what takes an undisturbed one two epochs."""
    place = ("training", "saving", "time")[kills % 3]
    if place == "time":
        return {"seconds": moments.uniform(0, 2 / EPOCHS * undisturbed["seconds"])}
    return {"place": place, "limit": moments.randint(1, 2 * undisturbed["counts"][place] // EPOCHS)}


# Damaged


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed training."""
    folder = tmp_path_factory.mktemp("alone")
    go_on(folder)
    return folder


def stopped(folder: Path, epochs: int) -> Path:
    """A training that was stopped when it had so many epochs; returns its newest checkpoint."""
    seen = [0]
    go_on(folder, on_epoch=lambda history: seen.append(len(history)), stop=lambda: seen[-1] >= epochs)
    return folder / "checkpoint.pt"


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, alone: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    newest = stopped(tmp_path, 3)
    newest.write_bytes(DAMAGE[damage](newest.read_bytes()))
    steps: list[tuple[int, int]] = []

    go_on(tmp_path, on_step=lambda epoch, step, _: steps.append((epoch, step)))

    (warning,) = caplog.messages
    assert warning.startswith(f"{newest} ")
    assert warning.endswith("; the training goes on from the checkpoint before")
    assert steps[0] == (3, 1)
    assert_same(content(tmp_path), content(alone))


def test_two_damaged_checkpoints_start_the_training_again(
    tmp_path: Path, alone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest = stopped(tmp_path, 2)
    newest.write_bytes(DAMAGE["torn"](newest.read_bytes()))
    previous(newest).write_bytes(DAMAGE["flipped"](previous(newest).read_bytes()))

    go_on(tmp_path)

    (warning,) = caplog.messages
    assert f"{newest} is truncated" in warning
    assert f"and {previous(newest)} is damaged" in warning
    assert warning.endswith("; the training starts again from the beginning")
    assert_same(content(tmp_path), content(alone))


def test_killed_between_two_renames_it_goes_on_from_the_one_before(
    tmp_path: Path, alone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(tmp_path, 2).unlink()
    go_on(tmp_path)
    assert caplog.messages == []
    assert_same(content(tmp_path), content(alone))


def test_a_damaged_checkpoint_does_not_replace_the_one_before(tmp_path: Path) -> None:
    newest = stopped(tmp_path, 2)
    newest.write_bytes(b"")
    stopped(tmp_path, 2)
    assert [row["epoch"] for row in read(previous(newest)).training["history"]] == [1]


def test_a_foreign_file_is_not_removed(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "checkpoint.pt")
    with pytest.raises(SlimnetError, match="was not written by slimnet"):
        go_on(tmp_path)
    assert (tmp_path / "checkpoint.pt").exists()


# No room


def go_on_without_room(folder: str, room: int) -> None:
    """Train where no file may become larger than `room` bytes; its complaint goes to complaint.txt."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    try:
        go_on(folder)
    except SlimnetError as error:
        Path(folder, "complaint.txt").write_text(str(error))


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.99])
def test_a_file_that_cannot_be_written_ends_it_and_leaves_what_was_there(
    live: Live, tmp_path: Path, alone: Path, fraction: float
) -> None:
    newest = stopped(tmp_path, 2)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    room = max(1000, int(fraction * newest.stat().st_size))

    live(go_on_without_room, {"folder": str(tmp_path), "room": room})

    complaint = (tmp_path / "complaint.txt").read_text()
    (tmp_path / "complaint.txt").unlink()
    assert complaint.startswith(f"cannot write {newest}: ")
    assert os.strerror(27) in complaint
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    go_on(tmp_path)
    assert_same(content(tmp_path), content(alone))
