"""Studies beside each other: what is said of their fronts and their configs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.config import Config, resolve
from sweeps.pareto import hypervolume
from sweeps.records import StageRecord, StudyRecord
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
    assert "Nothing but their names and where they run." in render(compare_page(compared))


def test_where_studies_run_is_no_difference(make_study: MakeStudy) -> None:
    here, there = (make_study(FEW, name=name) for name in "ab")
    elsewhere = {
        "storage": "journal",
        "stages": "s3://bucket",
        "threads": 2,
        "retries": 9,
        "stall_minutes": 5.0,
    }
    executor = {"kind": "ray", "address": "head:6379"}
    config = there.config.model_dump(mode="json", by_alias=True) | elsewhere | {"executor": executor}
    assert compare([here, replace(there, config=Config.model_validate(config))]).differences == {}


def test_a_folder_of_data_is_a_difference_only_if_other_data_are_in_it(make_study: MakeStudy) -> None:
    def reading(folder: str, fingerprint: str) -> StudyRecord:
        study = make_study(FEW, name=folder)
        data = study.config.data.model_copy(update={"name": "folder", "path": Path(folder)})
        spec = {**study.dense.spec, "data": {"fingerprint": fingerprint}}
        config = study.config.model_copy(update={"data": data})
        return replace(study, config=config, dense=replace(study.dense, spec=spec))

    assert compare([reading("a", "1"), reading("b", "1")]).differences == {}
    assert compare([reading("a", "1"), reading("b", "2")]).differences == {"data.path": ["a", "b"]}


def test_without_a_dense_network_or_common_objectives_nothing_is_claimed(make_study: MakeStudy) -> None:
    a, b = make_study(FEW, name="a"), make_study(FEW, name="b", dense=False)
    assert compare([a, b]).volumes is None
    said = "Their hypervolumes cannot be compared: "
    assert verdict(compare([a, b])) == f"{said}the dense network of b is not trained yet."
    others = {"val_accuracy": "maximize", "macs": "minimize"}
    search = a.config.search.model_copy(update={"objectives": others})
    other = replace(a, name="c", config=a.config.model_copy(update={"search": search}))
    assert compare([a, other]).volumes is None
    assert verdict(compare([a, other])) == f"{said}the only objective of all is validation accuracy."
    assert "The fronts" in render(compare_page(compare([a, b])))


def test_studies_of_other_data_are_compared_with_reservations(pair: tuple[StudyRecord, StudyRecord]) -> None:
    more, less = pair
    other = replace(less, config=resolve(less.config, {"data.image_size": 7}))
    (said,) = compare([more, other]).reservations
    assert said.startswith("Their data differ")
    augmented = replace(less, config=resolve(less.config, {"data.flip": True, "data.mean": (0.5,)}))
    assert compare([more, augmented]).reservations == []


def on(study: StudyRecord, device: str, **latencies: float) -> StudyRecord:
    """The study, computed and measured on another device."""

    def elsewhere(stage: StageRecord) -> StageRecord:
        environment = {"device": "cuda:0", "device_name": device}
        metrics = {**stage.metrics, **latencies}
        return replace(stage, result={**(stage.result or {}), "metrics": metrics, "environment": environment})

    trials = [replace(trial, stages=tuple(map(elsewhere, trial.stages))) for trial in study.trials]
    latency = replace(study.dense, kind="latency", result={"metrics": {"machine": device}})
    return replace(study, trials=trials, dense=elsewhere(study.dense), latencies={"key": latency})


def test_studies_of_other_machines_are_compared_with_reservations(make_study: MakeStudy) -> None:
    one, two = (make_study(FEW, name=name) for name in "ab")
    assert compare([on(one, "H100"), on(two, "H100")]).reservations == []
    assert compare([on(one, "H100"), on(two, "H200")]).reservations == [
        "Their networks were trained on different devices (a: H100; b: H200), where the same training ends "
        "differently.",
        "Their latencies are of different machines (a: H100; b: H200).",
    ]


def test_latencies_of_different_machines_are_not_set_off(make_study: MakeStudy) -> None:
    objectives = {"val_accuracy": "maximize", "latency_ms": "minimize"}
    one, two = (
        replace(study, config=study.config.model_copy(update={"search": search}))
        for study in (make_study(FEW, name=name) for name in "ab")
        for search in [study.config.search.model_copy(update={"objectives": objectives})]
    )
    assert compare([on(one, "H100", latency_ms=1.0), on(two, "H100", latency_ms=2.0)]).volumes
    compared = compare([on(one, "H100", latency_ms=1.0), on(two, "H200", latency_ms=2.0)])
    assert compared.volumes is None
    assert verdict(compared).endswith("compared: the latency of one image is of different machines.")
    assert "the latency of one image of the dense network of b is not known yet" in verdict(
        compare([on(one, "H100", latency_ms=1.0), two])
    )


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
