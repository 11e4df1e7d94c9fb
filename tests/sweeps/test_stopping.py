"""Trials that are stopped early: by which rule, and that the same ones are in every run of a study."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pytest
from test_driver import SAMPLERS, Runner, Stopping, config, failing, points, retry

from benchmarks import instant
from benchmarks.lockstep import Lockstep
from sweeps import stopping
from sweeps.cli.show import status_command
from sweeps.config import Config, ConfigError, Search, load_config
from sweeps.outputs import pareto_table
from sweeps.records import StudyRecord
from sweeps.report.summary import epochs_saved, how_far
from sweeps.stages import Stage, Store
from sweeps.state import read_study
from sweeps.stopping import Course, Yardstick
from sweeps.study import check_config, keep_config
from sweeps.telling import objective_values

# The rule

WHOLE = {"params": 100_000, "macs": 1_000_000, "val_accuracy": 0.9}


def search(**changes: Any) -> Search:
    return load_config("smoke").search.model_copy(update={"stopping": 0.001, **changes})


def course(*accuracies: float, epochs: int = 4) -> Course:
    """From right after pruning on."""
    return Course(epochs, dict(enumerate(accuracies)))


def facts(params: int, accuracy: float | None = None) -> dict[str, Any]:
    size = {"params": params, "macs": 10 * params}
    return size if accuracy is None else {**size, "val_accuracy": accuracy}


@pytest.fixture
def one_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single finished trial shows what can be gained."""
    monkeypatch.setattr(stopping, "FEWEST", 1)


@pytest.fixture
def yardstick(one_is_enough: None) -> Yardstick:
    """Of two finished trials, with 10,000 and 40,000 parameters."""
    first = Yardstick(search()).with_trial(3, facts(10_000, 0.7), WHOLE, course(0.3, 0.5, 0.6, 0.65, 0.7))
    return first.with_trial(5, facts(40_000, 0.8), WHOLE, course(0.6, 0.7, 0.72, 0.75, 0.8))


def test_a_trial_is_stopped_when_even_the_best_gain_would_leave_it_behind_another(
    yardstick: Yardstick,
) -> None:
    assert yardstick.judge(facts(50_000), course(0.41), 0) is None  # up to 0.81
    stop = yardstick.judge(facts(50_000), course(0.39), 0)
    assert stop is not None
    assert stop.epoch == 0
    assert stop.reason == (
        "39.0% right after pruning; at best 79.0%, as trial 3 gained 40.0 points from there, which at 50,000 "
        "params adds 0.00% to the front of trials 3, 5"
    )
    assert yardstick.judge(facts(50_000), course(0.39, 0.61), 1) is None
    later = yardstick.judge(facts(50_000), course(0.39, 0.61, 0.65), 2)
    assert later is not None
    assert later.reason.startswith(
        "65.0% after epoch 2 of 4; at best 75.0%, as trial 3 gained 10.0 points from there"
    )


def test_a_point_of_the_front_is_stopped_when_it_adds_next_to_nothing(yardstick: Yardstick) -> None:
    """A network of 100 parameters may be on the front for ever, and useless."""
    stop = yardstick.judge(facts(9_900), course(0.6, 0.6, 0.6, 0.648), 3)
    assert stop is None, "up to 0.698 with fewer parameters than any"
    tiny = yardstick.judge(facts(9_900), course(0.1, 0.1, 0.1, 0.1), 3)
    assert tiny is not None
    assert "at best 15.0%" in tiny.reason


def test_epsilon_is_a_fraction_of_the_hypervolume(yardstick: Yardstick) -> None:
    # The front covers 0.7 x 90,000 + 0.1 x 60,000 = 69,000; a point of 40,000 at 0.85 adds 0.05 x 60,000.
    assert yardstick.judge(facts(40_000), course(0.6, 0.7, 0.7, 0.8), 3) is None
    for least, is_stopped in ((3000 / 69_000 + 1e-6, True), (3000 / 69_000 - 1e-6, False)):
        other = Yardstick(search(stopping=least))
        other = other.with_trial(3, facts(10_000, 0.7), WHOLE, course(0.3, 0.5, 0.6, 0.65, 0.7))
        other = other.with_trial(5, facts(40_000, 0.8), WHOLE, course(0.6, 0.7, 0.72, 0.75, 0.8))
        stop = other.judge(facts(40_000), course(0.6, 0.7, 0.7, 0.8), 3)
        assert (stop is not None) == is_stopped


def test_what_finished_trials_cannot_tell_yet_stops_no_trial(
    yardstick: Yardstick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "FEWEST", 3)
    assert Yardstick(search()).judge(facts(99_000), course(0.1), 0) is None
    longer = course(0.1, 0.1, 0.1, 0.1, epochs=8)
    assert yardstick.judge(facts(50_000), longer, 3) is None, "none was trained for so long"
    assert yardstick.judge(facts(100_000), longer, 0) is not None, "it is as large as the dense network"
    later = Yardstick(search())
    for number in range(3):
        assert later.judge(facts(50_000), course(0.1), 0) is None
        later = later.with_trial(number, facts(10_000, 0.7), WHOLE, course(0.3, 0.5, 0.6, 0.65, 0.7))
    assert later.judge(facts(50_000), course(0.1), 0) is not None


def test_a_trial_that_cannot_meet_the_constraints_is_stopped(one_is_enough: None) -> None:
    limited = Yardstick(search(constraints={"params": "<= 20000", "val_accuracy": ">= 0.75"}))
    small = limited.judge(facts(30_000), course(0.7), 0)
    assert small is not None
    assert "at 30,000 params cannot meet search.constraints" in small.reason
    assert limited.judge(facts(19_000), course(0.2), 0) is None
    known = limited.with_trial(0, facts(10_000, 0.76), WHOLE, course(0.5, 0.6, 0.7, 0.74, 0.76))
    assert known.judge(facts(5_000), course(0.5, 0.6, 0.7, 0.72), 3) is not None
    assert known.judge(facts(5_000), course(0.5, 0.6, 0.7, 0.74), 3) is None


# In a study

STOPPING = ("search.stopping=0.001", "finetune.epochs=8")


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "runs")


def ends(study: StudyRecord) -> list[tuple[Any, ...]]:
    return [(trial.state, trial.stop) for trial in study.trials]


def judging(sampler: str = "random", trials: int = 20) -> Config:
    return config(*STOPPING, sampler=sampler, trials=trials)


def test_without_the_setting_no_trial_is_stopped(runner: Runner) -> None:
    study = runner.run(config("finetune.epochs=8", "search.stopping=null"))
    assert (study.stopped, study.epochs_saved, epochs_saved(study)) == ([], 0, "")
    lines = (runner.runs / "smoke" / "ends.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"trial": n, "stop": None} for n in range(12)]


def test_the_setting_may_be_changed_and_applies_to_trials_that_have_not_ended(runner: Runner) -> None:
    off = config("finetune.epochs=8", trials=16)
    check_config(runner.runs / "smoke", off)
    before = runner.run(off)
    keep_config(runner.runs / "smoke", off)
    on = check_config(runner.runs / "smoke", judging(trials=30))
    after = runner.run(on)
    assert [trial.state for trial in after.trials[:16]] == ["complete"] * 16
    assert ends(after)[:16] == ends(before)
    assert after.stopped
    again = runner.run(config("finetune.epochs=8", trials=30))
    assert ends(again) == ends(after)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_go_two_halves_and_any_number_of_workers_stop_the_same(tmp_path: Path, sampler: str) -> None:
    whole = Runner(tmp_path / "whole").run(judging(sampler))
    assert len(whole.stopped) >= 3
    assert len(whole.complete) + len(whole.stopped) == 20
    halves = Runner(tmp_path / "halves")
    halves.run(judging(sampler, trials=9), workers=1)
    again = halves.run(judging(sampler), workers=4)
    assert (points(again), ends(again)) == (points(whole), ends(whole))
    assert pareto_table(again) == pareto_table(whole)
    assert set(halves.computed.values()) == {1}
    assert ends(read_study(halves.runs, judging(sampler))) == ends(whole)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], StudyRecord]:
    """The study of 14 trials that nothing disturbs, by its sampler."""
    return cache(lambda sampler: Runner(tmp_path_factory.mktemp(sampler)).run(judging(sampler, trials=14)))


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
@pytest.mark.parametrize("signals", [1, 2])
@pytest.mark.parametrize("forgets", [False, True])
def test_interrupted_again_and_again_a_sweep_stops_the_same(
    tmp_path: Path, undisturbed: Callable[[str], StudyRecord], sampler: str, signals: int, forgets: bool
) -> None:
    whole = undisturbed(sampler)
    runner = Runner(tmp_path / "parts")
    study, rounds = None, 0
    while study is None or not study.ended:
        moment = len(runner.computed) + 3
        study = runner.run(
            judging(sampler, trials=14),
            interruption=Stopping(runner, *[moment] * signals),
            workers=1 + rounds % 2,
        )
        rounds += 1
        if forgets:  # what a driver that was killed had no time to write
            path = runner.runs / "smoke" / "ends.jsonl"
            path.write_bytes(path.read_bytes()[: -5 * (rounds % 3)] if rounds % 3 else path.read_bytes())
    assert rounds > 5
    assert (points(study), ends(study)) == (points(whole), ends(whole))
    assert pareto_table(study) == pareto_table(whole)
    assert set(runner.computed.values()) == {1}


def test_a_study_without_its_record_is_rebuilt_with_the_same_ends(runner: Runner) -> None:
    before = runner.run(judging("tpe"))
    for name in ("study.json", "trials.jsonl", "ends.jsonl"):
        (runner.runs / "smoke" / name).unlink()
    runner.names.clear()
    again = runner.run(judging("tpe"))
    assert (points(again), ends(again)) == (points(before), ends(before))
    assert runner.names == []


def test_a_failed_trial_that_succeeds_later_changes_no_end(runner: Runner) -> None:
    ratio = runner.run(judging(trials=1)).trials[0].config.prune.ratio
    other = Runner(runner.runs.with_name("other"))
    before = other.run(judging(), compute=failing("prune", ratio))
    numbers = retry(other.runs, judging(), [])
    assert 0 in numbers
    assert before.stopped
    after = other.run(judging())
    for old, new in zip(before.trials, after.trials, strict=True):
        assert new.state in ("complete", "stopped")
        assert old.state == "failed" or (new.state, new.stop) == (old.state, old.stop)


def test_without_ends_as_in_a_study_of_an_earlier_version_all_trials_go_to_their_end(runner: Runner) -> None:
    before = runner.run(judging())
    assert before.stopped
    (runner.runs / "smoke" / "ends.jsonl").unlink()
    assert not read_study(runner.runs, judging()).stopped
    study = runner.run(judging())
    assert [trial.state for trial in study.trials] == ["complete"] * 20
    assert set(runner.computed.values()) == {1}
    assert runner.run(judging(trials=24)).stopped, "later ones are judged"


# Scripted accuracies

Script = Mapping[float, Sequence[float]]  # by the ratio: right after pruning, and after each epoch


def follow(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have instant stages follow a script, whose first trial shows what can be gained."""
    monkeypatch.setattr(stopping, "FEWEST", 1)
    metrics, row = instant.metrics_of, instant._row

    def course_of(stage: Stage) -> Sequence[float]:
        while stage.kind != "prune":
            stage = stage.inputs["parent"]
        return script[stage.spec.dump()["prune"]["ratio"]]

    def scripted_metrics(stage: Stage) -> dict[str, Any]:
        found = metrics(stage)
        if stage.kind in ("prune", "finetune"):
            found["val_accuracy"] = course_of(stage)[0 if stage.kind == "prune" else -1]
        return found

    def scripted_row(stage: Stage, epoch: int, accuracy: float) -> dict[str, Any]:
        made = row(stage, epoch, accuracy)
        return made | {"val_accuracy": course_of(stage)[epoch]} if stage.kind == "finetune" else made

    monkeypatch.setattr(instant, "metrics_of", scripted_metrics)
    monkeypatch.setattr(instant, "_row", scripted_row)


SHARED = (
    "search.space={sparse.lambda: [0, 0.005], sparse.penalty: [l1, proximal], prune.ratio: [0.5, 0.2, 0.8]}",
    *("search.ahead=1", "search.stopping=0.001", "finetune.epochs=2"),
)
SCRIPT = {0.5: (0.7, 0.8, 0.8), 0.2: (0.75, 0.7, 0.9), 0.8: (0.1, 0.3, 0.75)}


def test_a_stage_that_was_stopped_for_one_trial_goes_on_for_another(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a penalty, both penalties are the same; trial 2 shows trial 4 what trial 1 could not know."""
    follow(SCRIPT, monkeypatch)
    lockstep = Lockstep(instant.compute, workers=2)
    settings = config(*SHARED, sampler="grid", trials=6)
    study = runner.run(settings, wrap=lambda _: lockstep)
    first, second = study.trials[1], study.trials[4]
    assert first.stages[-1].key == second.stages[-1].key
    assert [trial.state for trial in study.trials] == ["complete", "stopped", *["complete"] * 4]
    assert first.stop is not None
    assert first.reason == first.stop.reason
    assert first.reason.startswith(
        "70.0% after epoch 1 of 2; at best 70.0%, as trial 0 gained 0.0 points from there"
    )
    assert (first.metrics, len(first.stages[-1].history)) == ({}, 1)
    assert (second.metrics["val_accuracy"], len(second.stages[-1].history)) == (0.9, 2)
    assert 4 in study.front
    assert study.epochs_saved == 0, "the other trial has trained them"
    assert lockstep.killed == [first.stages[-1].key]
    assert pareto_table(read_study(runner.runs, settings)) == pareto_table(study)


def test_no_epoch_is_begun_once_a_trial_is_stopped(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(SCRIPT, monkeypatch)
    study = runner.run(config(*SHARED, sampler="grid", trials=3), wrap=lambda _: Lockstep(instant.compute))
    (stopped,) = study.stopped
    assert stopped.stop is not None
    assert stopped.stop.epoch == 1
    assert Store(runner.runs).folder(stopped.stages[-1]).epochs_done() == 1
    assert study.epochs_saved == 1
    assert epochs_saved(study) == "1 trial was stopped early, which saved 1 of 8 epochs of the trials"
    assert how_far(study) == "2 of 3 trials complete, 1 stopped early"


def test_a_trial_that_is_stopped_right_after_pruning_is_not_trained(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow({**SCRIPT, 0.2: (0.6, 0.7, 0.9)}, monkeypatch)
    study = runner.run(config(*SHARED, sampler="grid", trials=3))
    (stopped,) = study.stopped
    assert stopped.stop is not None
    assert stopped.stop.epoch == 0
    assert Store(runner.runs).folder(stopped.stages[-1]).state() == "missing"
    assert (stopped.stages[-1].state, study.epochs_saved) == ("missing", 2)


def test_accuracies_that_are_not_measured_are_not_judged(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(SCRIPT, monkeypatch)
    row = instant._row

    def second_only(stage: Stage, epoch: int, accuracy: float) -> dict[str, Any]:
        made = row(stage, epoch, accuracy)
        return made if epoch == 2 else {key: made[key] for key in made if key != "val_accuracy"}

    monkeypatch.setattr(instant, "_row", second_only)
    assert not runner.run(config(*SHARED, sampler="grid", trials=3)).stopped


# What others see of it


def test_optuna_has_it_as_pruned_with_the_reason_and_the_sampler_an_estimate(runner: Runner) -> None:
    runner.optuna = True
    study = runner.run(judging("tpe"))
    found = optuna.load_study(study_name="smoke", storage=f"sqlite:///{runner.runs / 'smoke' / 'study.db'}")
    for trial in study.stopped:
        stored = found.trials[trial.number]
        assert (stored.state.name, stored.values) == ("PRUNED", None)
        assert stored.user_attrs["reason"] == trial.reason
        values = objective_values(trial)
        assert trial.stop is not None
        assert values == (trial.stop.estimate["val_accuracy"], trial.stop.estimate["params"])
    assert {t.number for t in found.trials if t.state.name == "PRUNED"} == {t.number for t in study.stopped}
    runner.run(judging("tpe"))
    assert not list((runner.runs / "smoke").glob("study.db.old*")), "it is as the record says"


def test_status_tells_what_was_stopped_and_why(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    follow(SCRIPT, monkeypatch)
    settings = config(*SHARED, sampler="grid", trials=3)
    study = runner.run(settings)
    (runner.runs / "smoke" / "config.yaml").write_text(
        json.dumps(settings.model_dump(mode="json", by_alias=True))
    )
    status_command(str(runner.runs / "smoke" / "config.yaml"), runs=runner.runs, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["epochs_saved"] == study.epochs_saved
    assert [row["state"] for row in told["trials"]] == ["complete", "stopped", "complete"]
    assert told["trials"][1]["reason"] == study.trials[1].reason


def test_it_is_refused_where_sizes_are_known_too_late() -> None:
    judged = "search.objectives={val_accuracy: maximize, latency_ms: minimize}"
    assert config(judged).search.stopping is None
    with pytest.raises(
        ConfigError, match=r"search\.stopping is 0\.001, but latency_ms is known only when a trial"
    ):
        config(judged, "search.stopping=0.001")


def test_damaged_ends_are_named(runner: Runner) -> None:
    runner.run(judging())
    path = runner.runs / "smoke" / "ends.jsonl"
    path.write_text("{}\n")
    with pytest.raises(
        Exception, match=r"ends\.jsonl is damaged .*; move it away, and the next `run` trains"
    ):
        read_study(runner.runs, judging())
