"""Studies beside each other: what is said of their fronts and their configs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from sweeps.config import resolve
from sweeps.pareto import hypervolume
from sweeps.records import StudyRecord
from sweeps.report.blocks import Table
from sweeps.report.compare import compare, compare_page, verdict
from sweeps.report.drawing import Figure
from sweeps.report.html import render

MakeStudy = Callable[..., StudyRecord]
FEW = [{"sparse.lambda": 0.003, "prune.ratio": ratio} for ratio in (0.3, 0.5)]


@pytest.fixture
def pair(make_study: MakeStudy) -> tuple[StudyRecord, StudyRecord]:
    """A study, and another that has less of a front and other epochs."""
    less = make_study(FEW, name="less")
    return make_study(name="more"), replace(less, config=resolve(less.config, {"finetune.epochs": 9}))


def test_hypervolumes_are_counted_from_one_reference(pair: tuple[StudyRecord, StudyRecord]) -> None:
    more, less = pair
    less.dense.metrics["params"] = 200_000
    compared = compare(pair)
    objectives = dict(more.config.search.objectives)
    bound = {"val_accuracy": 0.0, "params": 200_000.0}
    expected = [
        hypervolume([study.trials[number].metrics for number in study.front], objectives, bound) / 200_000
        for study in pair
    ]
    assert compared.volumes == pytest.approx(expected)
    assert compared.volumes is not None
    difference = compared.volumes[0] - compared.volumes[1]
    assert verdict(compared).startswith("The front of more covers ")
    assert f"a difference of {difference:.4f}" in verdict(compared)


def test_what_differs_in_the_configs_is_told(pair: tuple[StudyRecord, StudyRecord]) -> None:
    found = compare(pair).differences
    assert found == {"finetune.epochs": [4, 9], "search.trials": [12, 2]}


def test_equal_studies_are_level(make_study: MakeStudy) -> None:
    pair = [make_study(FEW, name="a"), make_study(FEW, name="b")]
    compared = compare(pair)
    assert compared.differences == {}
    assert verdict(compared) == (
        "The fronts of a and b cover the same in validation accuracy and parameters."
    )
    assert "Nothing but their names." in render(compare_page(compared))


def test_without_a_dense_network_or_common_objectives_nothing_is_claimed(make_study: MakeStudy) -> None:
    a, b = make_study(FEW, name="a"), make_study(FEW, name="b", dense=False)
    assert compare([a, b]).volumes is None
    assert "cannot be compared" in verdict(compare([a, b]))
    others = {"val_accuracy": "maximize", "macs": "minimize"}
    search = a.config.search.model_copy(update={"objectives": others})
    other = replace(a, name="c", config=a.config.model_copy(update={"search": search}))
    assert compare([a, other]).volumes is None
    assert "The fronts" in render(compare_page(compare([a, b])))


def test_studies_of_other_data_are_compared_with_reservations(pair: tuple[StudyRecord, StudyRecord]) -> None:
    more, less = pair
    other = replace(less, config=resolve(less.config, {"data.image_size": 7}))
    (said,) = compare([more, other]).reservations
    assert said.startswith("Their data differ")


def test_the_page_has_the_fronts_of_all_in_one_figure(pair: tuple[StudyRecord, StudyRecord]) -> None:
    page = compare_page(compare(pair))
    figure, table = page.sections[0].blocks
    assert isinstance(figure, Figure)
    assert isinstance(table, Table)
    assert [key.name for key in figure.legend] == ["more", "less"]
    colours = [key.colour for key in figure.legend]
    assert len(set(colours)) == 2
    (plot,) = figure.columns[0]
    points = [t for t in plot.drawing["data"] if t.get("mode") == "markers" and "circle" in str(t["marker"])]
    drawn = sum(len(t["hovertext"]) for t in points)
    assert drawn == sum(len(study.complete) for study in pair)
    assert [row.cells[0].text for row in table.rows] == ["more", "less"]
