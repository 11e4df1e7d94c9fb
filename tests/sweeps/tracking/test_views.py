"""What W&B is to show of a study, without wandb."""

from __future__ import annotations

from dataclasses import replace

from records import failed, run_id, stage, study, trial

from sweeps.results import StudyRecord
from sweeps.tracking.views import Histogram, Row, RunView, study_views


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
    tables = rows(record, "study")[2]

    assert view.state == "complete"
    assert view.summary["failed"] == 1
    assert view.summary["best_val_accuracy"] == 0.8
    assert view.summary["smallest_params_near_dense"] == 800
    assert [row[0] for row in tables["trials"].data] == [0, 1]
    assert [row[0] for row in tables["front"].data] == [1, 0]  # by size
    assert len(tables["front_chart"].data) == 3
