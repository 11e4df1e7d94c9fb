"""The folder of a stage: its states, its history, and what is said of damaged files."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sweeps.config import load_config, resolve
from sweeps.stages import DamagedStageError, Stage, StageFolder, Store, chain

ROWS = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]


@pytest.fixture
def stage() -> Stage:
    return chain(resolve(load_config("smoke"), {"sparse.lambda": 0.02, "prune.ratio": 0.5}), "float32")[0]


@pytest.fixture
def folder(tmp_path: Path, stage: Stage) -> StageFolder:
    folder = Store(tmp_path).folder(stage)
    folder.prepare(stage)
    return folder


def result(stage: Stage, metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": stage.kind, "key": stage.key, "metrics": metrics, "seconds": 1.0, "environment": {},
    }  # fmt: skip


def test_asking_makes_nothing(tmp_path: Path, stage: Stage) -> None:
    folder = Store(tmp_path).folder(stage)
    assert (folder.state(), folder.epochs_done(), folder.history()) == ("missing", 0, [])
    assert folder.read(stage).state == "missing"
    assert list(tmp_path.iterdir()) == []


def test_a_stage_passes_through_its_states(tmp_path: Path, stage: Stage, folder: StageFolder) -> None:
    assert folder.path == tmp_path / "stages" / "sparse" / stage.key
    assert json.loads((folder.path / "spec.json").read_text()) == stage.spec.dump()
    assert folder.state() == "missing"

    folder.append(ROWS[0])
    assert (folder.state(), folder.read(stage).epochs_done) == ("partial", 1)

    folder.fail("the loss became nan", "a traceback")
    record = folder.read(stage)
    assert (folder.state(), record.state) == ("failed", "failed")
    assert record.failure == {"reason": "the loss became nan", "detail": "a traceback"}

    folder.forget_failure()
    assert (folder.state(), folder.epochs_done()) == ("partial", 1)  # its epochs are not lost

    layers = {"bn1": {"counts": [1], "edges": [0.0, 1.0]}}
    metrics = {"params": 5, "macs": 7, "val_accuracy": 0.5, "test_accuracy": 0.25}
    folder.commit(result(stage, {**metrics, "gamma_layers": layers}))
    record = folder.read(stage)
    assert (record.name, record.kind, record.key, record.spec) == (
        "sparse",
        "sparse",
        stage.key,
        stage.spec.dump(),
    )
    assert (record.state, record.epochs_done) == ("done", 2)
    assert (record.metrics, record.gamma_layers, record.history) == (metrics, layers, ROWS[:1])


def test_a_result_outweighs_a_failure(stage: Stage, folder: StageFolder) -> None:
    folder.fail("lost", "")
    metrics = {"params": 5, "macs": 7, "val_accuracy": 0.5, "test_accuracy": 0.25}
    folder.commit(result(stage, metrics))
    assert folder.state() == "done"
    assert folder.read(stage).failure is None


def test_appending_a_row_leaves_those_before_it_where_they_are(folder: StageFolder) -> None:
    folder.append(ROWS[0])
    file = folder.path / "history.jsonl"
    before = file.stat().st_ino, file.read_bytes()
    folder.append(ROWS[1])
    assert file.stat().st_ino == before[0]
    assert file.read_bytes().startswith(before[1])
    assert folder.history() == ROWS


def test_a_row_that_was_broken_off_does_not_count(folder: StageFolder) -> None:
    folder.append(ROWS[0])
    with (folder.path / "history.jsonl").open("a") as file:
        file.write('{"epoch": 2, "lo')
    assert (folder.epochs_done(), folder.history()) == (1, ROWS[:1])
    folder.rewrite(ROWS)
    assert folder.history() == ROWS


def test_a_history_is_rewritten_only_where_it_differs(folder: StageFolder) -> None:
    file = folder.path / "history.jsonl"
    folder.rewrite([])
    assert not file.exists()
    folder.rewrite(ROWS)
    before = file.stat().st_ino
    folder.rewrite(ROWS)
    assert file.stat().st_ino == before
    folder.rewrite(ROWS[:1])
    assert folder.history() == ROWS[:1]


def test_forgetting_a_failure_drops_a_damaged_checkpoint(folder: StageFolder) -> None:
    folder.checkpoint.write_bytes(b"half a file")
    folder.fail("damaged", "")
    folder.forget_failure()
    assert not folder.checkpoint.exists()


def test_time_spent_is_kept_and_what_cannot_be_read_counts_nothing(folder: StageFolder) -> None:
    assert folder.seconds() == 0.0
    folder.note_epoch(1, 2.5)
    assert folder.seconds() == 2.5
    (folder.path / "timing.json").write_text("{")
    assert folder.seconds() == 0.0
    assert folder.times() == []


def test_when_each_epoch_ended_is_kept_while_its_epoch_is(folder: StageFolder) -> None:
    for epoch in (1, 2, 3):
        folder.note_epoch(epoch, float(epoch))
    first, second, third = folder.times()
    assert first < second < third
    folder.note_epoch(2, 2.5)  # computed again from an earlier checkpoint
    assert folder.times()[0] == first
    assert len(folder.times()) == 2
    assert folder.times()[1] > third
    (folder.path / "timing.json").write_text('{"seconds": 3.0}')  # by an earlier version
    folder.note_epoch(3, 4.0)
    assert len(folder.times()) == 3


@pytest.mark.parametrize("name", ["result.json", "failure.json", "history.jsonl"])
def test_a_damaged_file_is_named_with_what_happens(stage: Stage, folder: StageFolder, name: str) -> None:
    (folder.path / name).write_text('{"metrics": \n')
    with pytest.raises(DamagedStageError, match="the next `run` of the study sets it aside") as caught:
        _ = folder.read(stage).history
    assert str(folder.path / name) in str(caught.value)


def test_a_folder_is_mended_once_and_not_while_a_process_holds_it(stage: Stage, folder: StageFolder) -> None:
    assert folder.mend(stage)[1] == []
    folder.append(ROWS[0])
    (folder.path / "result.json").write_text("{}")
    with folder.hold(lambda: False), pytest.raises(DamagedStageError):
        folder.mend(stage)
    (said,) = folder.mend(stage)[1]
    assert "result.json was damaged (kind: field required); it is result.json.damaged now" in said
    assert folder.mend(stage)[1] == []
    assert folder.history() == ROWS[:1]  # intact, and left as it was
    (folder.path / "result.json").write_text("{}")
    assert "result.json.damaged-2 now" in folder.mend(stage)[1][0]


HOLD = """
import sys
from pathlib import Path
from sweeps.stages import StageFolder
with StageFolder(Path(sys.argv[1])).hold(lambda: False) as alone:
    print(alone, flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_holds_a_folder(folder: StageFolder) -> None:
    (folder.path / ".history.jsonl.x1y2z3").write_bytes(b"half")  # what a killed worker was writing
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        asked = threading.Semaphore(0)
        held: list[bool] = []

        def wait(give_up_after: int) -> None:
            looks = 0

            def stop() -> bool:
                nonlocal looks
                looks += 1
                asked.release()
                return looks > give_up_after

            with folder.hold(stop) as alone:
                held.append(alone)

        wait(give_up_after=2)
        assert held == [False]
        waiting = threading.Thread(target=wait, args=(10**9,))
        waiting.start()
        for _ in range(5):
            asked.acquire()  # it looks again and again, and does not get it
        assert held == [False]
        other.communicate()
    waiting.join()
    assert held == [False, True]
    assert not list(folder.path.glob(".*.x1y2z3"))
