"""The loop of a sweep, on stages that take no time: what is computed, asked, told, and when it ends."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from unmirrored import NoMirror

from benchmarks import instant
from slimnet.errors import SlimnetError
from sweeps import driver
from sweeps.config import Config, load_config, resolve
from sweeps.console import Console
from sweeps.driver import Driver
from sweeps.executors import Event, ExecutorDiedError
from sweeps.executors.inline import PLACE, InlineExecutor
from sweeps.executors.reporting import Compute
from sweeps.interruption import Interruption
from sweeps.jobs import DamagedInputError, Job, Place, Watch
from sweeps.outputs import pareto_table, write_outputs
from sweeps.records import StageRecord, StudyRecord
from sweeps.resuming import resume
from sweeps.retry import forget_failures
from sweeps.stages import Stage, StageFolder, Store, chain
from sweeps.state import State, read_study
from sweeps.study import Facts, Study, make_study, open_study
from sweeps.study.mirror import Mirroring, patiently
from sweeps.tracking import Tracker
from sweeps.tracking.mode import Mode

FACTS = Facts("", "float32", "")
SAMPLERS = ["tpe", "nsga2", "random", "grid"]


def config(*overrides: str, sampler: str = "random", trials: int = 12) -> Config:
    space = "{sparse.lambda: {log: [0.001, 0.008], steps: 4}, prune.ratio: {range: [0.2, 0.8], step: 0.05}}"
    changes = [f"search.sampler={sampler}", f"search.trials={trials}", f"search.space={space}", *overrides]
    return load_config("smoke", changes)


@dataclass
class Runner:
    """Runs of one study, and what was computed in them."""

    runs: Path
    computed: Counter[str] = field(default_factory=Counter)
    machine: str = ""  # without one, no latency is measured
    optuna: bool = False  # whether Optuna's study is kept, for tests that look at it
    names: list[str] = field(default_factory=list)

    def run(
        self,
        settings: Config,
        *,
        workers: int = 2,
        compute: Compute = instant.compute,
        interruption: Interruption | None = None,
        wrap: Callable[[InlineExecutor], InlineExecutor] = lambda executor: executor,
        track: Callable[[Path, Mode], Tracker] = Tracker,
        mirror: Mirroring | None = None,
    ) -> StudyRecord:
        folder = self.runs / settings.study
        folder.mkdir(parents=True, exist_ok=True)
        study = make_study(folder, settings, "float32", machine=self.machine)
        state, sampling, kept = resume(study, settings, self.runs)
        mirror = mirror or (kept if self.optuna else NoMirror())
        executor = wrap(InlineExecutor(self._counted(compute), workers))
        quiet, off = Console(quiet=True), track(folder, Mode("disabled", ""))
        interruption = interruption or Interruption()
        return Driver(state, study, sampling, mirror, executor, off, quiet, interruption).run()

    def _counted(self, compute: Compute) -> Compute:
        def count(job: Job, place: Place, watch: Watch) -> bool:
            def epoch(row: dict[str, Any]) -> None:
                self.computed[f"{job.key} {row['epoch']}"] += 1
                watch.epoch(row)

            self.names.append(job.stage.name)
            return compute(job, place, Watch(epoch, watch.step, watch.warning, watch.stop))

        return count


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "runs")


def retry(runs: Path, settings: Config, numbers: list[int]) -> list[int]:
    return forget_failures(Store(runs), read_study(runs, settings), numbers)


def points(study: StudyRecord) -> list[tuple[Any, ...]]:
    return [tuple(trial.params.values()) for trial in study.trials]


# To the goal


def test_every_trial_is_complete_and_every_epoch_computed_once(runner: Runner) -> None:
    study = runner.run(config())
    assert [trial.state for trial in study.trials] == ["complete"] * 12
    assert study.dense.state == "done"
    assert set(runner.computed.values()) == {1}
    sparse = {trial.first("sparse").key for trial in study.trials}
    assert len(runner.computed) == len(sparse) * 2 + 12 * 1 + (2 + 1)  # of the dense network: a trial's
    assert Counter(runner.names)["sparse"] == len(sparse) + 1

    facts = [trial.facts() for trial in study.trials]
    beaten = [
        any(
            other["val_accuracy"] >= own["val_accuracy"]
            and other["params"] <= own["params"]
            and (other["val_accuracy"], other["params"]) != (own["val_accuracy"], own["params"])
            for other in facts
        )
        for own in facts
    ]
    assert sorted(study.front) == [number for number, is_beaten in enumerate(beaten) if not is_beaten]
    assert pareto_table(read_study(runner.runs, config())) == pareto_table(study)


def test_a_study_at_its_goal_computes_nothing(runner: Runner) -> None:
    before = pareto_table(runner.run(config()))
    runner.names.clear()
    assert pareto_table(runner.run(config())) == before
    assert runner.names == []


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_go_two_halves_and_any_number_of_workers_ask_the_same(tmp_path: Path, sampler: str) -> None:
    whole = Runner(tmp_path / "whole").run(config(sampler=sampler, trials=20))
    halves = Runner(tmp_path / "halves")
    halves.run(config(sampler=sampler, trials=10), workers=1)
    again = halves.run(config(sampler=sampler, trials=20), workers=4)
    assert points(again) == points(whole)
    assert pareto_table(again) == pareto_table(whole)
    assert set(halves.computed.values()) == {1}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_without_its_record_and_database_is_rebuilt_from_its_stages(
    runner: Runner, sampler: str
) -> None:
    runner.optuna = sampler == SAMPLERS[0]  # for one of them: writing it takes most of the time
    before = runner.run(config(sampler=sampler, trials=15))
    for name in ("study.json", "trials.jsonl", *["study.db"] * runner.optuna):
        (runner.runs / "smoke" / name).unlink()
    runner.names.clear()
    again = runner.run(config(sampler=sampler, trials=15))
    assert points(again) == points(before)
    assert pareto_table(again) == pareto_table(before)
    assert runner.names == []


@pytest.mark.parametrize("damaged", ["study.json", "study.db"])
def test_what_a_study_fixed_when_it_began_is_in_two_files(runner: Runner, damaged: str) -> None:
    runner.machine, runner.optuna = "a processor", True
    before = pareto_table(runner.run(config()))
    facts = open_study(runner.runs / "smoke", config()).facts
    path = runner.runs / "smoke" / damaged
    path.unlink() if damaged == "study.json" else path.write_bytes(b"garbage" * 1000)
    runner.names.clear()
    assert pareto_table(runner.run(config())) == before
    assert open_study(runner.runs / "smoke", config()).facts == facts  # its uid names the W&B runs
    assert runner.names == []


def test_a_study_with_neither_file_begins_anew_from_its_stages(runner: Runner) -> None:
    runner.optuna = True
    before = pareto_table(runner.run(config()))
    (runner.runs / "smoke" / "study.json").unlink()
    (runner.runs / "smoke" / "study.db").write_bytes(b"garbage" * 1000)
    runner.names.clear()
    assert pareto_table(runner.run(config())) == before
    assert runner.names == []
    assert (runner.runs / "smoke" / "study.db.old").exists()


def test_optuna_has_every_trial_with_its_values(runner: Runner) -> None:
    runner.optuna = True
    study = runner.run(config())
    found = optuna.load_study(study_name="smoke", storage=f"sqlite:///{runner.runs / 'smoke' / 'study.db'}")
    assert [trial.state.name for trial in found.trials] == ["COMPLETE"] * 12
    assert [tuple(trial.values) for trial in found.trials] == [
        (trial.metrics["val_accuracy"], trial.metrics["params"]) for trial in study.trials
    ]
    assert found.metric_names == ["val_accuracy", "params"]
    for shown, trial in zip(found.trials, study.trials, strict=True):
        keys = {f"stage.{stage.name}": stage.key for stage in trial.stages}
        assert keys.items() <= shown.user_attrs.items()
        for name in ("test_accuracy", "macs"):
            assert shown.user_attrs[name] == trial.metrics[name]
        assert shown.constraints == {}


def test_optuna_has_the_reason_of_a_failure(runner: Runner) -> None:
    runner.optuna = True
    study = runner.run(config(trials=4), compute=failing("prune"))
    found = optuna.load_study(study_name="smoke", storage=f"sqlite:///{runner.runs / 'smoke' / 'study.db'}")
    assert [trial.state.name for trial in found.trials] == ["FAIL"] * 4
    assert [trial.user_attrs["reason"] for trial in found.trials] == [trial.reason for trial in study.trials]


def test_a_field_that_goes_by_another_is_run_recorded_and_shown(runner: Runner) -> None:
    space = (
        "{sparse.lambda: {by: sparse.penalty, l1: [0.001, 0.002, 0.004], polarization: [0.1, 0.2]}, "
        "sparse.penalty: [l1, proximal, polarization], prune.ratio: [0.3, 0.5]}"
    )
    settings = config(f"search.space={space}", "sparse.lambda=0.01", sampler="tpe", trials=12)
    runner.optuna = True
    study = runner.run(settings)
    assert [trial.state for trial in study.trials] == ["complete"] * 12
    strengths = {(trial.config.sparse.penalty, trial.strength) for trial in study.trials}
    assert strengths == {
        *(("l1", strength) for strength in (0.001, 0.002, 0.004)),
        ("proximal", 0.01),
        *(("polarization", strength) for strength in (0.1, 0.2)),
    }
    folder = runner.runs / "smoke"
    found = optuna.load_study(study_name="smoke", storage=f"sqlite:///{folder / 'study.db'}")
    names = {name for trial in found.trials for name in trial.params}
    assert names == {"prune.ratio", "sparse.penalty", "sparse.lambda[l1]", "sparse.lambda[polarization]"}
    assert pareto_table(read_study(runner.runs, settings)) == pareto_table(study)

    runner.computed.clear()
    (folder / "study.json").unlink()
    assert points(runner.run(settings)) == points(study)
    assert not runner.computed
    assert "sparse.penalty" in write_outputs(folder, study).read_text()
    assert (folder / "pareto.csv").read_text().startswith("trial,lambda,ratio,sparse.penalty,")


def test_what_most_trials_wait_for_comes_first_and_what_is_begun_before_the_rest(tmp_path: Path) -> None:
    listed = [(0.001, 0.2), (0.002, 0.2), (0.004, 0.2), (0.004, 0.5), (0.008, 0.2)]
    trials = ", ".join(f"{{sparse.lambda: {strength}, prune.ratio: {ratio}}}" for strength, ratio in listed)
    settings = config(f"search.points=[{trials}]", "search.ahead=5", trials=5)
    starts: list[float] = []

    def compute(job: Job, place: Place, watch: Watch) -> bool:
        if job.stage.kind == "sparse":
            starts.append(job.stage.spec.strength)  # type: ignore[attr-defined]
        return instant.compute(job, place, watch)

    runner, seen = Runner(tmp_path / "runs"), list[Any]()
    begun, *_ = chain(resolve(settings, {"sparse.lambda": 0.008}), "float32")
    Store(runner.runs).folder(begun).prepare(begun)
    job = Job.of(begun, Store(runner.runs), settings, None)
    instant.compute(job, PLACE, Watch(epoch=seen.append, stop=lambda: bool(seen)))  # one of its epochs
    study = runner.run(settings, workers=1, compute=compute)
    assert starts == [0.0, 0.004, 0.008, 0.001, 0.002]
    assert points(study) == listed


def test_two_passes_prune_twice(runner: Runner) -> None:
    study = runner.run(config("passes=2", trials=4))
    assert [trial.state for trial in study.trials] == ["complete"] * 4
    for trial in study.trials:
        names = ["sparse", "prune", "finetune", "sparse-2", "prune-2", "finetune-2"]
        assert [stage.name for stage in trial.stages] == names
        params = [stage.metrics["params"] for stage in trial.stages]
        assert (
            params[0]
            > params[1]
            == params[2]
            == params[3]
            > params[4]
            == params[5]
            == trial.metrics["params"]
        )
    assert set(runner.computed.values()) == {1}


def test_the_folders_of_a_study_are_not_read_again_and_again(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[str] = Counter()
    mend = StageFolder.mend

    def count(self: StageFolder, stage: Stage) -> tuple[StageRecord, list[str]]:
        reads[stage.key] += 1
        return mend(self, stage)

    monkeypatch.setattr(StageFolder, "mend", count)
    monkeypatch.delattr(StageFolder, "read")  # which would read the same files again
    study = runner.run(config(trials=40))
    stages = {stage.key for trial in study.trials for stage in trial.stages} | {study.dense.key}
    assert reads.keys() == stages
    assert set(reads.values()) == {2}  # when it was asked for, and when it had ended


# Curves


def test_every_sparse_network_has_a_curve_after_all_that_trials_wait_for(runner: Runner) -> None:
    plain = Runner(runner.runs.with_name("plain")).run(config())
    study = runner.run(config("curves=true"), workers=1)
    assert study.curves.keys() == {trial.first("sparse").key for trial in study.trials}
    assert {curve.state for curve in study.curves.values()} == {"done"}
    assert runner.names[-4:] == ["curve"] * 4
    assert Counter(runner.names)["curve"] == 4
    assert pareto_table(study) == pareto_table(plain)
    for curve in study.curves.values():
        assert [row["ratio"] for row in curve.metrics["curve"]][:3] == [0, 0.1, 0.2]
    again = read_study(runner.runs, config("curves=true"))
    assert {key: curve.metrics for key, curve in again.curves.items()} == {
        key: curve.metrics for key, curve in study.curves.items()
    }


def test_a_finished_study_gets_its_curves_when_they_are_switched_on(runner: Runner) -> None:
    study = runner.run(config())
    assert study.curves == {}
    runner.names.clear()
    assert len(runner.run(config("curves=true")).curves) == 4
    assert runner.names == ["curve"] * 4


def test_trials_that_differ_in_pruning_alone_share_a_curve(runner: Runner) -> None:
    space = (
        "search.space={sparse.lambda: [0.001, 0.008], prune.score: [gamma, random], "
        "prune.streams: [true, false]}"
    )
    study = runner.run(config("curves=true", space, sampler="grid", trials=8))
    specs = [curve.spec["prune"] for curve in study.curves.values()]
    assert sorted(spec["streams"] for spec in specs) == [False, False, True, True]
    assert {spec["score"] for spec in specs} == {"gamma"}


def test_of_many_sparse_networks_the_first_have_curves(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.state.curves.MOST_CURVES", 3)
    space = "search.space={sparse.lambda: {log: [0.001, 0.008]}, prune.ratio: [0.5]}"
    study = runner.run(config("curves=true", space, trials=6))
    assert list(study.curves) == [trial.first("sparse").key for trial in study.trials[:3]]


def test_a_sweep_that_is_interrupted_before_its_curves_goes_on_with_them(runner: Runner) -> None:
    plain = Runner(runner.runs.with_name("plain"))
    plain.run(config())
    last_epoch = Stopping(runner, len(plain.computed))
    study = runner.run(config("curves=true"), workers=1, interruption=last_epoch)
    assert len(study.complete) == 12
    assert {curve.state for curve in study.curves.values()} == {"missing"}
    runner.names.clear()
    assert {curve.state for curve in runner.run(config("curves=true")).curves.values()} == {"done"}
    assert runner.names == ["curve"] * 4


def test_a_failed_curve_fails_no_trial_and_is_tried_again(runner: Runner) -> None:
    settings = config("curves=true", trials=6)
    study = runner.run(settings, compute=failing("curve"))
    assert [trial.state for trial in study.trials] == ["complete"] * 6
    assert {curve.state for curve in study.curves.values()} == {"failed"}
    runner.names.clear()
    runner.run(settings)
    assert runner.names == []
    assert retry(runner.runs, settings, []) == []
    again = runner.run(settings)
    assert runner.names == ["curve"] * len(again.curves)
    assert {curve.state for curve in again.curves.values()} == {"done"}


def test_there_is_no_curve_of_a_network_that_failed(runner: Runner) -> None:
    settings = config("curves=true", trials=4)
    assert runner.run(settings, compute=failing("sparse")).curves == {}
    assert read_study(runner.runs, settings).curves == {}
    retry(runner.runs, settings, [])
    assert {curve.state for curve in runner.run(settings).curves.values()} == {"done"}


# Latency


def measured(runner: Runner) -> Runner:
    runner.machine = "a processor"
    return runner


def test_every_network_is_measured_once_after_all_that_trials_wait_for(runner: Runner) -> None:
    plain = Runner(runner.runs.with_name("plain")).run(config())
    study = measured(runner).run(config(), workers=1)
    networks = {trial.stages[-1].key for trial in study.trials} | {study.dense.key}
    assert runner.names[-len(networks) :] == ["latency"] * len(networks)
    assert Counter(runner.names)["latency"] == len(networks)
    assert study.latencies.keys() == networks
    for trial in study.trials:
        assert trial.measured["file_bytes"] == 4 * trial.metrics["params"]
        assert trial.measured["latency_ms"] == trial.metrics["params"] / 1e5
    assert study.dense.metrics["file_bytes"] == 4 * study.dense.metrics["params"]
    table, without = pareto_table(study), pareto_table(plain)
    assert [row.pop("file_bytes") for row in table["front"]] == [4 * row["params"] for row in table["front"]]
    assert table["front"] == [{k: v for k, v in row.items() if k != "file_bytes"} for row in without["front"]]
    again = read_study(runner.runs, config())
    assert [trial.measured for trial in again.trials] == [trial.measured for trial in study.trials]
    runner.names.clear()
    runner.run(config())
    assert runner.names == []


def test_controls_and_repeats_are_measured_too(runner: Runner) -> None:
    settings = config("controls.uniform=true", "confirm={seeds: 2, points: 2}", trials=4)
    study = measured(runner).run(settings)
    assert study.contenders
    assert all(one.metrics["file_bytes"] == 4 * one.metrics["params"] for one in study.contenders)


def test_trials_that_are_judged_by_latency_wait_for_it(runner: Runner) -> None:
    settings = config("search.objectives={val_accuracy: maximize, latency_ms: minimize}", sampler="tpe")
    runner.optuna = True
    study = measured(runner).run(settings, workers=2)
    assert [trial.state for trial in study.trials] == ["complete"] * 12
    assert Counter(runner.names)["latency"] == 1 + len({trial.stages[-1].key for trial in study.trials})
    assert runner.names[-1] != "sparse"
    table = pareto_table(study)
    assert [row["latency_ms"] for row in table["front"]] == [row["params"] / 1e5 for row in table["front"]]
    assert table["dense"]["latency_ms"] == table["dense"]["params"] / 1e5
    assert table["hypervolume"] > 0
    told = optuna.load_study(study_name="smoke", storage=f"sqlite:///{runner.runs / 'smoke' / 'study.db'}")
    assert [trial.values[1] for trial in told.trials] == [t.metrics["latency_ms"] for t in study.trials]
    by_size = Runner(runner.runs.with_name("by-size")).run(config(sampler="tpe"))
    assert points(study) == points(by_size)  # whose objectives rank alike


def test_a_limit_keeps_trials_off_the_front(runner: Runner) -> None:
    free = measured(runner).run(config())
    sizes = sorted(free.trials[number].metrics["params"] for number in free.front)
    middle = sizes[len(sizes) // 2]
    other = measured(Runner(runner.runs.with_name("limited")))
    study = other.run(config(f"search.limits={{latency_ms: {middle / 1e5}}}"))
    assert len(study.complete) == 12
    assert sorted(study.trials[number].metrics["params"] for number in study.front) == [
        size for size in sizes if size <= middle
    ]


def test_constraints_keep_trials_off_the_front_and_reach_optuna(runner: Runner) -> None:
    wanted = "search.constraints={params: <= 20000, val_accuracy: '>= 0.84'}"
    settings = config(wanted, sampler="tpe")
    runner.optuna = True
    study = runner.run(settings)
    facts = [trial.facts() for trial in study.trials]
    kept = [one["params"] <= 20_000 and one["val_accuracy"] >= 0.84 for one in facts]
    assert 0 < sum(kept) < 12
    assert {number for number in range(12) if kept[number]} >= set(study.front) != set()
    found = optuna.load_study(study_name="smoke", storage=f"sqlite:///{runner.runs / 'smoke' / 'study.db'}")
    assert [all(v <= 0 for v in trial.constraints.values()) for trial in found.trials] == kept
    assert {trial.number for trial in found.best_trials} == set(study.front)

    halves = Runner(runner.runs.with_name("halves"))
    halves.run(config(wanted, sampler="tpe", trials=6))
    assert points(halves.run(settings, workers=1)) == points(study)


def test_a_failed_measurement_fails_no_trial_that_is_not_judged_by_it(runner: Runner) -> None:
    settings = config(trials=4)
    study = measured(runner).run(settings, compute=failing("latency"))
    assert [trial.state for trial in study.trials] == ["complete"] * 4
    assert {stage.state for stage in study.latencies.values()} == {"failed"}
    assert retry(runner.runs, settings, []) == []
    again = runner.run(settings)
    assert {stage.state for stage in again.latencies.values()} == {"done"}
    assert all(trial.measured["file_bytes"] for trial in again.trials)


def test_a_failed_measurement_fails_the_trials_that_are_judged_by_it(runner: Runner) -> None:
    settings = config("search.objectives={val_accuracy: maximize, file_bytes: minimize}", trials=4)
    runner.optuna = True
    study = measured(runner).run(settings, compute=failing("latency"))
    assert {trial.reason for trial in study.trials} == {"latency: the loss became nan"}
    assert retry(runner.runs, settings, []) == [0, 1, 2, 3]
    assert {trial.state for trial in runner.run(settings).trials} == {"complete"}
    assert not list((runner.runs / "smoke").glob("study.db.old*")), "every retry would add one"


def test_of_many_networks_those_of_the_front_are_measured(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.state.state.MOST_MEASURED", 11)
    study = measured(runner).run(config())
    done = {key for key, stage in study.latencies.items() if stage.state == "done"}
    assert done == {study.dense.key} | {study.trials[number].stages[-1].key for number in study.front}


# Interruptions


class Stopping(Interruption):
    """Signals that arrive when so many epochs have been computed."""

    def __init__(self, runner: Runner, *moments: int) -> None:
        super().__init__()
        self._runner, self._moments = runner, moments

    @property
    def level(self) -> int:
        return sum(len(self._runner.computed) >= moment for moment in self._moments)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
@pytest.mark.parametrize("signals", [1, 2])
def test_interrupted_again_and_again_a_sweep_finds_the_same(
    tmp_path: Path, sampler: str, signals: int
) -> None:
    settings = config("sparse.epochs=4", "finetune.epochs=3", sampler=sampler, trials=14)
    whole = Runner(tmp_path / "whole").run(settings)
    runner = Runner(tmp_path / "parts")
    study, rounds = None, 0
    while study is None or len(study.complete) < 14:
        moment = len(runner.computed) + 3
        study = runner.run(settings, interruption=Stopping(runner, *[moment] * signals))
        rounds += 1
    assert rounds > 5
    assert pareto_table(study) == pareto_table(whole)
    assert set(runner.computed.values()) == {1}


def test_after_the_first_signal_nothing_is_asked_or_started(runner: Runner) -> None:
    study = runner.run(config(), interruption=Stopping(runner, 0))
    assert (study.trials, runner.names) == ([], [])


# Controls and repeats

BESIDE = ("controls.uniform=true", "confirm={seeds: 3, points: 2}")


def beside(study: StudyRecord) -> list[tuple[Any, ...]]:
    return [(one.kind, one.trial, one.seed, one.state) for one in study.contenders]


def test_controls_and_repeats_are_computed_once_when_the_goal_is_reached(runner: Runner) -> None:
    study = runner.run(config(*BESIDE))
    assert len(study.front) > 2
    of_points = [one for one in beside(study) if one[1] is not None]
    numbers = sorted({one[1] for one in of_points})
    assert len(numbers) == 2
    assert set(numbers) <= set(study.front)
    assert sorted(of_points) == sorted(
        [("uniform", number, seed, "complete") for number in numbers for seed in range(3)]
        + [("trial", number, seed, "complete") for number in numbers for seed in (1, 2)]
    )
    assert [one for one in beside(study) if one[1] is None] == [
        ("dense", None, seed, "complete") for seed in (1, 2)
    ]
    assert study.ended

    first = {stage.key for trial in study.trials for stage in trial.stages} | {study.dense.key}
    is_late = [name.split()[0] not in first for name in runner.computed]
    assert True in is_late
    assert is_late == sorted(is_late), "nothing stands beside a trial before all have ended"
    assert set(runner.computed.values()) == {1}
    table = pareto_table(study)
    assert pareto_table(read_study(runner.runs, config(*BESIDE))) == table
    assert [(row["kind"], row["seeds"]) for row in table["controls"]] == [("uniform", [0, 1, 2])] * 2
    for row in table["controls"]:
        assert row["params"] == study.trials[row["trial"]].metrics["params"]

    runner.names.clear()
    assert pareto_table(runner.run(config(*BESIDE))) == table
    assert runner.names == []


def test_all_controls_of_two_passes_with_early_weights(runner: Runner) -> None:
    every = "controls={uniform: true, scratch: true, random: true}"
    early = ("finetune.weights=early", "passes=2", "finetune.epochs=2")
    study = runner.run(config(every, "confirm={seeds: 2, points: 1}", *early, trials=3))
    assert study.ended
    assert {one.state for one in study.contenders} == {"complete"}
    names = ("sparse", "early", "prune", "finetune", "sparse-2", "early-2", "prune-2", "finetune-2")
    chains = {(one.kind, one.seed): tuple(stage.name for stage in one.stages) for one in study.contenders}
    assert chains == {
        **dict.fromkeys([("uniform", 0), ("uniform", 1), ("dense", 1)], ("sparse",)),
        **dict.fromkeys([("scratch", 0), ("scratch", 1), ("trial", 1)], names),
        **dict.fromkeys([("random", 0), ("random", 1)], names),
    }
    assert set(runner.computed.values()) == {1}
    assert {row["epochs"] for row in pareto_table(study)["controls"]} == {8}


def test_without_controls_and_repeats_a_study_ends_as_it_did(runner: Runner) -> None:
    study = runner.run(config())
    assert (study.contenders, study.ended) == ([], True)


@pytest.mark.parametrize("signals", [1, 2])
def test_interrupted_anywhere_the_same_stands_beside_the_trials(tmp_path: Path, signals: int) -> None:
    settings = config("finetune.epochs=2", *BESIDE, trials=6)
    whole = Runner(tmp_path / "whole").run(settings)
    runner = Runner(tmp_path / "parts")
    study, rounds, begun = None, 0, 0
    while study is None or not study.ended:
        moment = len(runner.computed) + 3
        study = runner.run(settings, interruption=Stopping(runner, *[moment] * signals))
        rounds += 1
        begun += any(one.state == "running" for one in study.contenders)
    assert rounds > 10
    assert begun > 3, "some interruptions fall among the controls"
    assert pareto_table(study) == pareto_table(whole)
    assert beside(study) == beside(whole)
    assert set(runner.computed.values()) == {1}


def test_a_study_that_goes_on_finds_what_stands_beside_its_new_front(tmp_path: Path) -> None:
    few, many = (config(*BESIDE, trials=trials) for trials in (4, 12))
    whole = Runner(tmp_path / "whole").run(many)
    runner = Runner(tmp_path / "parts")
    before = beside(runner.run(few))
    moment = len(runner.computed) + 1
    middle = runner.run(many, interruption=Stopping(runner, moment))
    assert not middle.ended
    stays = [one for one in before if one[1] is None or one[1] in middle.front]
    assert beside(middle) == stays != []
    table = pareto_table(middle)
    kept = [(row["trial"], row["seeds"]) for row in table["controls"]]
    assert sorted(kept) == sorted((one[1], [0, 1, 2]) for one in stays if (one[0], one[2]) == ("uniform", 0))
    assert table["dense"]["seeds"] == [0, 1, 2]
    assert pareto_table(read_study(runner.runs, many)) == table
    study = runner.run(many)
    assert beside(study) == beside(whole) != before
    assert pareto_table(study) == pareto_table(whole)
    assert set(runner.computed.values()) == {1}


def test_controls_stay_while_more_trials_are_open_as_long_as_their_trial_is_on_the_front(
    runner: Runner,
) -> None:
    """Not only those of the points that would be chosen now."""
    few, many = (config("controls.uniform=true", "confirm.points=2", trials=trials) for trials in (4, 12))
    found = {one.trial for one in runner.run(few).contenders}
    assert len(found) == 2
    seen: list[StudyRecord] = []
    epochs = len(runner.computed)
    while not seen or not seen[-1].ended:
        epochs += 1
        seen.append(runner.run(many, interruption=Stopping(runner, epochs)))
    still_open = [record for record in seen if len(record.complete) < 12]
    assert len(still_open) > 5
    for record in still_open:
        assert {one.trial for one in record.contenders} == found & set(record.front)
        assert {row["trial"] for row in pareto_table(record)["controls"]} == found & set(record.front)


def test_a_narrower_network_has_the_size_of_the_repeat_with_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = instant.metrics_of

    def by_seed(stage: Stage) -> dict[str, Any]:
        metrics = made(stage)
        if not stage.spec.dump().get("within") and "params" in metrics:
            metrics["params"] += 10 * stage.spec.seed
        return metrics

    monkeypatch.setattr(instant, "metrics_of", by_seed)
    settings = config("finetune.epochs=2", *BESIDE, trials=6)
    whole = Runner(tmp_path / "whole").run(settings)
    sizes = {(one.kind, one.trial, one.seed): one.metrics["params"] for one in whole.contenders}
    for kind, number, seed in list(sizes):
        if kind == "uniform" and number is not None:
            own = whole.trials[number].metrics["params"] + 10 * seed
            assert sizes[kind, number, seed] == own
            assert not seed or sizes["trial", number, seed] == own
    for row in pareto_table(whole)["controls"]:
        assert row["params"] == whole.trials[row["trial"]].metrics["params"] + 10

    runner = Runner(tmp_path / "parts")
    study, ahead = None, []
    while study is None or not study.ended:
        study = runner.run(settings, interruption=Stopping(runner, len(runner.computed) + 3))
        left = State(settings, open_study(runner.runs / "smoke", settings), Store(runner.runs)).epochs_ahead()
        ahead.append((len(runner.computed), sum(left.values())))
    assert (beside(study), pareto_table(study)) == (beside(whole), pareto_table(whole))
    assert set(runner.computed.values()) == {1}
    total = len(runner.computed)
    assert all(done + left >= total for done, left in ahead), "epochs are left that nobody was told of"
    assert ahead[-1] == (total, 0)


@pytest.mark.parametrize(
    "space",
    [
        "{passes: [2, 1], sparse.epochs: [5, 2], finetune.epochs: {by: passes, 1: [6, 1], 2: [2]}}",
        "{finetune.weights: [early, pruned], finetune.rewind_to: [3, 1], prune.ratio: [0.5, 0.6]}",
    ],
)
def test_of_epochs_that_are_searched_no_more_are_trained_than_were_told(runner: Runner, space: str) -> None:
    beside = "controls={scratch: true, random: true}", "confirm={seeds: 2, points: 1}"
    settings = config(f"search.space={space}", "sparse.epochs=4", *beside, sampler="grid", trials=6)
    told = State(settings, Study(runner.runs, FACTS, []), Store(runner.runs)).epochs_ahead()
    runner.run(settings)
    trained = Counter(key.split()[0] for key in runner.computed)
    kinds = {folder.name: folder.parent.name for folder in (runner.runs / "stages").glob("*/*")}
    for kind, most in told.items():
        assert sum(count for key, count in trained.items() if kinds[key] == kind) <= most, kind


def test_there_is_no_narrower_network_of_a_repeat_that_failed(runner: Runner) -> None:
    settings = config(*BESIDE, trials=6)

    def compute(job: Job, place: Place, watch: Watch) -> bool:
        if job.stage.kind == "finetune" and job.stage.spec.seed == 1:
            raise SlimnetError("the loss became nan")
        return instant.compute(job, place, watch)

    study = runner.run(settings, compute=compute)
    assert study.ended
    assert {one.seed for one in study.contenders if one.kind == "uniform"} == {0, 2}
    retry(runner.runs, settings, [])
    again = runner.run(settings)
    assert {one.seed for one in again.contenders if one.kind == "uniform"} == {0, 1, 2}
    assert {one.state for one in again.contenders} == {"complete"}
    assert set(runner.computed.values()) == {1}


def test_a_control_that_fails_holds_nothing_up_and_is_tried_again(runner: Runner) -> None:
    settings = config(*BESIDE, trials=6)

    def compute(job: Job, place: Place, watch: Watch) -> bool:
        spec = job.stage.spec.dump()
        if spec.get("within") and spec["seed"] == 1:
            raise SlimnetError("it cannot be so narrow")
        return instant.compute(job, place, watch)

    study = runner.run(settings, compute=compute)
    assert study.ended
    failed = [one for one in study.contenders if one.state == "failed"]
    assert {(one.kind, one.seed) for one in failed} == {("uniform", 1)}
    assert {one.reason for one in failed} == {"sparse: it cannot be so narrow"}
    assert len(study.complete) == 6
    assert {one.state for one in study.contenders if one not in failed} == {"complete"}
    assert [row["seeds"] for row in pareto_table(study)["controls"]] == [[0, 2]] * 2
    runner.names.clear()
    assert runner.run(settings).ended
    assert runner.names == [], "it is not tried again by itself"

    assert retry(runner.runs, settings, []) == []
    again = runner.run(settings)
    assert {one.state for one in again.contenders} == {"complete"}
    assert [row["seeds"] for row in pareto_table(again)["controls"]] == [[0, 1, 2]] * 2
    assert set(runner.computed.values()) == {1}


def test_a_failed_dense_network_leaves_room_for_controls(runner: Runner) -> None:
    settings = config("controls.uniform=true", trials=4)

    def compute(job: Job, place: Place, watch: Watch) -> bool:
        spec = job.stage.spec.dump()
        if job.stage.kind == "sparse" and not spec["lambda"] and not spec["within"]:
            raise SlimnetError("the loss became nan")
        return instant.compute(job, place, watch)

    study = runner.run(settings, compute=compute)
    assert (study.dense.state, study.ended) == ("failed", True)
    assert {one.state for one in study.contenders} == {"complete"}
    table = pareto_table(study)
    assert table["dense"] is None
    assert {row["kind"] for row in table["controls"]} == {"uniform"}


def test_a_failed_baseline_whose_repeats_succeed_is_not_compared_with(runner: Runner) -> None:
    settings = config(*BESIDE, trials=4)

    def compute(job: Job, place: Place, watch: Watch) -> bool:
        spec = job.stage.spec.dump()
        if job.stage.kind == "sparse" and not spec["lambda"] and not spec["within"] and not spec["seed"]:
            raise SlimnetError("the loss became nan")
        return instant.compute(job, place, watch)

    study = runner.run(settings, compute=compute)
    assert (study.dense.state, study.ended) == ("failed", True)
    assert {one.state for one in study.contenders if one.kind == "dense"} == {"complete"}
    table = pareto_table(study)
    assert table["dense"] is None
    assert {tuple(row["seeds"]) for row in table["controls"]} == {(0, 1, 2)}
    retry(runner.runs, settings, [])
    assert pareto_table(runner.run(settings))["dense"]["seeds"] == [0, 1, 2]


def test_a_finished_study_gets_its_controls_and_repeats_when_they_are_switched_on(tmp_path: Path) -> None:
    whole = Runner(tmp_path / "whole").run(config(*BESIDE, trials=6))
    runner = Runner(tmp_path / "added")
    before = pareto_table(runner.run(config(trials=6)))
    done = set(runner.computed)
    study = runner.run(config(*BESIDE, trials=6))
    assert beside(study) == beside(whole)
    assert pareto_table(study) == pareto_table(whole) != before
    assert set(runner.computed.values()) == {1}
    assert set(runner.computed) > done
    runner.names.clear()
    assert pareto_table(runner.run(config(trials=6))) == before
    assert runner.names == []


# Failures


def failing(kind: str, ratio: float | None = None) -> Compute:
    """Stages of a kind that fail, all of them or those at a ratio."""

    def compute(job: Job, place: Place, watch: Watch) -> bool:
        spec = job.stage.spec.dump()
        if job.stage.kind == kind and (ratio is None or spec["prune"]["ratio"] == ratio):
            raise SlimnetError("the loss became nan")
        return instant.compute(job, place, watch)

    return compute


def test_a_failed_stage_fails_its_trials_and_the_sweep_goes_on(runner: Runner) -> None:
    settings = config(sampler="grid", trials=8)
    ratio = 0.2  # of the first trials
    study = runner.run(settings, compute=failing("prune", ratio))
    failed = [trial for trial in study.trials if trial.state == "failed"]
    assert failed
    assert {trial.config.prune.ratio for trial in failed} == {ratio}
    assert {trial.reason for trial in failed} == {"prune: the loss became nan"}
    assert len(study.complete) == 8 - len(failed)

    settings = config(sampler="grid", trials=8)
    assert retry(runner.runs, settings, []) == [trial.number for trial in failed]
    again = runner.run(settings)
    assert [trial.state for trial in again.trials] == ["complete"] * 8
    assert points(again) == points(study)
    assert set(runner.computed.values()) == {1}


def test_trials_that_share_a_failed_stage_fail_and_are_retried_together(runner: Runner) -> None:
    study = runner.run(config(trials=8), compute=failing("sparse"))
    assert [trial.state for trial in study.trials] == ["failed"] * 8
    assert study.dense.state == "failed"
    first = study.trials[0]
    together = [t.number for t in study.trials if t.params["sparse.lambda"] == first.params["sparse.lambda"]]
    assert retry(runner.runs, config(trials=8), [first.number]) == together
    with pytest.raises(SlimnetError, match="trial 99 has not failed; failed trials: "):
        retry(runner.runs, config(trials=8), [99])


class Losing(InlineExecutor):
    """Loses the first stages of a kind that it is given, before they have done anything."""

    def __init__(self, compute: Compute, kind: str, times: int) -> None:
        super().__init__(compute)
        self._kind, self._times = kind, times

    def start(self, job: Job) -> str:
        where = super().start(job)
        if job.stage.kind == self._kind and self._times:
            self._times -= 1
            self.kill(job.key)
        return where


def instead(executor: InlineExecutor, _: InlineExecutor) -> InlineExecutor:
    """The first executor, whatever the second."""
    return executor


def stuck(starts: list[str], times: int) -> Compute:
    """Notes which kinds of stages start; the first fine-tunings do nothing until they are ended."""

    def compute(job: Job, place: Place, watch: Watch) -> bool:
        starts.append(job.stage.kind)
        while job.stage.kind == "finetune" and starts.count("finetune") <= times:
            if watch.stop():
                return False
        return instant.compute(job, place, watch)

    return compute


@pytest.mark.parametrize("retries", [0, 3])
def test_a_stage_is_retried_as_often_as_the_config_says(retries: int, tmp_path: Path) -> None:
    settings = config("search.ahead=1", f"retries={retries}", trials=1)
    for times, state in ((retries, "complete"), (retries + 1, "failed")):
        runner = Runner(tmp_path / str(times))
        starts: list[str] = []
        losing = Losing(stuck(starts, times), "finetune", times)
        study = runner.run(settings, wrap=partial(instead, losing))
        assert study.trials[0].state == state


def test_a_lost_stage_goes_on_and_fails_when_it_is_lost_again_and_again(tmp_path: Path) -> None:
    settings = config("search.ahead=1", trials=3)
    for times, expected in ((2, ["complete"] * 3), (3, ["failed", "complete", "complete"])):
        runner = Runner(tmp_path / str(times))
        starts: list[str] = []
        losing = Losing(stuck(starts, times), "finetune", times)
        study = runner.run(settings, wrap=partial(instead, losing))
        assert [trial.state for trial in study.trials] == expected
        reason = study.trials[0].reason
        assert reason is None or reason.startswith("finetune: its thread was told to end")
        assert starts.count("finetune") == times + expected.count("complete")


BAD = {
    "result.json": ["", "{", "{}", "[]", "null", '"text"', '{"metrics": 5}'],
    "failure.json": ["{}", "[]", "5", '{"reason": 5, "detail": ""}'],
    "history.jsonl": ["5\n", "{}\n", '{"epoch": 1}\nnonsense\n', '{"epoch": 2}\n', "", "NaN\n"],
    "spec.json": ["", "[]", '{"kind": "prune"}'],
}


@pytest.mark.parametrize(("name", "content"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_what_is_damaged_is_set_aside_and_computed_again_and_nothing_else(
    name: str, content: str, runner: Runner
) -> None:
    study = runner.run(config(trials=2))
    whole, (first, second) = pareto_table(study), study.trials
    folder = runner.runs / "stages" / "finetune" / first.stages[-1].key
    if name == "failure.json":
        (folder / "result.json").unlink()
    (folder / name).write_text(content)
    assert read_study(runner.runs, config(trials=2)).trials[1].metrics == second.metrics
    runner.computed.clear()

    study = runner.run(config(trials=2))
    assert pareto_table(study) == whole
    assert (folder / f"{name}.damaged").read_text() == content
    assert {computed.split()[0] for computed in runner.computed} <= {first.stages[-1].key}
    assert [row["epoch"] for row in study.trials[0].stages[-1].history] == [1]
    assert read_study(runner.runs, config(trials=2)).damage == ()


@pytest.mark.parametrize("kind", ["sparse", "prune"])
def test_a_complete_trial_whose_earlier_stage_is_damaged_gets_it_back(kind: str, runner: Runner) -> None:
    study = runner.run(config(trials=2))
    whole, stage = pareto_table(study), study.trials[0].first(kind)
    (Store(runner.runs).folder(stage).path / "result.json").write_text("{}")
    assert read_study(runner.runs, config(trials=2)).trials[0].state == "running"
    study = runner.run(config(trials=2))
    assert pareto_table(study) == whole
    assert study.trials[0].first(kind).state == "done"


def test_a_curve_of_a_damaged_network_fails_and_no_finished_trial_with_it(runner: Runner) -> None:
    def compute(job: Job, place: Place, watch: Watch) -> bool:
        if job.stage.kind == "curve":
            raise DamagedInputError("its network is cut short", "parent")
        return instant.compute(job, place, watch)

    study = runner.run(config("curves=true", "search.ahead=1", trials=1), compute=compute, workers=1)
    assert [trial.state for trial in study.trials] == ["complete"]
    assert [curve.failure and curve.failure["reason"] for curve in study.curves.values()] == [
        "its network is cut short"
    ]
    assert study.trials[0].first("sparse").state == "done"
    assert runner.names.count("curve") == 1


@pytest.mark.parametrize("other", ["kind", "key"])
def test_a_result_of_another_stage_is_none(other: str, runner: Runner) -> None:
    study = runner.run(config(trials=2))
    whole, (trial, another) = pareto_table(study), study.trials
    folder = Store(runner.runs).folder(trial.stages[-1])
    foreign = study.dense if other == "kind" else another.stages[-1]
    content = (Store(runner.runs).folder(foreign).path / "result.json").read_text()
    (folder.path / "result.json").write_text(content)
    (said,) = read_study(runner.runs, config(trials=2)).damage
    assert f"its {other} is {getattr(foreign, other)}, not {getattr(trial.stages[-1], other)}" in said
    assert pareto_table(runner.run(config(trials=2))) == whole


def test_a_stage_whose_network_is_damaged_is_computed_again_for_those_that_need_it(tmp_path: Path) -> None:
    blocked: list[str] = []

    def compute(job: Job, place: Place, watch: Watch) -> bool:
        if job.stage.kind == "prune" and len(blocked) < times:
            blocked.append(job.key)
            raise DamagedInputError("its network is cut short", "parent")
        return instant.compute(job, place, watch)

    for times in (1, 2):
        blocked.clear()
        runner = Runner(tmp_path / str(times))
        study = runner.run(config("search.ahead=1", trials=1), compute=compute)
        assert [trial.state for trial in study.trials] == ["complete"]
        sparse = study.trials[0].stages[0]
        assert runner.computed[f"{sparse.key} 1"] == 1 + times
        assert runner.names.count("sparse") == 2 + times  # the dense network too
        assert (Store(runner.runs).folder(sparse).path / "result.json.damaged").exists()

    times = 3
    blocked.clear()
    study = Runner(tmp_path / "always").run(config("search.ahead=1", trials=1), compute=compute)
    assert study.trials[0].reason == "prune: its network is cut short (3 times)"


def test_a_study_of_an_earlier_version_goes_on_under_its_points(runner: Runner) -> None:
    """Its record was the Optuna study alone."""
    runner.optuna = True
    before = runner.run(config(trials=6))
    folder = runner.runs / "smoke"
    uid = json.loads((folder / "study.json").read_text())["uid"]
    for name in ("study.json", "trials.jsonl"):
        (folder / name).unlink()
    assert points(read_study(runner.runs, config(trials=6))) == points(before)
    assert not (folder / "study.json").exists()
    again = runner.run(config(trials=8))
    assert points(again)[:6] == points(before)
    assert again.uid == uid


# Trials that are stopped from their W&B pages


class StopButton(Tracker):
    """The stop button of a trial is pressed as soon as the trial is there."""

    number = 1

    def update(self, study: StudyRecord) -> None:
        self.seen = len(study.trials)

    def stopped(self) -> list[int]:
        if self.seen <= self.number:
            return []
        self.seen = 0
        return [self.number]


def test_a_trial_that_is_stopped_from_its_page_goes_on_in_the_next_run(runner: Runner) -> None:
    settings = config(
        "search.ahead=2", "search.space={prune.ratio: {range: [0.2, 0.8], step: 0.05}}", trials=4
    )

    first = runner.run(settings, workers=1, track=StopButton)

    assert first.trials[1].state == "running"
    assert first.trials[0].state == "complete", "what they share is computed"
    assert not first.ended
    second = runner.run(settings, workers=1)
    assert [trial.state for trial in second.trials] == ["complete"] * 4
    assert set(runner.computed.values()) == {1}


# The end


@pytest.mark.parametrize("patience", [300.0, 0.0])
def test_signals_end_the_wait_for_a_storage_of_trials_that_is_slow(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    monkeypatch.setattr(driver, "UNTOLD", 0.0)
    monkeypatch.setattr(driver, "SIGNALLED", patience)
    told: list[str] = []
    monkeypatch.setattr(Console, "note", lambda self, text: told.append(text))
    interruption, waited = Interruption(), []

    class Slow(NoMirror):
        def close(self, wait_on: Callable[[str], bool] = patiently) -> list[str]:
            waited.append(wait_on("a database"))
            for _ in range(2):
                interruption.note(signal.SIGINT)
                waited.append(wait_on("a database"))
            return []

    runner.run(config(), interruption=interruption, mirror=Slow())
    assert waited == [True, patience > 0, False]
    waiting = [text for text in told if text.startswith("waiting")]
    assert waiting == [
        "waiting for a database, which lacks the last trials; Ctrl-C leaves them to the next run"
    ]


def test_an_executor_that_dies_ends_a_run_with_its_error_but_one_that_was_interrupted_as_such(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Console, "error", lambda self, text: said.append(text))
    interruption = Interruption()

    def dying(executor: InlineExecutor, *signals: int) -> InlineExecutor:
        def poll(timeout: float) -> list[Event]:
            for number in signals:
                interruption.note(number)
            raise ExecutorDiedError("the head has died", "Go on with: this")

        monkeypatch.setattr(executor, "poll", poll)
        return executor

    with pytest.raises(ExecutorDiedError, match=r"^the head has died\. Go on with: this$"):
        runner.run(config(), interruption=interruption, wrap=dying)
    assert said == []
    study = runner.run(
        config(), interruption=interruption, wrap=lambda executor: dying(executor, signal.SIGINT)
    )
    assert not study.ended
    assert said == ["the head has died"], "how to go on is what the interrupted run says last"
