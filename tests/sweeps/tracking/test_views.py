"""What W&B is to show of a study, without wandb."""

from __future__ import annotations

from dataclasses import replace

import pytest
from in_memory import InMemory
from tracked import GAMMA, UID, contender, failed, run_id, stage, study, trial

from sweeps.outputs import pareto_table
from sweeps.records import ContenderKind, ContenderRecord, StudyRecord
from sweeps.tracking.study_view import study_views
from sweeps.tracking.views import Histogram, Row, RunView, Table, trial_view


def view_of(record: StudyRecord, name: int | str) -> RunView:
    return next(view for view in study_views(record) if view.id == run_id(name))


def rows(record: StudyRecord, name: int | str, start: int = 0) -> dict[int, Row]:
    return dict(view_of(record, name).rows(start))


def test_a_trial_has_one_row_per_epoch_and_one_for_pruning() -> None:
    chain = rows(study(trial(0)), 0)

    assert list(chain) == [0, 1, 2, 3, 4, 5]
    assert [chain[step]["sparse/epoch"] for step in (0, 1, 2)] == [1, 2, 3]
    assert [chain[step]["finetune/epoch"] for step in (4, 5)] == [1, 2]
    assert {key for key in chain[3] if key.startswith("prune/")} == {
        "prune/params",
        "prune/macs",
        "prune/val_accuracy",
        "prune/test_accuracy",
    }
    assert {key for key in chain[3] if key.startswith("gamma_layers/")} == {
        "gamma_layers/stem.bn",
        "gamma_layers/layers.0.bn1",
    }
    assert chain[0]["sparse/gamma"] == Histogram([3, 2, 1], [0.0, 0.1, 0.2, 0.3])
    assert "sparse/epochs" not in chain[0]


def test_rows_can_be_taken_up_at_any_step() -> None:
    whole = rows(study(trial(0)), 0)
    for start in range(8):
        assert rows(study(trial(0)), 0, start) == {step: row for step, row in whole.items() if step >= start}


def test_a_row_keeps_its_step_as_the_trial_goes_on() -> None:
    whole = rows(study(trial(0)), 0)
    for unfinished in (trial(0, 1, False, 0), trial(0, True, False, 0), trial(0, True, True, 1)):
        part = rows(study(unfinished), 0)
        assert part == {step: whole[step] for step in part}


def test_a_mark_changes_with_every_epoch_and_every_end() -> None:
    one, two = trial(0, 1, False, 0), trial(0, 2, False, 0)
    states = [one, two, trial(0), failed(two, "NaN loss")]
    marks = [view_of(study(state), 0).mark for state in states]

    assert len(set(marks)) == len(marks)
    assert marks == [view_of(study(state), 0).mark for state in states]


def test_a_diverged_network_has_no_histogram() -> None:
    broken = stage("sparse", 1)
    broken.history[0]["gamma"] = {"counts": [0], "edges": [float("nan"), float("nan")]}
    record = trial(0, 1, False, 0)
    record = replace(record, stages=(broken, *record.stages[1:]))

    assert "sparse/gamma" not in rows(study(record), 0)[0]


def test_a_trial_that_has_not_begun_waits() -> None:
    assert view_of(study(trial(0, False, False, False)), 0).state == "waiting"


def test_the_study_shows_its_front_and_how_it_stands() -> None:
    record = study(trial(0), trial(1), failed(trial(2, 1, False, 0), "NaN loss"))
    view = view_of(record, "study")
    tables = view.summary

    assert view.state == "complete"
    assert view.summary["failed"] == 1
    assert view.summary["best_val_accuracy"] == 0.8
    assert view.summary["smallest_params_near_dense"] == 800
    assert [row[0] for row in tables["trials"].data] == [0, 1]
    assert [row[0] for row in tables["front"].data] == [1, 0]  # by size
    assert len(tables["front_chart"].data) == 3
    assert tables["not_complete"].data == [[2, "failed", "NaN loss"]]


def test_the_study_shows_the_scaling_factors_for_three_of_its_strengths() -> None:
    record = study(*map(trial, range(5)), goal=5)
    summary = view_of(record, "study").summary
    shown = {name: value for name, value in summary.items() if name.startswith("gamma/")}
    assert shown == dict.fromkeys(("gamma/0.01", "gamma/0.03", "gamma/0.05"), Histogram(**GAMMA))


def test_a_trial_of_the_front_shows_what_was_measured_after_it() -> None:
    rows = [{"ratio": 0.5, "copied": 0.3, "absorbed": 0.4, "recalibrated": 0.5}]
    record = study(trial(0), trial(1), goal=2)
    curve = replace(stage("curve", True), result={"metrics": {"curve": rows}})
    plain = trial_view(record, record.trials[1])
    shown = trial_view(
        replace(record, curves={trial(1).first("sparse").key: curve}), record.trials[1], "best"
    )
    assert "pruned_at_every_ratio" not in plain.summary
    assert shown.summary["pruned_at_every_ratio"] == Table(list(rows[0]), [[0.5, 0.3, 0.4, 0.5]])
    assert shown.tags == (*plain.tags, "front", "best")
    assert shown.mark.startswith(f"{plain.mark}+best-")


def test_a_trial_shows_its_widths_before_and_after() -> None:
    sparse, cut, tuned = trial(0).stages
    metrics = cut.metrics | {"layers": {"conv1": [16, 9], "conv2": [32, 32]}, "kept": 41, "prunable": 48}
    widths = replace(cut, result={"metrics": metrics, "seconds": 1.0})
    record = study(replace(trial(0), stages=(sparse, widths, tuned)))
    summary = trial_view(record, record.trials[0]).summary
    assert summary["widths"] == Table(["layer", "before", "after"], [["conv1", 16, 9], ["conv2", 32, 32]])
    assert [list(bars.y) for bars in summary["widths_chart"].data] == [[16, 32], [9, 32]]
    assert (summary["kept"], summary["prunable"]) == (41, 48)
    assert summary["difference"] == pytest.approx(0.0)
    assert summary["times_smaller"] == pytest.approx(2000 / 900)
    assert summary["sparse/val_accuracy"] == {"max": 0.8, "last": 0.8}


CONTENDERS = (
    contender("uniform", 1, 0),
    contender("dense", None, 1),
    contender("trial", 1, 1),
    contender("uniform", 1, 1, 2),
    contender("random", 0, 0, False),
    contender("scratch", 0, 0, 1, failure="sparse: NaN loss"),
)


def test_controls_and_repeats_have_runs_of_their_own_before_that_of_the_study() -> None:
    record = study(trial(0), trial(1), goal=2, contenders=CONTENDERS)
    views = study_views(record)
    about = ["uniform-1-0", "dense-all-1", "trial-1-1", "uniform-1-1", "random-0-0", "scratch-0-0"]
    names: list[int | str] = ["dense", 0, 1, *about, "study"]
    assert [view.id for view in views] == [run_id(name) for name in names]
    beside = views[3:-1]
    assert [view.name for view in beside] == [one.name for one in CONTENDERS]
    assert [view.job_type for view in beside] == [
        "control",
        "repeat",
        "repeat",
        "control",
        "control",
        "control",
    ]
    assert [view.state for view in beside] == [
        "complete",
        "complete",
        "complete",
        "running",
        "waiting",
        "failed",
    ]
    assert {(view.group, view.epoch_axes) for view in beside} == {("smoke", ("sparse",))}
    facts = {"params": 700, "macs": 5000, "val_accuracy": 0.7, "test_accuracy": 0.79}
    assert beside[0].summary == {"state": "complete", "reason": None, "seconds": 1.0, "epochs": 3, **facts}
    assert beside[5].summary == {
        "state": "failed",
        "reason": "sparse: NaN loss",
        "seconds": 1.0,
        "epochs": 3,
    }


def test_a_control_tells_whose_it_is_and_has_the_config_of_its_trial() -> None:
    record = study(trial(0), trial(1), contenders=CONTENDERS)
    of_trial, of_dense = (view_of(record, name).config for name in ("uniform-1-1", "dense-all-1"))
    assert (of_trial["kind"], of_trial["trial"], of_trial["seed"]) == ("uniform", 1, 1)
    assert of_trial["sparse"]["lambda"] == record.trials[1].config.sparse.lambda_
    assert (of_dense["kind"], of_dense["trial"], of_dense["seed"]) == ("dense", None, 1)


def test_every_run_names_its_study_which_may_share_its_name_with_others() -> None:
    views = study_views(study(trial(0), contenders=[contender("uniform", 0, 0)]))
    assert [view.config["study_uid"] for view in views] == [UID] * 4


def test_a_control_has_a_row_per_epoch_that_keeps_its_step() -> None:
    record = study(trial(0), trial(1), contenders=CONTENDERS)
    whole = rows(record, "uniform-1-0")
    assert [row["sparse/epoch"] for row in whole.values()] == [1, 2, 3]
    assert list(whole) == [0, 1, 2]
    part = rows(record, "uniform-1-1")
    assert part == {step: whole[step] for step in (0, 1)}
    assert rows(record, "random-0-0") == {}


def test_the_epochs_of_a_control_from_scratch_are_its_own() -> None:
    of = replace(contender("scratch", 0, 0), stages=trial(0).stages)
    random = replace(contender("random", 0, 0), stages=trial(0).stages)
    record = study(trial(0), contenders=[of, random])
    assert view_of(record, "scratch-0-0").summary["epochs"] == 2
    assert view_of(record, "random-0-0").summary["epochs"] == 3 + 2


def test_the_study_has_ended_when_its_controls_have_and_shows_them() -> None:
    two, running = (trial(0), trial(1)), contender("uniform", 1, 0, 2)
    before = study(*two, goal=2)
    middle = study(*two, goal=2, contenders=[contender("uniform", 0, 0), running])
    after = study(*two, goal=2, contenders=[contender("uniform", 0, 0), contender("uniform", 1, 0)])
    more = study(*two, trial(2), goal=4)
    assert [view_of(record, "study").state for record in (before, middle, after, more)] == [
        "complete",
        "running",
        "complete",
        "running",
    ]
    assert len({view_of(record, "study").mark for record in (before, middle, after, more)}) == 4
    assert view_of(before, "study").summary["controls"].data == []
    shown = view_of(after, "study").summary
    columns, cells = shown["controls"].columns, shown["controls"].data
    assert [dict(zip(columns, row, strict=True))["trial"] for row in cells] == [0, 1]
    assert all(isinstance(cell, int | float | str | None) for row in cells for cell in row)
    assert {"kind", "params", "epochs", "seeds", "val_accuracy_mean", "val_accuracy_se"} <= set(columns)
    assert {"epochs", "seeds", "test_accuracy_mean"} <= set(shown["front"].columns)
    traces = {trace.name: trace for trace in shown["front_chart"].data}
    assert traces.keys() == {"trials", "front", "uniform control", "dense"}
    assert list(traces["uniform control"].y) == [0.7, 0.7]


def test_means_over_seeds_have_their_errors_in_the_chart_of_the_front() -> None:
    record = study(trial(0), trial(1), goal=2, contenders=[contender("trial", 0, 1)])
    chart = view_of(record, "study").summary["front_chart"]
    (repeated,) = (trace for trace in chart.data if trace.name == "front, mean over seeds")
    assert list(repeated.y) == [pytest.approx((0.8 + 0.71) / 2)]
    assert list(repeated.error_y.array) == [pytest.approx((0.8 - 0.71) / 2, abs=0.05)]


def test_controls_that_are_tried_again_taken_back_or_exchanged_change_the_run_of_the_study() -> None:
    ended = contender("uniform", 0, 0)
    besides = [
        [ended, contender("uniform", 0, 1, 1, failure="sparse: NaN loss")],
        [ended, contender("uniform", 0, 1, 1)],
        [ended, contender("uniform", 0, 1)],
        [ended],
        [contender("scratch", 0, 0)],
        [],
    ]
    records = [study(trial(0), goal=1, contenders=beside) for beside in besides]
    assert len({view_of(record, "study").mark for record in records}) == len(records)
    table = view_of(records[2], "study").summary["controls"]
    assert dict(zip(table.columns, table.data[0], strict=True))["seeds"] == 2


def test_the_study_has_a_row_per_complete_trial_that_later_ones_do_not_change() -> None:
    """So that its history is the same however often it was interrupted, online and offline."""
    first, second, third = trial(0), failed(trial(1, 1, False, 0), "NaN loss"), trial(2)
    whole = rows(study(first, second, third), "study")
    assert list(whole) == [0, 2]
    assert rows(study(first), "study") == {0: whole[0]}
    assert rows(study(first, trial(1, 2, False, 0), third), "study") == {0: whole[0]}, "trial 1 comes first"
    assert rows(study(first, second, third), "study", start=1) == {2: whole[2]}
    assert rows(study(first, dense=2), "study") == {}, "the volume is bounded by the dense network"
    assert [row["trial"] for row in whole.values()] == [0, 2]
    assert third.first("sparse").key == first.first("sparse").key, "which is trained once"
    assert [row["epochs"] for row in whole.values()] == [3 + 3 + 2, 3 + 3 + 2 + 2]
    assert whole[0]["hypervolume"] == pytest.approx(0.8 * (2000 - 900) / 2000)
    assert whole[2]["hypervolume"] == pytest.approx(pareto_table(study(first, second, third))["hypervolume"])


def test_a_view_knows_how_many_rows_it_has_before_a_step() -> None:
    record = study(
        trial(0),
        trial(1, 2, False, 0),
        failed(trial(2, True, True, 1), "killed"),
        trial(3, second_pass=(True, True, 1)),
        contenders=[contender("uniform", 0, 0, 2)],
    )
    for view in study_views(record):
        steps = [step for step, _ in view.rows(0)]
        assert view.count_rows(None) == len(steps)
        for step in range(14):
            assert view.count_rows(step) == sum(own < step for own in steps)


def test_rows_carry_the_time_of_their_epoch_and_the_run_the_seconds_of_its_training() -> None:
    sparse, prune, tuned = trial(0).stages
    sparse = replace(sparse, source=InMemory(sparse.history, {}, [10.0, 20.0, 30.0]))
    cut = replace(prune, result={**(prune.result or {}), "ended": 31.0})
    record = study(replace(trial(0), stages=(sparse, cut, tuned)))

    times = [row.get("_timestamp") for row in rows(record, 0).values()]

    assert times == [10.0, 20.0, 30.0, 31.0, None, None], "older stages do not say"
    assert rows(record, 0, start=1)[1]["_timestamp"] == 20.0
    view = view_of(record, 0)
    assert view.seconds == view.summary["seconds"] == 3.0


def test_what_was_searched_and_the_size_have_names_of_their_own() -> None:
    view = view_of(study(trial(0)), 0)
    assert view.config["searched"] == {"sparse.lambda": 0.01, "prune.ratio": 0.7}
    assert view.summary["params"] == 900
    assert not view.config.keys() & view.summary.keys() - {"trial"}


def test_a_trial_may_lack_a_field_that_another_searches() -> None:
    first, second = trial(0), trial(1)
    second = replace(second, params={**second.params, "sparse.target": 0.5})
    for record in (study(first, second), study(second, first)):
        told = view_of(record, "study").summary["trials"]
        at = told.columns.index("sparse.target")
        assert {row[0]: row[at] for row in told.data} == {0: None, 1: 0.5}


def test_the_histograms_at_a_cut_are_those_of_sparse_training_not_of_early_epochs() -> None:
    sparse, prune, tuned = trial(0).stages
    early = replace(
        stage("sparse", True), name="early", kind="early", source=InMemory(stage("sparse", 2).history, {})
    )
    chain = rows(study(replace(trial(0), stages=(sparse, early, prune, tuned))), 0)
    (cut,) = (row for row in chain.values() if "prune/params" in row)
    assert {"gamma_layers/stem.bn", "gamma_layers/layers.0.bn1"} <= cut.keys()


TWO_PASSES = (True, True, True)


def test_a_second_pass_follows_the_first_under_the_names_of_its_stages() -> None:
    chain = rows(study(trial(0, second_pass=TWO_PASSES)), 0)

    assert list(chain) == list(range(12))
    assert {step: row for step, row in chain.items() if step < 6} == rows(study(trial(0)), 0)
    assert [chain[step]["sparse-2/epoch"] for step in (6, 7, 8)] == [1, 2, 3]
    assert chain[6]["sparse-2/gamma"] == Histogram([3, 2, 1], [0.0, 0.1, 0.2, 0.3])
    assert {key for key in chain[9] if not key.startswith("gamma_layers/")} == {
        "prune-2/params",
        "prune-2/macs",
        "prune-2/val_accuracy",
        "prune-2/test_accuracy",
    }
    assert chain[9]["prune-2/params"] == 890
    assert "gamma_layers/stem.bn" in chain[9]
    assert [chain[step]["finetune-2/epoch"] for step in (10, 11)] == [1, 2]
    assert view_of(study(trial(0, second_pass=TWO_PASSES)), 0).summary["params"] == 890


def test_each_stage_with_epochs_is_an_axis() -> None:
    record = study(trial(0), trial(1, second_pass=TWO_PASSES))

    assert view_of(record, 0).epoch_axes == ("sparse", "finetune")
    assert view_of(record, 1).epoch_axes == ("sparse", "finetune", "sparse-2", "finetune-2")
    assert view_of(record, "dense").epoch_axes == ("sparse",)


def test_rows_of_a_second_pass_can_be_taken_up_at_any_step_and_keep_theirs() -> None:
    whole = rows(study(trial(0, second_pass=TWO_PASSES)), 0)
    for start in range(14):
        record = study(trial(0, second_pass=TWO_PASSES))
        assert rows(record, 0, start) == {step: row for step, row in whole.items() if step >= start}
    for second, count in (
        ((0, False, 0), 6),
        ((2, False, 0), 8),
        ((3, False, 0), 9),  # all epochs and no result yet
        ((True, False, 0), 9),
        ((True, True, 1), 11),
    ):
        part = rows(study(trial(0, second_pass=second)), 0)
        assert part == {step: whole[step] for step in range(count)}


def test_no_rows_come_after_a_stage_that_is_not_done() -> None:
    assert list(rows(study(trial(0, True, False, 2)), 0)) == [0, 1, 2]
    assert list(rows(study(trial(0, 2, True, True, second_pass=TWO_PASSES)), 0)) == [0, 1]


def test_views_read_no_history_and_rows_only_what_is_new() -> None:
    record = study(trial(0, second_pass=(True, True, 1)))
    stages = record.trials[0].stages

    view = view_of(record, 0)
    assert [stage.source.reads for stage in stages] == [0] * 6  # type: ignore[attr-defined]
    assert [step for step, _ in view.rows(10)] == [10]
    assert [stage.source.reads for stage in stages] == [0] * 5 + [1]  # type: ignore[attr-defined]


def near_dense(dense: float, *outcomes: tuple[int, float]) -> int | None:
    """What a study says is the smallest network near the dense one, of 2000 parameters."""
    trials = [
        replace(trial(n), stages=(*trial(n).stages[:-1], stage("finetune", True, params=p, val_accuracy=a)))
        for n, (p, a) in enumerate(outcomes)
    ]
    record = replace(study(*trials), dense=stage("sparse", True, params=2000, val_accuracy=dense))
    smallest: int | None = view_of(record, "study").summary["smallest_params_near_dense"]
    return smallest


@pytest.mark.parametrize(("dense", "accuracy"), [(0.87, 0.86), (0.13, 0.12)])  # 0.13 - 0.01 > 0.12, in binary
def test_exactly_one_point_less_is_near_the_dense_network(dense: float, accuracy: float) -> None:
    assert near_dense(dense, (500, accuracy)) == 500
    assert near_dense(dense, (500, accuracy - 0.0001)) is None


def test_a_network_that_is_not_smaller_is_not_near_the_dense_one() -> None:
    assert near_dense(0.9, (2000, 0.95), (2500, 0.95)) is None


def test_the_smallest_near_the_dense_one_is_that_of_the_means_where_there_are_repeats() -> None:
    """Trial 1 was lucky with the first seed, and its networks have 800 and 700 parameters, trial 0 900."""

    def repeat(kind: ContenderKind, number: int | None, params: int, accuracy: float) -> ContenderRecord:
        chain = (stage("sparse", True, params=params, val_accuracy=accuracy),)
        return ContenderRecord(kind, number, 1, "complete", None, chain)

    def smallest(*contenders: ContenderRecord) -> int | None:
        record = study(trial(0), trial(1), goal=2, contenders=contenders)
        found: int | None = view_of(record, "study").summary["smallest_params_near_dense"]
        return found

    dense = repeat("dense", None, 2000, 0.8)
    near, far = repeat("trial", 0, 900, 0.8), repeat("trial", 1, 700, 0.7)
    assert smallest() == 800
    assert smallest(near, far) == 750, "by the first seed, as the dense network was not repeated"
    assert smallest(dense, near, far) == 900
    assert smallest(dense, near, repeat("trial", 1, 700, 0.8)) == 750
    assert smallest(dense, far) is None
