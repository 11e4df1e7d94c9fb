"""Offline runs, written by the real SDK and read back."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from tracked import EPOCHS, contender, failed, run_id, study, trial

from slimnet.errors import SlimnetError
from sweeps.records import StudyRecord
from sweeps.tracking import Mode, OfflineRun, Tracker, read_offline_run
from sweeps.tracking.ledger import FILE, FOLDER, Ledger

OFFLINE = Mode("offline", "for the test")

PYTHONPATH = os.pathsep.join(str(Path(__file__).parents[level]) for level in (3, 1))


def track(study_dir: Path, *states: StudyRecord) -> list[str]:
    tracker = Tracker(study_dir, OFFLINE)
    for state in states:
        tracker.update(state)
    return tracker.close(timeout=300)


def offline_runs(study_dir: Path) -> dict[str, OfflineRun]:
    """Every offline run in the folder; no id may appear twice."""
    runs = [read_offline_run(folder) for folder in (study_dir / "wandb").glob("offline-run-*")]
    assert len({run.id for run in runs}) == len(runs)
    return {run.id: run for run in runs}


def folders(study_dir: Path) -> dict[str, str]:
    """What is noted to be written: the folder of each run."""
    return {name: str(entry.folder) for name, entry in Ledger(study_dir / "wandb").items(FOLDER)}


def assert_each_epoch_once(run: OfflineRun) -> None:
    for kind, epochs in EPOCHS.items():
        found = [row[f"{kind}/epoch"] for row in run.history if f"{kind}/epoch" in row]
        assert found == list(range(1, epochs + 1))
    assert [row["_step"] for row in run.history] == list(range(sum(EPOCHS.values()) + 1))


def test_a_study_reads_back(study_dir: Path) -> None:
    record = study(trial(0), failed(trial(1, 2, False, 0), "loss is NaN"), trial(2))

    assert track(study_dir, study(trial(0, 2, False, 0)), record) == []

    runs = offline_runs(study_dir)
    assert set(runs) == {run_id(name) for name in (0, 1, 2, "dense", "study")}
    complete = runs[run_id(0)]
    assert_each_epoch_once(complete)
    assert (complete.group, complete.job_type, complete.project) == ("smoke", "trial", "slimnet")
    assert complete.name == "trial 0 · λ 0.01 · ratio 0.7"
    assert complete.config["sparse"]["lambda"] == 0.01
    assert complete.config["searched"] == {"sparse.lambda": 0.01, "prune.ratio": 0.7}
    assert complete.history[0]["sparse/gamma"] == {
        "_type": "histogram",
        "values": [3, 2, 1],
        "bins": [0.0, 0.1, 0.2, 0.3],
    }
    assert complete.history[3]["prune/val_accuracy"] == 0.4
    assert complete.history[3]["gamma_layers/stem.bn"]["_type"] == "histogram"
    assert complete.summary["params"] == 900
    assert (complete.exit_code, complete.problem) == (0, None)
    assert runs[run_id(1)].exit_code == 1
    assert runs[run_id(1)].summary["reason"] == "loss is NaN"
    assert runs[run_id("dense")].job_type == "dense"
    tables = runs[run_id("study")].summary
    assert tables["trials"]["nrows"] == 2
    assert tables["front_chart"]["_type"] == "plotly-file"


def test_two_passes_read_back(study_dir: Path) -> None:
    assert track(study_dir, study(trial(0, second_pass=(True, True, True)))) == []

    run = offline_runs(study_dir)[run_id(0)]
    assert [row["_step"] for row in run.history] == list(range(12))
    assert [row["finetune-2/epoch"] for row in run.history if "finetune-2/epoch" in row] == [1, 2]
    assert run.history[9]["prune-2/val_accuracy"] == 0.4
    content = next(study_dir.glob(f"wandb/{folders(study_dir)[run_id(0)]}/*.wandb")).read_bytes()
    for axis in (b"sparse/*", b"finetune/*", b"sparse-2/*", b"finetune-2/*"):
        assert axis in content, "the metrics of each stage are drawn over its own epochs"


def test_a_trial_that_runs_is_not_written_yet(study_dir: Path) -> None:
    track(study_dir, study(trial(0), trial(1, 2, False, 0)))

    assert run_id(1) not in offline_runs(study_dir)


def test_controls_and_repeats_read_back(study_dir: Path) -> None:
    whole, cut = contender("uniform", 0, 0), contender("dense", None, 1, 2)
    broken = contender("random", 0, 0, 1, failure="sparse: NaN loss")
    assert track(study_dir, study(trial(0), goal=1, contenders=[whole, cut, broken])) == []
    names: list[int | str] = ["dense", 0, "study", "uniform-0-0", "random-0-0"]
    runs = offline_runs(study_dir)
    assert set(runs) == {run_id(name) for name in names}, "a repeat that runs is not written yet"
    assert runs[run_id("study")].summary["controls"]["nrows"] == 1

    ended = [whole, contender("dense", None, 1), broken]
    assert track(study_dir, study(trial(0), goal=1, contenders=ended)) == []

    runs = offline_runs(study_dir)
    assert set(runs) == {run_id(name) for name in (*names, "dense-all-1")}
    for name, job_type in (("uniform-0-0", "control"), ("dense-all-1", "repeat")):
        run = runs[run_id(name)]
        assert [row["sparse/epoch"] for row in run.history] == [1, 2, 3]
        assert (run.job_type, run.exit_code, run.summary["params"]) == (job_type, 0, 700)
    assert runs[run_id("dense-all-1")].config["seed"] == 1
    assert runs[run_id("random-0-0")].exit_code == 1
    assert runs[run_id("random-0-0")].summary["reason"] == "sparse: NaN loss"
    assert [row["_step"] for row in runs[run_id("study")].history] == [0]
    assert runs[run_id("study")].summary["controls"]["nrows"] == 1


def test_nothing_new_writes_nothing(study_dir: Path) -> None:
    record = study(trial(0))
    track(study_dir, record)
    before = folders(study_dir)

    track(study_dir, record)

    assert folders(study_dir) == before


def test_what_is_not_noted_is_written_again(study_dir: Path) -> None:
    record = study(trial(0))
    track(study_dir, record)
    (study_dir / "wandb" / FILE).unlink()

    track(study_dir, record)

    assert_each_epoch_once(offline_runs(study_dir)[run_id(0)])


def test_the_folders_of_others_are_left_alone(study_dir: Path) -> None:
    other = study_dir / "wandb" / "offline-run-20260101_000000-mine"
    other.mkdir(parents=True)

    track(study_dir, study(trial(0)))

    assert other.is_dir()


def test_a_retried_trial_replaces_its_run(study_dir: Path) -> None:
    track(study_dir, study(failed(trial(0, 2, False, 0), "killed")))
    track(study_dir, study(trial(0, 2, False, 0)))
    track(study_dir, study(trial(0)))

    run = offline_runs(study_dir)[run_id(0)]
    assert_each_epoch_once(run)
    assert run.exit_code == 0


PROJECT_MANY = """
import os
import signal
import sys
from pathlib import Path

from tracked import study, trial
from sweeps.tracking import Mode, Tracker, sdk

begun = 0

def open_run(*arguments):
    global begun
    run = whole_open_run(*arguments)
    begun += 1
    if begun == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return run

whole_open_run, sdk.open_run = sdk.open_run, open_run
tracker = Tracker(Path(sys.argv[1]), Mode("offline", ""))
tracker.update(study(*map(trial, range(8)), goal=8))
tracker.close()
"""


def kill_in_the_middle(study_dir: Path, begun: int) -> None:
    """A projection that is killed when it has begun with its run number `begun`."""
    command = [sys.executable, "-c", PROJECT_MANY, str(study_dir), str(begun)]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL


def test_a_killed_projection_is_taken_up(study_dir: Path) -> None:
    for begun in (2, 4):
        kill_in_the_middle(study_dir, begun)
        assert 0 < len(folders(study_dir)) < 9, "it was not killed in the middle"

    assert track(study_dir, study(*map(trial, range(8)), goal=8)) == []

    runs = offline_runs(study_dir)
    assert set(runs) == {run_id(name) for name in (*range(8), "dense", "study")}
    for number in range(8):
        assert_each_epoch_once(runs[run_id(number)])


INTERRUPTED = """
import sys
from pathlib import Path

from tracked import study, trial
from sweeps.tracking import Mode, Tracker

tracker = Tracker(Path(sys.argv[1]), Mode("offline", ""))
tracker.update(study(trial(0)))
try:
    print("ready", flush=True)
    sys.stdin.read()
except KeyboardInterrupt:
    tracker.update(study(trial(0), trial(1)))
    print(tracker.close())
"""


def test_ctrl_c_leaves_time_to_finish(study_dir: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(study_dir)]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    with subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process in the foreground
        assert process.communicate()[0].decode() == "[]\n"

    assert_each_epoch_once(offline_runs(study_dir)[run_id(1)])


def test_a_damaged_file_is_told(study_dir: Path) -> None:
    assert track(study_dir, study(trial(0))) == []
    folder = study_dir / "wandb" / folders(study_dir)[run_id(0)]
    file = next(folder.glob("*.wandb"))
    whole = file.read_bytes()

    file.write_bytes(whole[:-1])  # half of it may end between two records
    cut = read_offline_run(folder)
    assert cut.problem is not None
    assert "breaks off" in cut.problem
    assert cut.id == run_id(0)

    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert "damaged" in str(read_offline_run(file).problem)

    file.write_bytes(b"")
    assert read_offline_run(file).problem == "the file does not begin as a W&B file"

    file.unlink()
    with pytest.raises(SlimnetError, match=r"holds no run-\*\.wandb"):
        read_offline_run(folder)


def test_an_unwritable_folder_ends_the_tracking_and_not_the_sweep(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with caplog.at_level(logging.WARNING, "sweeps.tracking"):
        warnings = track(blocked, study(trial(0)), study(trial(0), trial(1)))

    assert len(warnings) == 1
    assert "the sweep goes on without it" in warnings[0]
    assert caplog.messages == warnings


def test_what_requests_silences_stays_silent_though_the_sweep_restores_filters_meanwhile(
    study_dir: Path,
) -> None:
    tracker = Tracker(study_dir, OFFLINE)
    with warnings.catch_warnings(record=True) as told:
        tracker.update(study(trial(0)))
        warnings.warn("SOCKS support in urllib3 requires the installation of PySocks", stacklevel=1)
    assert (tracker.close(timeout=300), told) == ([], [])


def test_disabled_does_without_wandb(study_dir: Path) -> None:
    script = (
        "import sys; sys.modules['wandb'] = None\n"
        "from pathlib import Path; from sweeps.tracking import Mode, Tracker\n"
        "tracker = Tracker(Path(sys.argv[1]), Mode('disabled', ''))\n"
        "tracker.update(None); assert tracker.close() == []"
    )
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    subprocess.run([sys.executable, "-c", script, str(study_dir)], check=True, env=environment)
    assert list(study_dir.iterdir()) == []
