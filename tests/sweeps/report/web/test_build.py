"""The report on W&B as it is built, without a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import pytest

from sweeps.records import StudyRecord
from sweeps.report import content
from sweeps.report.blocks import Cell, Code, Column, Paragraph, Row, Table
from sweeps.report.web.build import MOST_ROWS, ON_DISK, WebPages, markdown


@pytest.fixture(scope="module")
def pages(study: StudyRecord) -> WebPages:
    return WebPages(study, "me", "slimnet", place_known=False)


@pytest.fixture(scope="module")
def blocks(pages: WebPages) -> list[dict[str, Any]]:
    spec = pages.report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    found: list[dict[str, Any]] = json.loads(spec)["blocks"]
    return found


def panels(blocks: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The kind and the config of every panel."""
    grids = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    found = [panel for grid in grids for panel in grid["panelBankSectionConfig"]["panels"]]
    return [(panel["viewType"], panel["config"]) for panel in found]


def texts(value: Any) -> list[str]:
    """Every text in some blocks."""
    if isinstance(value, dict):
        own = [value[key] for key in ("text", "content") if isinstance(value.get(key), str)]
        return own + [text for inner in value.values() for text in texts(inner)]
    return [text for inner in value for text in texts(inner)] if isinstance(value, list) else []


def test_it_says_what_the_page_on_disk_says(study: StudyRecord, blocks: list[dict[str, Any]]) -> None:
    report = content.report(study, {}, PurePath())
    shown = set(texts(blocks))
    assert report.headline in shown
    for section in report.sections:
        if section.anchor not in ON_DISK:
            said = {block.text for block in section.blocks if isinstance(block, Paragraph | Code)}
            assert said <= shown
    assert "python -m sweeps run fashion-mini.yaml" in shown


def test_every_item_of_the_lab_report_has_its_panel(blocks: list[dict[str, Any]]) -> None:
    shown = panels(blocks)
    lines = [config["metrics"] for kind, config in shown if kind == "Run History Line Plot"]
    scatters = [(config["xAxis"], config["yAxis"]) for kind, config in shown if kind == "Scatter Plot"]
    for stage in ("sparse", "finetune"):  # items 1 and 4
        for split in ("train", "val", "test"):
            assert [f"{stage}/{split}_accuracy"] in lines
    assert lines.count(["sparse/gamma"]) == 4  # item 2, for each λ
    assert ("summary:ratio", "summary:prune/test_accuracy") in scatters  # item 3
    assert ("summary:params", "summary:val_accuracy") in scatters  # item 5
    weave = json.dumps([config for kind, config in shown if kind == "Weave"])
    assert "pruned_at_every_ratio" in weave  # item 3, copied, absorbed and recalibrated


def test_curves_are_over_the_epochs_of_their_stage_and_one_for_each_lambda(
    blocks: list[dict[str, Any]],
) -> None:
    config = next(config for _, config in panels(blocks) if config.get("metrics") == ["sparse/test_accuracy"])
    assert config["xAxis"] == "sparse/epoch"
    assert config["groupBy"] == "sparse.value.lambda"


def test_the_search_is_shown(blocks: list[dict[str, Any]]) -> None:
    shown = panels(blocks)
    (parallel,) = (config for kind, config in shown if kind == "Parallel Coordinates Plot")
    accessors = [column["accessor"] for column in parallel["columns"]]
    assert accessors == ["summary:lambda", "summary:ratio", "summary:val_accuracy", "summary:params"]
    volumes = [config for _, config in shown if config.get("metrics") == ["hypervolume"]]
    assert [one["yAxisTitle"] for one in volumes] == ["hypervolume"] * 2
    targets = [config["targetKey"] for kind, config in shown if kind == "Parameter Importance"]
    assert targets == ["val_accuracy", "params"]


def test_the_run_table_has_what_was_searched_and_found(blocks: list[dict[str, Any]]) -> None:
    sets = [one for block in blocks if block["type"] == "panel-grid" for one in block["metadata"]["runSets"]]
    (listed,) = (one["runFeed"] for one in sets if one["runFeed"]["columnPinned"])
    assert listed["columnOrder"][:3] == ["run:displayName", "summary:lambda", "summary:ratio"]


def test_every_panel_shows_runs_of_this_study_alone(study: StudyRecord, blocks: list[dict[str, Any]]) -> None:
    """Another study may have the same name."""
    sets = [one for block in blocks if block["type"] == "panel-grid" for one in block["metadata"]["runSets"]]
    filters = [json.dumps(one["filters"]) for one in sets]
    assert filters
    assert all("study_uid" in text and study.uid in text for text in filters), filters[0]


def test_layers_of_the_front_are_listed(study: StudyRecord, blocks: list[dict[str, Any]]) -> None:
    (layers,) = (text for text in texts(blocks) if text.startswith("| layer |"))
    head, _, conv, *_ = layers.splitlines()
    assert head.count("Trial ") == len(study.front)
    assert conv.startswith("| conv | 64 |")


def test_a_later_pass_has_its_own_curves(make_study: Callable[..., StudyRecord]) -> None:
    report = WebPages(make_study(passes=2), "me", "slimnet", place_known=False).report
    spec = json.loads(report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    metrics = [config.get("metrics") for _, config in panels(spec["blocks"])]
    assert ["sparse-2/test_accuracy"] in metrics


def test_a_study_without_a_finished_trial_is_told_as_such(make_study: Callable[..., StudyRecord]) -> None:
    report = WebPages(make_study([], dense=False), "me", "slimnet", place_known=False).report
    spec = json.loads(report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    assert "No trial has finished yet, so there is nothing to choose from." in texts(spec["blocks"])


def test_markup_in_names_is_shown_as_it_is() -> None:
    table = Table("a_b", (Column("x|y", text=True),), (Row((Cell("*a*\n<b>"),)),))
    assert markdown(table) == "| x\\|y |\n| :-- |\n| \\*a\\* &lt;b> |\n\na\\_b"


def test_of_a_long_table_the_marked_rows_are_written() -> None:
    rows = [
        Row((Cell(f"{number}"),), "on the front" if number == 7 else "") for number in range(MOST_ROWS + 1)
    ]
    text = markdown(Table("All.", (Column("trial"),), tuple(rows)))
    assert text.splitlines()[2] == "| ● 7 |"
    assert text.endswith("\n\nAll. Of 101 rows the marked ones are shown; all runs are listed below.")
