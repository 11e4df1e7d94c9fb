"""What tables and fronts are told of a trial, and which network counts as the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from in_memory import InMemory

from sweeps.config import load_config, resolve
from sweeps.records import (
    ContenderKind,
    ContenderRecord,
    Row,
    StageRecord,
    StageState,
    StudyRecord,
    TrialRecord,
    TrialState,
    best_trial,
    epochs_trained,
    smallest_near_dense,
)

METRICS = {"params": 5, "macs": 7, "val_accuracy": 0.5, "test_accuracy": 0.4}
CHAIN = (("sparse", "sparse", 1), ("prune", "prune", 1), ("finetune", "finetune", 1))
TWO_PASSES = (*CHAIN, ("sparse-2", "sparse", 2), ("prune-2", "prune", 2), ("finetune-2", "finetune", 2))


def stage(
    name: str = "sparse",
    kind: str = "sparse",
    pass_number: int = 1,
    *,
    source: InMemory | None = None,
    **metrics: Any,
) -> StageRecord:
    return StageRecord(
        name=name,
        kind=kind,
        key=name,
        spec={"pass_number": pass_number} if pass_number > 1 else {},
        state="done",
        epochs_done=0,
        result={"metrics": METRICS | metrics},
        failure=None,
        source=source or InMemory(),
    )


def trial(
    asked: dict[str, Any],
    history: list[Row] | None = None,
    *,
    number: int = 3,
    chain: tuple[tuple[str, str, int], ...] = CHAIN,
    **metrics: Any,
) -> TrialRecord:
    space = "search.space={sparse.target: [0.5, 0.9], prune.ratio: [0.3, 0.5]}"
    settings = load_config("smoke", [space] if "sparse.target" in asked else [])
    first, *later = chain
    stages = (stage(*first, source=InMemory(history or [])), *(stage(*one, **metrics) for one in later))
    return TrialRecord(number, asked, resolve(settings, asked), "complete", None, stages)


def study(*outcomes: tuple[int, float], dense: tuple[int, float] | None = (100, 0.87)) -> StudyRecord:
    """Trials 0, 1, … with these parameters and validation accuracies."""
    baseline = stage(params=dense[0], val_accuracy=dense[1]) if dense else stage()
    return StudyRecord(
        name="smoke",
        uid="u",
        config=load_config("smoke"),
        goal=len(outcomes),
        dense=baseline if dense else replace(baseline, state="missing", result=None),
        trials=[
            trial({"sparse.lambda": 0.01, "prune.ratio": 0.5}, number=n, params=params, val_accuracy=accuracy)
            for n, (params, accuracy) in enumerate(outcomes)
        ],
        front=[],
    )


def test_a_row_tells_the_lambda_that_steering_reached() -> None:
    asked = {"sparse.target": 0.9, "prune.ratio": 0.5}
    row = trial(asked, [{"lambda": 0.01}, {"lambda": 0.02}]).row()
    assert row == {"trial": 3, "lambda": 0.02, "ratio": 0.5, "sparse.target": 0.9, **METRICS}
    assert trial(asked).strength == 0.0


def test_a_row_tells_the_lambda_asked_for_whatever_its_schedule_ends_with() -> None:
    assert trial({"sparse.lambda": 0.02}, [{"lambda": 0.0}]).row()["lambda"] == 0.02


def test_stages_are_found_by_kind_in_a_chain_of_any_length() -> None:
    record = trial({"sparse.lambda": 0.02}, chain=TWO_PASSES)
    assert [record.first(kind).name for kind in ("sparse", "prune", "finetune")] == [
        "sparse",
        "prune",
        "finetune",
    ]
    assert [record.last(kind).name for kind in ("sparse", "prune", "finetune")] == [
        "sparse-2",
        "prune-2",
        "finetune-2",
    ]
    assert [one.pass_number for one in record.stages] == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("find", [TrialRecord.first, TrialRecord.last])
def test_a_kind_that_the_chain_lacks_is_a_lookup_error(
    find: Callable[[TrialRecord, str], StageRecord],
) -> None:
    with pytest.raises(LookupError, match="trial 3 has no early stage"):
        find(trial({"sparse.lambda": 0.02}), "early")


def test_facts_come_from_the_last_stage_of_the_chain() -> None:
    record = trial({"sparse.lambda": 0.02}, chain=TWO_PASSES)
    last = stage("finetune-2", "finetune", 2, params=2)
    record = replace(record, stages=(*record.stages[:-1], last))
    assert record.row()["params"] == 2


def test_long_parts_are_read_when_asked_for_and_not_kept() -> None:
    source = InMemory([{"epoch": 1}], {"bn": {"counts": [1], "edges": [0, 1]}})
    record = stage(source=source)
    assert record.metrics == METRICS
    assert source.reads == 0
    assert record.history == [{"epoch": 1}]
    source.rows.append({"epoch": 2})
    assert [row["epoch"] for row in record.history] == [1, 2]
    assert list(record.gamma_layers) == ["bn"]
    assert source.reads == 3


@pytest.mark.parametrize("dense", [0.87, 0.869, 0.5, 0.91, 0.1 + 0.2])
def test_exactly_one_point_less_is_near_the_dense_network(dense: float) -> None:
    record = study((50, dense - 0.01), (40, dense - 0.0101), dense=(100, dense))
    assert smallest_near_dense(record) is record.trials[0]
    assert best_trial(record) is record.trials[0]


def test_a_network_that_is_not_smaller_is_never_the_best() -> None:
    record = study((100, 0.9), (120, 0.95))
    assert smallest_near_dense(record) is None
    assert best_trial(record) is None


def test_the_best_is_the_smallest_near_the_dense_one_and_the_more_accurate_of_equals() -> None:
    record = study((60, 0.88), (50, 0.861), (50, 0.865), (40, 0.85))
    assert best_trial(record) is smallest_near_dense(record) is record.trials[2]


def test_without_one_near_the_dense_network_the_most_accurate_smaller_one_is_the_best() -> None:
    record = study((60, 0.8), (50, 0.85), (200, 0.9))
    assert smallest_near_dense(record) is None
    assert best_trial(record) is record.trials[1]


def test_without_a_dense_network_there_is_no_best() -> None:
    assert best_trial(study((60, 0.8), dense=None)) is None


def contender(state: TrialState, kind: ContenderKind = "uniform", number: int | None = 3) -> ContenderRecord:
    return ContenderRecord(kind, number, 1, state, None, (stage(),))


@pytest.mark.parametrize(
    ("states", "goal", "dense", "beside", "ended"),
    [
        (["complete", "failed"], 2, "done", [], True),
        (["complete", "failed"], 2, "failed", [], True),
        (["complete", "failed"], 2, "partial", [], False),
        (["complete", "failed"], 3, "done", [], False),
        (["complete", "running"], 2, "done", [], False),
        (["complete", "failed"], 2, "done", ["complete", "failed"], True),
        (["complete", "failed"], 2, "done", ["complete", "running"], False),
    ],
)
def test_a_study_has_ended_when_nothing_is_left_to_compute(
    states: list[TrialState], goal: int, dense: StageState, beside: list[TrialState], ended: bool
) -> None:
    record = study(*[(50, 0.8)] * len(states))
    record = replace(
        record,
        goal=goal,
        dense=replace(record.dense, state=dense),
        trials=[replace(one, state=state) for one, state in zip(record.trials, states, strict=True)],
        contenders=[contender(state) for state in beside],
    )
    assert record.ended is ended


def test_contenders_have_names_in_words() -> None:
    names = [
        contender("running", "dense", None).name,
        contender("running", "trial", 3).name,
        contender("running", "scratch", 3).name,
    ]
    assert names == [
        "dense network again (seed 1)",
        "trial 3 again (seed 1)",
        "scratch control of trial 3 (seed 1)",
    ]


def test_epochs_of_a_chain_leave_out_what_was_trained_twice() -> None:
    """An early stage repeats epochs of the sparse training; new weights know nothing of either."""
    spec = {"recipe": {"epochs": 5}}
    chain = tuple(replace(stage(kind, kind), spec=spec) for kind in ("sparse", "early", "prune", "finetune"))
    assert epochs_trained(chain) == 10
    assert replace(contender("running", "random"), stages=chain).epochs == 10
    assert replace(contender("running", "scratch"), stages=chain).epochs == 5
