"""Which points a study asks, across interruptions, and what of it can be opened again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from slimnet.errors import SlimnetError
from sweeps.config import Config, load_config
from sweeps.study import Asked, Study, make_study, open_study, reopen_trials

LAMBDAS = [0.001, 0.002, 0.004, 0.008]
SAMPLERS = ["tpe", "nsga2", "random", "grid"]


def config(sampler: str = "tpe", trials: int = 16, **search: Any) -> Config:
    overrides = [
        f"search.sampler={sampler}",
        f"search.trials={trials}",
        f"search.space.sparse.lambda={LAMBDAS}",
        "search.space.prune.ratio={range: [0.3, 0.8], step: 0.1}",
        *(f"search.{key}={value}" for key, value in search.items()),
    ]
    return load_config("smoke", overrides)


def result(trial: Asked) -> dict[str, float]:
    """Metrics that follow from the point, with a front."""
    strength, ratio = trial.params["sparse.lambda"], trial.params["prune.ratio"]
    return {
        "val_accuracy": 0.9 - (ratio - 0.4) ** 2 - strength,
        "params": int(10_000 * (1 - ratio) + strength * 1e5),
    }


def drive(study: Study, settings: Config, goal: int) -> None:
    """Ask and tell as the driver does: results in order, at most `ahead` trials open."""
    while True:
        trials = study.trials()
        running = [trial for trial in trials if trial.state == "running"]
        if len(trials) < goal and len(running) < settings.search.ahead:
            study.ask()
        elif running:
            study.tell(running[0].number, result(running[0]))
        else:
            return


def points(study: Study) -> list[tuple[Any, ...]]:
    return [tuple(trial.params.values()) for trial in study.trials()]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_interrupted_study_asks_what_an_uninterrupted_one_asks(tmp_path: Path, sampler: str) -> None:
    settings = config(sampler)
    (tmp_path / "whole").mkdir()
    whole = make_study(tmp_path / "whole", settings, "float32")
    drive(whole, settings, 16)

    (tmp_path / "parts").mkdir()
    for asks_and_tells in (3, 8, 1, 10, 40):
        study = make_study(tmp_path / "parts", settings, "float32")
        for _ in range(asks_and_tells):
            trials = study.trials()
            running = [trial for trial in trials if trial.state == "running"]
            if len(trials) < 16 and len(running) < settings.search.ahead:
                study.ask()
            elif running:
                study.tell(running[0].number, result(running[0]))

    assert points(study) == points(whole)
    assert [trial.state for trial in study.trials()] == ["complete"] * 16


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_point_is_asked_twice_until_the_space_is_exhausted(tmp_path: Path, sampler: str) -> None:
    settings = config(sampler, trials=24)
    study = make_study(tmp_path, settings, "float32")
    drive(study, settings, 24)

    assert len(set(points(study))) == 24
    with pytest.raises(SlimnetError, match="all 24 points"):
        study.ask()


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_study_rebuilt_after_its_goal_was_raised_asks_the_same_points(tmp_path: Path, sampler: str) -> None:
    settings = config(sampler, trials=18)
    (tmp_path / "raised").mkdir()
    raised = make_study(tmp_path / "raised", settings, "float32")
    for goal in (13, 18):  # at the first goal all results are told before trial 13 is asked
        drive(raised, settings, goal)

    (tmp_path / "rebuilt").mkdir()
    rebuilt = make_study(tmp_path / "rebuilt", settings, "float32")
    drive(rebuilt, settings, 18)

    assert points(rebuilt) == points(raised)


def test_the_sampler_learns_from_results(tmp_path: Path) -> None:
    settings = config("tpe", trials=15)
    sequences = []
    for name, tell in (("good", result), ("flat", lambda trial: {"val_accuracy": 0.5, "params": 1})):
        (tmp_path / name).mkdir()
        study = make_study(tmp_path / name, settings, "float32")
        drive_with(study, settings, 15, tell)
        sequences.append(points(study))
    assert sequences[0][:10] == sequences[1][:10]
    assert sequences[0] != sequences[1]


def drive_with(study: Study, settings: Config, goal: int, tell: Callable[[Asked], dict[str, float]]) -> None:
    for number in range(goal):
        study.ask()
        if number >= settings.search.ahead - 1:
            done = study.trials()[number - settings.search.ahead + 1]
            study.tell(done.number, tell(done))


@pytest.mark.parametrize(
    ("sampler", "given"), [("tpe", 0), ("tpe", 1), ("nsga2", 1), ("random", 1), ("grid", 1)]
)
def test_a_trial_cut_off_before_it_had_its_point_gets_the_same_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, given: int
) -> None:
    settings = config(sampler, ahead=1)
    (tmp_path / "whole").mkdir()
    whole = make_study(tmp_path / "whole", settings, "float32")
    drive(whole, settings, 11)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    expected = whole.ask()

    cut = make_study(tmp_path / "cut", settings, "float32")
    suggest, count = optuna.trial.Trial._suggest, 0

    def die_after(trial: optuna.trial.Trial, name: str, distribution: Any) -> Any:
        nonlocal count
        if count == given:
            raise KeyboardInterrupt
        count += 1
        return suggest(trial, name, distribution)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.trial.Trial, "_suggest", die_after)
        with pytest.raises(KeyboardInterrupt):
            cut.ask()

    again = make_study(tmp_path / "cut", settings, "float32")
    assert len(again.trials()) == 11  # a trial without a point is not there yet
    again.complete_asking()
    assert again.trials()[-1] == expected


def test_failed_trials_are_reopened_under_their_numbers_and_everything_else_stays(tmp_path: Path) -> None:
    settings = config("tpe")
    study = make_study(tmp_path, settings, "bfloat16")
    for _ in range(4):
        study.ask()
    study.tell(0, result(study.trials()[0]))
    study.tell(1, None)
    study.tell(2, None)
    before = study.trials()

    reopen_trials(tmp_path, settings, [2])

    after = open_study(tmp_path, settings)
    assert [trial.params for trial in after.trials()] == [trial.params for trial in before]
    assert [trial.state for trial in after.trials()] == ["complete", "failed", "running", "running"]
    assert (after.uid, after.precision) == (study.uid, "bfloat16")
    after.tell(2, result(after.trials()[2]))
    assert after.trials()[2].state == "complete"


def test_values_come_back_as_the_config_has_them(tmp_path: Path) -> None:
    settings = load_config(
        "smoke",
        [
            "search.sampler=grid",
            "search.trials=12",
            "search.space={model.blocks: [[1], [1, 1]], prune.ratio: {range: [0.1, 0.7], step: 0.2}, "
            "sparse.epochs: {range: [1, 3], step: 2}}",
        ],
    )
    study = make_study(tmp_path, settings, "float32")
    drive_with(study, settings, 12, lambda trial: {"val_accuracy": 0.5, "params": 1})
    trials = open_study(tmp_path, settings).trials()
    assert {trial.params["prune.ratio"] for trial in trials} == {0.1, 0.3, 0.5, 0.7}
    assert {type(trial.params["sparse.epochs"]) for trial in trials} == {int}
    assert {tuple(trial.params["model.blocks"]) for trial in trials} == {(1,), (1, 1)}


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_continuous_spaces_are_sampled_within_their_bounds(tmp_path: Path, sampler: str) -> None:
    settings = config(
        sampler, trials=14, space="{sparse.lambda: {log: [0.001, 0.1]}, prune.ratio: {range: [0.2, 0.9]}}"
    )
    study = make_study(tmp_path, settings, "float32")
    drive(study, settings, 14)
    for trial in study.trials():
        assert 0.001 <= trial.params["sparse.lambda"] <= 0.1
        assert 0.2 <= trial.params["prune.ratio"] <= 0.9


def test_opening_a_study_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(SlimnetError, match=r"study\.db is missing"):
        open_study(tmp_path, config())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"not a database, but long enough to be looked at" * 10, b""])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "study.db").write_bytes(content)
    with pytest.raises(SlimnetError, match=r"study\.db .* move it away"):
        make_study(tmp_path, config(), "float32")


def test_a_half_written_study_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "study.db.new").write_bytes(b"half")
    assert make_study(tmp_path, config(), "float32").trials() == []
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_another_precision_or_other_data_are_refused(tmp_path: Path) -> None:
    make_study(tmp_path, config(), "float32")
    make_study(tmp_path, config().model_copy(update={"precision": "float32"}), "bfloat16")
    with pytest.raises(SlimnetError, match="precision is bfloat16, but the study smoke was begun in float32"):
        make_study(tmp_path, config().model_copy(update={"precision": "bfloat16"}), "bfloat16")
    other = config().model_copy(update={"data": config().data.model_copy(update={"name": "fashion-mnist"})})
    with pytest.raises(SlimnetError, match="data of fashion-mnist have changed"):
        make_study(tmp_path, other, "float32")
