"""Online runs and uploads: the real SDK against a server on the loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import wandb
from fake_wandb import FakeWandb
from projected import OFFLINE, ONLINE, PATIENCE, STEPS, Wait, steps, track, wait_for
from tracked import contender, failed, run_id, study, trial

from slimnet.errors import SlimnetError
from sweeps.tracking import SyncResult, Tracker, read_offline_run, sdk, sync

PYTHONPATH = os.pathsep.join(str(Path(__file__).parents[level]) for level in (3, 1))


def test_rows_arrive_while_the_trial_runs(study_dir: Path, server: FakeWandb) -> None:
    tracker = Tracker(study_dir, ONLINE)
    tracker.update(study(trial(0, 2, False, 0)))
    wait_for(lambda: steps(server, 0) == [0, 1])
    tracker.update(study(trial(0)))
    assert tracker.close() == []

    run = server.runs[run_id(0)]
    assert run.steps() == STEPS
    assert run.history[0]["sparse/gamma"]["_type"] == "histogram"
    assert run.attributes["groupName"] == "smoke"
    assert run.attributes["config"]["sparse"]["lambda"] == 0.01
    assert run.summary["state"] == "complete"
    assert run.exit_code == 0
    assert server.runs[run_id("study")].summary["trials"]["nrows"] == 1


def test_the_run_of_the_study_shows_how_it_stands_while_it_runs(study_dir: Path, server: FakeWandb) -> None:
    tracker = Tracker(study_dir, ONLINE)
    tracker.update(study(trial(0)))
    wait_for(lambda: steps(server, "study") == [0])
    tracker.update(study(trial(0), trial(1)))
    wait_for(lambda: steps(server, "study") == [0, 1])
    assert tracker.close() == []


def test_an_interrupted_second_pass_goes_on_at_the_next_row(study_dir: Path, server: FakeWandb) -> None:
    track(study_dir, study(trial(0, second_pass=(2, False, 0))))
    assert steps(server, 0) == list(range(8))

    track(study_dir, study(trial(0, second_pass=(True, True, True))))

    assert steps(server, 0) == list(range(12))
    assert server.runs[run_id(0)].history[8]["sparse-2/epoch"] == 3


def test_an_interrupted_sweep_goes_on_at_the_next_row(study_dir: Path, server: FakeWandb) -> None:
    track(study_dir, study(trial(0, 2, False, 0)))
    assert steps(server, 0) == [0, 1]
    assert server.runs[run_id(0)].preempting

    track(study_dir, study(trial(0, True, True, 1)))
    track(study_dir, study(trial(0), trial(1)))

    assert steps(server, 0) == STEPS
    assert steps(server, 1) == STEPS
    assert steps(server, "study") == [0, 1]
    assert server.runs[run_id(0)].exit_code == 0


def test_controls_and_repeats_go_on_at_the_next_row(study_dir: Path, server: FakeWandb) -> None:
    done = trial(0)
    track(study_dir, study(done, goal=1))
    track(
        study_dir,
        study(done, goal=1, contenders=[contender("uniform", 0, 0, 2), contender("trial", 0, 1, False)]),
    )
    assert steps(server, "uniform-0-0") == [0, 1]
    assert server.runs[run_id("uniform-0-0")].preempting
    assert run_id("trial-0-1") not in server.runs
    assert steps(server, "study") == [0]

    ended = study(done, goal=1, contenders=[contender("uniform", 0, 0), contender("trial", 0, 1)])
    assert track(study_dir, ended) == []
    opened = {name: run.opened for name, run in server.runs.items()}
    assert track(study_dir, ended) == []

    for name in ("uniform-0-0", "trial-0-1"):
        assert steps(server, name) == [0, 1, 2]
        assert server.runs[run_id(name)].exit_code == 0
    assert steps(server, "study") == [0]
    assert server.runs[run_id("study")].summary["controls"]["nrows"] == 1
    assert {name: run.opened for name, run in server.runs.items()} == opened


def test_the_study_shows_no_controls_that_it_has_no_more(study_dir: Path, server: FakeWandb) -> None:
    beside = [contender("uniform", 0, 0)]
    track(study_dir, study(trial(0), goal=1, contenders=beside))
    assert server.runs[run_id("study")].summary["controls"]["nrows"] == 1

    track(study_dir, study(trial(0), goal=1))
    assert server.runs[run_id("study")].summary["controls"]["nrows"] == 0

    track(study_dir, study(trial(0), goal=1, contenders=beside))
    assert server.runs[run_id("study")].summary["controls"]["nrows"] == 1
    assert steps(server, "study") == [0]
    assert steps(server, "uniform-0-0") == [0, 1, 2]


def test_rows_of_two_trainings_never_stand_in_one_run(study_dir: Path, server: FakeWandb) -> None:
    """The dense network of a later version is trained for longer, under another key."""
    short = study(trial(0), goal=1)
    track(study_dir, short)
    long = replace(short, dense=replace(short.dense, key="longer"))

    track(study_dir, long)

    runs = [run for name, run in server.runs.items() if name.startswith("smoke-dense-")]
    assert [run.steps() for run in runs] == [[0, 1, 2, 3]] * 2
    assert steps(server, 0) == STEPS


def test_the_stop_button_of_a_trial_is_heard(
    study_dir: Path, server: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wandb.sdk.lib import run_stopping

    defaults = run_stopping.RunStopChecker.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "poll_interval", 0.1)
    tracker = Tracker(study_dir, ONLINE)
    tracker.update(study(trial(0), trial(1, 1, False, 0)))
    wait_for(lambda: steps(server, 1) == [0])
    server.runs[run_id(1)].stopped = True
    tracker.update(study(trial(0), trial(1, 2, False, 0)))  # the server tells it in answer to a row
    heard: list[int] = []

    def hear() -> bool:
        heard.extend(tracker.stopped())
        return bool(heard)

    wait_for(hear)
    assert heard == [1]
    assert tracker.close() == []


KILLED = """
import sys
from pathlib import Path

from tracked import study, trial
from sweeps.tracking import Mode, Tracker

tracker = Tracker(Path(sys.argv[1]), Mode("online", ""))
tracker.update(study(trial(0, True, True, 1)))
sys.stdin.read()  # until it is killed
"""


def test_a_killed_sweep_goes_on_at_the_next_row(study_dir: Path, server: FakeWandb) -> None:
    command = [sys.executable, "-c", KILLED, str(study_dir)]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:
        wait_for(lambda: len(steps(server, 0)) > 1)
        process.kill()

    track(study_dir, study(trial(0)))

    assert steps(server, 0) == STEPS


def test_what_is_complete_is_not_opened_again(study_dir: Path, server: FakeWandb) -> None:
    record = study(trial(0), failed(trial(1, 1, False, 0), "NaN loss"), goal=2)
    track(study_dir, record)
    opened = {name: run.opened for name, run in server.runs.items()}

    track(study_dir, record)

    assert {name: run.opened for name, run in server.runs.items()} == opened
    assert server.runs[run_id(1)].exit_code == 1
    assert server.runs[run_id(1)].summary["reason"] == "NaN loss"


def test_the_ledger_can_be_lost(study_dir: Path, server: FakeWandb) -> None:
    track(study_dir, study(trial(0)))
    (study_dir / "wandb" / "projection.jsonl").unlink()

    track(study_dir, study(trial(0)))

    assert steps(server, 0) == STEPS


def test_no_server_means_offline(study_dir: Path, server: FakeWandb, wait: Wait) -> None:
    server.stop()
    wait(2)

    warnings = track(study_dir, study(trial(0), trial(1)))

    assert len(warnings) == 1
    assert "continuing offline" in warnings[0]
    written = {read_offline_run(folder).id for folder in (study_dir / "wandb").glob("offline-run-*")}
    assert written == {run_id(name) for name in (0, 1, "dense", "study")}


def test_a_server_that_dies_loses_nothing(
    study_dir: Path, server: FakeWandb, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "FINISH_TIMEOUT", 5)  # a run ends by what it was opened with
    tracker = Tracker(study_dir, ONLINE)
    tracker.update(study(trial(0, 2, False, 0)))
    wait_for(lambda: steps(server, 0) == [0, 1])
    server.stop()
    wait(5)
    record = study(trial(0), trial(1))
    tracker.update(record)
    warnings = tracker.close(timeout=PATIENCE)

    assert ["continuing offline" in line for line in warnings] == [True, False]
    assert "on the server in part" in warnings[1]

    server.start()
    wait(PATIENCE)
    assert all(result.ok for result in sync(study_dir, record))
    assert steps(server, 0) == STEPS
    assert steps(server, 1) == STEPS


def test_a_server_that_refuses_rows_is_noticed(study_dir: Path, server: FakeWandb, wait: Wait) -> None:
    server.refuse_history = True
    wait(2)
    record = study(trial(0))
    warnings = track(study_dir, record)

    assert any("on the server in part" in line for line in warnings)
    server.refuse_history = False
    wait(PATIENCE)
    assert all(result.ok for result in sync(study_dir, record))
    assert steps(server, 0) == STEPS


def test_sync_uploads_what_was_tracked_offline(study_dir: Path, server: FakeWandb) -> None:
    record = study(trial(0), failed(trial(1, 2, False, 0), "NaN loss"), goal=2)
    track(study_dir, record, mode=OFFLINE)
    assert server.runs == {}

    results = sync(study_dir, record)

    assert results == [SyncResult(run_id(name), ok=True) for name in ("dense", 0, 1, "study")]
    assert steps(server, 0) == STEPS
    assert steps(server, 1) == [0, 1]
    assert server.runs[run_id(0)].attributes["config"]["searched"]["prune.ratio"] == 0.7
    assert server.runs[run_id(1)].exit_code == 1
    assert sync(study_dir, record) == []


def test_a_study_that_was_uploaded_goes_on(study_dir: Path, server: FakeWandb) -> None:
    begun = study(failed(trial(0, 2, False, 0), "killed"), goal=1)
    track(study_dir, begun, mode=OFFLINE)
    sync(study_dir, begun)

    record = study(trial(0), goal=1)
    warnings = track(study_dir, record, mode=OFFLINE)
    assert "on the server in part" in warnings[0]
    assert all(result.ok for result in sync(study_dir, record))

    assert steps(server, 0) == STEPS
    assert server.runs[run_id(0)].exit_code == 0
    assert server.runs[run_id(0)].summary.get("reason") is None


def test_sync_by_hand_counts(study_dir: Path, server: FakeWandb) -> None:
    record = study(trial(0))
    track(study_dir, record, mode=OFFLINE)
    folder = next(study_dir.glob(f"wandb/offline-run-*{run_id(0)}"))
    command = [sys.executable, "-m", "wandb", "sync", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=study_dir)

    track(study_dir, record)

    assert run_id(0) not in [result.run_id for result in sync(study_dir, record)]
    assert steps(server, 0) == STEPS


def test_a_key_found_later_brings_everything_to_the_server(study_dir: Path, server: FakeWandb) -> None:
    record = study(trial(0))
    track(study_dir, record, mode=OFFLINE)

    assert track(study_dir, record) == []

    assert steps(server, 0) == STEPS
    assert sync(study_dir, record) == []


def test_sync_says_what_the_server_did_not_take(study_dir: Path, server: FakeWandb, wait: Wait) -> None:
    record = study(trial(0), goal=1)
    track(study_dir, record, mode=OFFLINE)
    server.stop()
    wait(2)

    results = sync(study_dir, record)

    assert [result.ok for result in results] == [False, False, False]
    assert "did not answer within 2 seconds" in str(results[0].reason)


def test_sync_says_what_the_server_refused(study_dir: Path, server: FakeWandb, wait: Wait) -> None:
    record = study(trial(0), goal=1)
    track(study_dir, record, mode=OFFLINE)
    server.refuse_history = True
    wait(2)

    results = sync(study_dir, record)

    assert [result.ok for result in results] == [False, False, False]
    first, *others = [str(result.reason) for result in results]
    assert "filestream" in first
    assert all(reason.startswith("not sent, as the server had failed") for reason in others)
    server.refuse_history = False
    wait(PATIENCE)
    assert all(result.ok for result in sync(study_dir, record))
    assert steps(server, 0) == STEPS


def test_sync_without_a_key_says_what_to_do(study_dir: Path) -> None:
    with pytest.raises(
        SlimnetError,
        match=r"sync needs W&B, and there is no API key for .* -m wandb login, or in WANDB_API_KEY",
    ):
        sync(study_dir, study(trial(0)))


def test_a_service_that_does_not_end_is_not_waited_for(server: FakeWandb) -> None:
    wandb.Api()
    (service,) = services()
    os.kill(service, signal.SIGSTOP)
    sdk.shut_down(timeout=0.1)
    assert services() == []


def services() -> list[int]:
    """The processes of wandb's service that this one has begun."""
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True, check=False
    )
    return [int(line) for line in found.stdout.split()]
