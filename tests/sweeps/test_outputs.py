"""What a study leaves for people and programs."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
from made import Made

from sweeps.outputs import pareto_table, write_outputs

FACTS = ["params", "macs", "val_accuracy", "test_accuracy"]
OVER_SEEDS = [
    *("epochs", "seeds"),
    *("val_accuracy_mean", "val_accuracy_se", "test_accuracy_mean", "test_accuracy_se"),
]


def test_the_front_has_what_it_had_and_what_is_known_over_seeds() -> None:
    table = pareto_table(Made([0.80, 0.82], [[0.81, 0.83], [0.79]]).study())
    names = ["study", "objectives", "trials", "dense", "front", "controls", "hypervolume"]
    assert list(table) == names
    assert list(table["dense"]) == [*FACTS, "file_bytes", *OVER_SEEDS]
    columns = ["trial", "lambda", "ratio", *FACTS, "file_bytes", *OVER_SEEDS]
    assert [list(row) for row in table["front"]] == [columns] * 2
    first, second = table["front"]
    assert (first["val_accuracy"], first["seeds"], first["epochs"]) == (0.81, [0, 1], 4)
    assert first["val_accuracy_mean"] == pytest.approx(0.82)
    assert first["val_accuracy_se"] == pytest.approx(0.01)
    assert first["test_accuracy_mean"] == pytest.approx(0.80)
    assert (second["seeds"], second["val_accuracy_mean"], second["val_accuracy_se"]) == ([0], 0.79, None)
    assert (table["dense"]["seeds"], table["controls"]) == ([0, 1], [])


def test_a_baseline_that_failed_leaves_a_front_though_its_repeats_did_not() -> None:
    table = pareto_table(Made([None, 0.82], [[0.81, 0.83]], {("uniform", 0): [0.7, 0.8]}).study())
    assert table["dense"] is None
    assert "hypervolume" not in table
    assert [row["seeds"] for row in (*table["front"], *table["controls"])] == [[0, 1], [0, 1]]


def test_the_hypervolume_is_that_of_the_first_seed() -> None:
    """Repeats tell how sure it is, and change nothing of what the study found."""
    once, again = Made([0.8], [[0.81], [0.7]]), Made([0.8, 0.1], [[0.81, 0.2], [0.7, 0.3]])
    volumes = [pareto_table(made.study())["hypervolume"] for made in (once, again)]
    assert volumes[0] == volumes[1] > 0


def test_controls_stand_by_kind_and_size() -> None:
    made = Made(
        [0.8],
        [[0.8], [0.79]],
        {
            ("random", 0): [0.7],
            ("uniform", 0): [0.75, 0.77],
            ("uniform", 1): [0.7],
            ("scratch", 1): [0.78],
        },
        images=100,
    )
    rows = pareto_table(made.study())["controls"]
    assert [(row["kind"], row["trial"], row["params"]) for row in rows] == [
        ("uniform", 1, 790),
        ("uniform", 0, 890),
        ("scratch", 1, 790),
        ("random", 0, 890),
    ]
    assert [list(row) for row in rows] == [["kind", "trial", "params", "macs", *OVER_SEEDS]] * 4
    assert [row["epochs"] for row in rows] == [2, 2, 2, 4]
    assert rows[1]["val_accuracy_mean"] == pytest.approx(0.76)
    assert rows[1]["val_accuracy_se"] == pytest.approx(math.sqrt(0.76 * 0.24 / 100 / 2))


def test_the_files_hold_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.outputs.write_report", lambda study, folder, comparison: folder)
    study = Made([0.8, 0.8], [[0.8, 0.81], [0.7]], {("uniform", 0): [0.7]}).study()
    write_outputs(tmp_path, study)
    table = pareto_table(study)
    assert json.loads((tmp_path / "pareto.json").read_text()) == table
    with (tmp_path / "pareto.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [list(row) for row in table["front"]]
    assert [(row["seeds"], row["epochs"]) for row in rows] == [("[0, 1]", "4"), ("[0]", "4")]
    assert float(rows[0]["val_accuracy_se"]) == table["front"][0]["val_accuracy_se"]
    assert rows[1]["val_accuracy_se"] == "", "nothing is known of it"
