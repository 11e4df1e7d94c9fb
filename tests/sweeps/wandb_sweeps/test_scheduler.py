"""Points from the study's sampler, asked for as `wandb sweep-scheduler` asks, with wandb's own classes."""

from __future__ import annotations

from typing import Any

from wandb.sdk.sweeps.run_state import RunState
from wandb.sdk.sweeps.scheduler.optimizer import Optimizer, Run, RunConfig, RunWithMetrics, make_optimizer
from wandb.sdk.sweeps.sweep_info import SweepInfo

from sweeps.config import load_config
from sweeps.study.sampling import Sampling
from sweeps.wandb_sweeps.definition import definition

SMALL = ["search.trials=6"]
CONDITIONAL = [
    "search.space={sparse.penalty: [l1, proximal], "
    "sparse.lambda: {by: sparse.penalty, l1: [0.01, 0.02], proximal: [0.1, 0.2]}}",
    "search.trials=4",
]


def optimizer(overrides: list[str]) -> Optimizer:
    config = load_config("smoke", overrides)
    arguments = ["smoke", *(word for override in overrides for word in ("--set", override)), "--runs", "runs"]
    sweep = SweepInfo("id", "smoke", "me", "slimnet", definition(config, arguments, scheduled=True), "c")
    return make_optimizer(sweep)


def ask(asked: Optimizer, number: int) -> list[Any]:
    return list(asked.ask_n_runs(number) or [])


def ended(point: dict[str, Any], params: int, state: RunState = RunState.FINISHED) -> RunWithMetrics:
    metrics = {"val_accuracy": 0.8 + params / 1e6, "params": params}
    return RunWithMetrics(RunConfig.from_values(point), state, "run", metrics, [])


def test_the_points_are_those_of_the_study_itself() -> None:
    asked = optimizer(SMALL)
    config = load_config("smoke", [*SMALL, "search.ahead=1"])
    own = Sampling(config.search, config.seed)
    for number in range(6):
        (suggestion,) = ask(asked, 1)
        point = own.ask().params
        assert suggestion.config.flat_dict() == point
        asked.tell_run(suggestion.run_id, ended(point, 1000 * number))
        own.tell(number, (0.8 + number / 1000, 1000.0 * number))


def test_no_more_points_are_given_than_the_goal() -> None:
    asked = optimizer(SMALL)
    points = [suggestion.config.flat_dict() for suggestion in ask(asked, 10)]
    assert len(points) == 6
    assert len({tuple(point.values()) for point in points}) == 6
    assert ask(asked, 1) == []


def test_after_a_restart_earlier_runs_count_and_are_not_repeated() -> None:
    before = [suggestion.config.flat_dict() for suggestion in ask(optimizer(SMALL), 3)]
    again = optimizer(SMALL)
    noted = {"sparse": {"epochs": 2}, "trial": 0}  # what the run has in its config besides
    again.tell_existing_finished_run(ended({**before[0], **noted}, 1000))
    again.tell_existing_finished_run(ended({**before[1], **noted}, 2000, RunState.FAILED))
    run_id = again.tell_existing_active_run(
        Run(RunConfig.from_values({**before[2], **noted}), RunState.RUNNING, "run")
    )
    points = [suggestion.config.flat_dict() for suggestion in ask(again, 10)]
    assert len(points) == 3
    assert not any(point in before for point in points)
    again.tell_run(run_id, ended(before[2], 3000))


def test_a_field_that_goes_by_another() -> None:
    before = [suggestion.config.flat_dict() for suggestion in ask(optimizer(CONDITIONAL), 4)]
    assert sorted((point["sparse.penalty"], point["sparse.lambda"]) for point in before) == [
        ("l1", 0.01),
        ("l1", 0.02),
        ("proximal", 0.1),
        ("proximal", 0.2),
    ]
    again = optimizer(CONDITIONAL)
    for number, point in enumerate(before[::-1][:3]):
        again.tell_existing_finished_run(ended(point, number))
    (last,) = ask(again, 4)
    assert last.config.flat_dict() == before[0]
