"""The report: what its page says, what its figures hold, and that it works in a browser on its own."""

from __future__ import annotations

import html
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_memory import InMemory

from slimnet.errors import SlimnetError
from sweeps.comparison import Comparison
from sweeps.outputs import pareto_table
from sweeps.records import ContenderRecord, StageRecord, StudyRecord, TrialRecord
from sweeps.report import write_report
from sweeps.report.online import run_pages
from sweeps.tracking.ledger import Entry, Ledger
from sweeps.tracking.study_view import study_views
from sweeps.tracking.views import run_id

MakeStudy = Callable[..., StudyRecord]
NOTHING = object()
LAMBDAS = (0.003, 0.00711)
TWO_PASSES = [{"sparse.lambda": LAMBDAS[i % 2], "prune.ratio": 0.3 + 0.1 * i} for i in range(4)]


class Page:
    """A written report, read back as a reader would: its visible text, its tables, its figures."""

    def __init__(self, path: Path) -> None:
        self.source = path.read_text(encoding="utf-8")
        body = self.source[self.source.index("<body>") : self.source.index('<script type="application/json"')]
        self.body = body
        spaced = re.sub(r"<[^>]+>", " ", re.sub("</?code>", "", body))
        self.text = re.sub(r"\s+", " ", html.unescape(spaced)).replace("\xa0", " ")
        data = re.search(r'<script type="application/json" id="drawings">(.*?)</script>', self.source, re.S)
        assert data
        self.data = json.loads(data[1])
        self.drawings = {plot: self.views(plot) for plot in self.data["drawings"]}

    def views(self, plot: str) -> dict[str, dict[str, Any]]:
        """The drawing of a plot by what the reader may choose, the options joined by "|"."""
        figure = self.body.split(f'data-plot="{plot}"')[0].rsplit('<figure class="drawing"', 1)[1]
        choices = [
            [html.unescape(option) for option in re.findall(r'type="radio"[^>]* value="(.*?)"', choice)]
            for choice in figure.split("<fieldset")[1:]
        ]
        return {
            "|".join(options): self._filled(self.data["drawings"][plot], options)
            for options in itertools.product(*choices)
        }

    def _filled(self, part: Any, options: Sequence[str]) -> Any:
        """What the page's script makes of a part of a drawing."""
        if isinstance(part, list):
            return [item for item in (self._filled(item, options) for item in part) if item is not NOTHING]
        if not isinstance(part, dict):
            return part
        if "options" in part:
            return self._filled(part["options"].get(options[part["choice"]], NOTHING), options)
        if "trials" in part:
            return [self.data["trials"][str(number)] for number in part["trials"]]
        return {name: self._filled(value, options) for name, value in part.items()}

    def traces(self, plot: str, view: str = "") -> list[dict[str, Any]]:
        traces: list[dict[str, Any]] = self.drawings[plot][view]["data"]
        return traces

    def sections(self) -> list[str]:
        return re.findall(r"<h2>(.*?)</h2>", self.body)

    def rows(self, section: str) -> list[list[str]]:
        part = self.body.split(f'<section id="{section}">')[1].split("</section>")[0]
        rows = re.findall(r"<tr[^>]*>(.*?)</tr>", part)
        cells = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows)
        return [
            [html.unescape(re.sub("<.*?>", "", cell)).replace("\xa0", " ") for cell in row] for row in cells
        ]


@pytest.fixture(scope="module")
def page(study: StudyRecord, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return write(study, tmp_path_factory.mktemp("page"))


def write(study: StudyRecord, folder: Path) -> Page:
    return Page(write_report(study, folder / "runs" / study.name / "report"))


def points(traces: list[dict[str, Any]], symbol: str) -> list[tuple[float, float]]:
    chosen = [t for t in traces if (t.get("marker") or {}).get("symbol") == symbol]
    return sorted((x, y) for t in chosen for x, y in zip(t["x"], t["y"], strict=True))


def in_percent(fraction: float) -> float:
    """As figures have it."""
    return round(100 * fraction, 2)


def test_the_head_says_the_result_in_plain_words(page: Page, study: StudyRecord) -> None:
    near = [t for t in study.complete if t.metrics["val_accuracy"] >= 0.869 - 0.01]
    best = min(near, key=lambda t: t.metrics["params"])
    params = best.metrics["params"]
    assert (
        f"From 126,330 parameters at 86.9 % to {params:,} ({126_330 / params:.1f}× smaller) at "
        f"{100 * best.metrics['val_accuracy']:.1f} % on the validation split (16 epochs): with this one seed "
        "the smallest network within one point of the dense one. On the test split, which was not used for "
        f"the choice: 86.1 % before, {100 * best.metrics['test_accuracy']:.1f} % after."
    ) in page.text
    assert "11 of 12 trials complete, 1 failed" in page.text
    assert "Selection uses the validation split alone" in page.text


def test_exactly_one_point_less_is_within_one_point(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(TWO_PASSES[:2])
    study.trials[1].metrics["val_accuracy"] = 0.859
    study.trials[1].metrics["params"] = study.trials[0].metrics["params"] - 1
    text = write(study, tmp_path).text
    assert f"to {study.trials[1].metrics['params']:,} " in text
    assert "at 85.9 % on the validation split" in text
    assert "the smallest network within one point of the dense one" in text


def test_a_network_that_is_not_smaller_is_not_the_result(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(TWO_PASSES[:1])
    study.trials[0].metrics["params"] = 126_330
    assert "No trial is smaller than the dense network" in write(study, tmp_path).text


def test_no_network_within_a_point_is_said(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study([{"sparse.lambda": 0.04, "prune.ratio": 0.9}])
    assert "none is within one point of the dense one" in write(study, tmp_path).text


def test_a_sweep_that_made_nothing_smaller_says_so(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(
        [{"model.width": 32, "prune.ratio": 0.1}], space="{model.width: [32], prune.ratio: [0.1]}"
    )
    assert (
        "No trial is smaller than the dense network with its 126,330 parameters."
        in write(study, tmp_path).text
    )


def test_every_part_is_there_in_order(page: Page) -> None:
    assert page.sections() == [
        "Pareto front",
        "How sure this is",
        "What the search found",
        "Accuracy over sparse training",
        "Scaling factors",
        "Where λ matters",
        "Right after pruning, and after fine-tuning",
        "Fine-tuning",
        "All trials",
        "One trial at a time",
        "The networks",
        "How it was run",
        "Failed trials",
    ]


def test_the_peak_memory_is_that_of_the_largest_stage(page: Page) -> None:
    assert page.text.count("peak memory of a stage") == 1
    assert page.text.count("512 MB") == 1


def test_pareto_front_fills_the_front_and_leaves_the_rest_hollow(page: Page, study: StudyRecord) -> None:
    def place(metric: str, on_front: bool) -> list[tuple[float, float]]:
        trials = [t for t in study.complete if (t.number in study.front) == on_front]
        return sorted((t.metrics["params"], in_percent(t.metrics[metric])) for t in trials)

    for split in ("validation", "test"):
        traces = page.traces("pareto-0", f"parameters|{split}")
        metric = {"validation": "val_accuracy", "test": "test_accuracy"}[split]
        assert points(traces, "circle") == place(metric, True)
        assert points(traces, "circle-open") == place(metric, False)
    assert points(page.traces("pareto-0", "parameters|validation"), "diamond") == [(126_330, 86.9)]
    assert points(page.traces("pareto-0", "MACs|test"), "diamond") == [(4_812_544, 86.1)]


def test_the_staircase_is_drawn_over_the_objectives_only(page: Page) -> None:
    with_line = {
        view: [t["line"]["shape"] for t in drawing["data"] if t["name"] == "front"]
        for view, drawing in page.drawings["pareto-0"].items()
    }
    assert with_line == {
        "parameters|validation": ["hv"],
        "parameters|test": [],
        "MACs|validation": [],
        "MACs|test": [],
    }


def test_latency_and_file_size_are_axes_and_columns_where_they_were_measured(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(TWO_PASSES)
    facts = {"latency_ms": 0.25, "latency_ms_64": 4.0, "file_bytes": 50_000}
    measured = [with_metrics(trial, facts) if trial.number else trial for trial in study.trials]
    page = write(replace(study, trials=measured), tmp_path)
    views = {view.partition("|")[0] for view in page.drawings["pareto-0"]}
    sizes = ["latency of 1 image, ms", "latency of 64 images, ms", "file size, bytes"]
    assert views == {"parameters", "MACs", *sizes}
    for size, value in zip(sizes, facts.values(), strict=True):
        traces = page.traces("pareto-0", f"{size}|validation")
        found = {x for t in traces if t.get("mode") == "markers" for x in t["x"]}
        assert found == {value, None}  # trial 0 was not measured, nor was the dense network
    assert "0.25 ms for 1 image, 4 ms for 64, 50.0 kB" in page.source.replace("\xa0", " ")
    rows = page.rows("trials")
    assert [row[-7:-4] for row in rows[-4:]] == [["–"] * 3, *[["0.25 ms", "4 ms", "50.0 kB"]] * 3]


def with_metrics(trial: TrialRecord, facts: dict[str, Any]) -> TrialRecord:
    *before, last = trial.stages
    assert last.result is not None
    result = {**last.result, "metrics": {**last.metrics, **facts}}
    return replace(trial, stages=(*before, replace(last, result=result)))


def test_a_point_tells_all_about_its_trial(page: Page, study: StudyRecord) -> None:
    told = [
        text for t in page.traces("pareto-0", "parameters|validation") for text in t.get("hovertext") or []
    ]
    trial = study.trials[2]
    text = next(text for text in told if "<b>trial 2</b>" in text).replace("\xa0", " ")
    assert "λ 0.0169 · ratio 0.7" in text
    assert f"{trial.metrics['params']:,} parameters, {trial.metrics['macs']:,} MACs" in text
    assert f"test {100 * trial.metrics['test_accuracy']:.1f} %" in text


def test_each_lambda_has_one_colour_all_over_the_page(page: Page) -> None:
    def colours(plot: str, view: str, kind: str) -> dict[str, str]:
        named = [t for t in page.traces(plot, view) if t.get("legendgroup") and "color" in t.get(kind, {})]
        return {re.sub(r"^\d+: | · .*", "", t["legendgroup"]): t[kind]["color"] for t in named}

    expected = colours("pareto-0", "parameters|validation", "marker")
    assert list(expected) == ["λ 0.003", "λ 0.00711", "λ 0.0169", "λ 0.04"]
    assert len(set(expected.values())) == 4
    assert expected.items() <= colours("sparse-0", "", "line").items()
    assert colours("ratios-0", "copied", "line") == expected
    assert colours("pruned-0", "validation", "marker") == expected
    assert colours("finetune-0", "validation", "line") == expected


def test_sparse_trainings_are_drawn_once_each_with_the_dense_one(page: Page, study: StudyRecord) -> None:
    measured = [4, 8, 12]
    for plot, metric, epochs in (
        ("sparse-0", "train_accuracy", list(range(1, 13))),
        ("sparse-1", "val_accuracy", measured),
        ("sparse-2", "test_accuracy", measured),
    ):
        traces = page.traces(plot)
        assert [t["name"] for t in traces] == ["dense, λ 0", "λ 0.003", "λ 0.00711", "λ 0.0169", "λ 0.04"]
        history = study.trials[0].first("sparse").history
        assert traces[1]["x"] == epochs
        assert traces[1]["y"] == [in_percent(history[epoch - 1][metric]) for epoch in epochs]


def test_the_path_of_lambda_is_drawn_where_it_changes(
    page: Page, make_study: MakeStudy, tmp_path: Path
) -> None:
    assert "steering-0" not in page.drawings
    study = make_study()
    history = study.trials[0].first("sparse").history
    for row in history:
        row["lambda"] = 0.001 * 1.5 ** row["epoch"] if row["epoch"] > 1 else 0.0
    strengths, fractions = (write(study, tmp_path).traces(f"steering-{number}") for number in (0, 1))
    assert [trace["name"] for trace in strengths] == [trace["name"] for trace in fractions] == ["λ 0.003"]
    assert strengths[0]["y"] == [None, *(pytest.approx(row["lambda"], rel=1e-3) for row in history[1:])]
    assert fractions[0]["y"] == [in_percent(row["near_zero"]) for row in history]


def test_scaling_factors_of_every_lambda_at_the_end_and_over_the_epochs(
    page: Page, study: StudyRecord
) -> None:
    bars = [page.traces(f"gamma-{number}")[0] for number in (0, 2, 4, 6)]
    assert [bar["name"] for bar in bars] == ["λ 0.003", "λ 0.00711", "λ 0.0169", "λ 0.04"]
    assert [sum(bar["y"]) for bar in bars] == [976] * 4
    stage = study.trials[3].first("sparse")
    assert bars[3]["y"][0] == stage.history[-1]["gamma"]["counts"][0]
    heat = page.traces("gamma-7")[0]
    assert heat["x"] == list(range(1, 13))
    assert [row[-1] for row in heat["customdata"]] == bars[3]["y"]
    assert f"λ 0.04: {100 * stage.metrics['near_zero']:.1f} % below 0.01" in page.text


def test_histograms_with_bins_of_their_own_are_brought_together(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study()
    for number, trial in enumerate(study.trials[:4]):
        for row in trial.first("sparse").history:
            row["gamma"] = {"counts": [100, 50, 26], "edges": [0, 0.1, 0.2 + number / 10, 1 + number]}
    page = write(study, tmp_path)
    counts = [page.traces(f"gamma-{number}")[0]["y"] for number in (0, 2, 4, 6)]
    assert [sum(one) for one in counts] == [176] * 4
    assert all(isinstance(count, int) for one in counts for count in one), "no bar is a part of a factor"


def test_of_many_lambdas_those_of_the_ends_and_of_the_headline_are_shown(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study([{"sparse.lambda": 0.001 * (i + 1), "prune.ratio": 0.5} for i in range(12)])
    for trial in study.trials:
        trial.metrics["params"] = 50_000 - (trial.number == 2)
        trial.metrics["val_accuracy"] = 0.869
    page = write(study, tmp_path)
    shown = [page.traces(f"gamma-{number}")[0]["name"] for number in (0, 2, 4, 6)]
    assert shown == ["λ 0.001", "λ 0.003", "λ 0.007", "λ 0.012"]
    assert "gamma-8" not in page.drawings


def test_accuracy_right_after_pruning_is_drawn_over_the_ratio_three_ways(
    page: Page, study: StudyRecord
) -> None:
    for way in ("copied", "absorbed", "recalibrated"):
        traces = page.traces("ratios-0", way)
        assert [trace["name"] for trace in traces] == ["λ 0.003", "λ 0.00711", "λ 0.0169", "λ 0.04"]
        rows = study.curves[study.trials[0].first("sparse").key].metrics["curve"]
        assert traces[0]["x"] == [0, 0.3, 0.6, 0.9]
        assert traces[0]["y"] == [in_percent(row[way]) for row in rows]
        assert traces[0]["customdata"] == [row["params"] for row in rows]
        drawing = page.drawings["ratios-0"][way]
        assert drawing["layout"]["shapes"][0]["y0"] == 86.9
        assert drawing["labels"] == [{"text": "dense", "y": 86.9, "along": True}]


def test_a_curve_that_failed_is_told_and_one_in_hand_is_not_drawn(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(TWO_PASSES, curves=True)
    first, second = study.curves
    failure = {"reason": "the disk is full", "detail": ""}
    study.curves[first] = replace(study.curves[first], state="failed", result=None, failure=failure)
    page = write(study, tmp_path / "one")
    assert [trace["name"] for trace in page.traces("ratios-0", "copied")] == ["λ 0.00711"]
    assert "1 line could not be computed: the disk is full" in page.text
    study.curves[second] = replace(study.curves[second], state="missing", result=None)
    page = write(study, tmp_path / "none")
    assert "ratios-0" not in page.drawings
    assert "1 line could not be computed: the disk is full" in page.text


def test_before_and_after_fine_tuning_are_pairs_at_their_ratio(page: Page, study: StudyRecord) -> None:
    traces = page.traces("pruned-0", "test")
    hollow, filled = points(traces, "circle-open"), points(traces, "circle")
    before = [in_percent(t.last("prune").metrics["test_accuracy"]) for t in study.trials]
    after = [in_percent(t.metrics["test_accuracy"]) for t in study.complete]
    assert sorted(y for _, y in hollow) == sorted(before)
    assert sorted(y for _, y in filled) == sorted(after)
    assert {x for x, _ in filled} <= {x for x, _ in hollow}
    ratio_of = {round(x, 1) for x, _ in hollow}
    assert ratio_of == {0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
    assert len({x for x, _ in hollow}) == 12, "trials of one ratio stand side by side"


def test_fine_tuning_starts_right_after_pruning_and_shows_the_front(page: Page, study: StudyRecord) -> None:
    curve = page.traces("finetune-0", "validation")[0]
    trial = study.trials[0]
    assert curve["x"] == [0, 2, 4]
    assert curve["y"][0] == in_percent(trial.last("prune").metrics["val_accuracy"])
    assert curve["y"][-1] == in_percent(trial.metrics["val_accuracy"])
    assert page.traces("finetune-0", "training")[0]["x"] == [1, 2, 3, 4]
    legend = page.body.split('id="figure-finetune"')[1]
    shown = re.findall(r'<input type="checkbox" value="(\d+): [^"]*" checked>', legend)
    assert sorted(map(int, shown)) == sorted(study.front)


def test_the_table_has_the_dense_network_first_and_every_trial(page: Page, study: StudyRecord) -> None:
    _, head, dense, *trials = page.rows("trials")
    assert head == [
        *["trial", "λ", "ratio", "parameters", "smaller", "MACs"],
        *["validation", "test", "validation", "test"],
    ]
    assert dense == ["dense", "0", "–", "126,330", "1.0×", "4,812,544", "–", "–", "86.9 %", "86.1 %"]
    assert len(trials) == 12
    tuned, pruned = study.trials[0].metrics, study.trials[0].last("prune").metrics
    assert trials[0] == [
        "0●" if 0 in study.front else "0",
        "0.003",
        "0.3",
        f"{tuned['params']:,}",
        f"{126_330 / tuned['params']:.1f}×",
        f"{tuned['macs']:,}",
        *(f"{100 * m[s]:.1f} %" for m in (pruned, tuned) for s in ("val_accuracy", "test_accuracy")),
    ]
    assert {int(row[0].rstrip("●")) for row in trials if row[0].endswith("●")} == set(study.front)
    assert trials[10][0] == "10 (failed)"
    assert trials[10][-2:] == ["–", "–"]


def test_the_networks_of_the_front_lie_beside_the_page(study: StudyRecord, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / study.name / "report"
    study = with_files(study, tmp_path)
    page = write(study, tmp_path)
    by_size = sorted((study.trials[n] for n in study.front), key=lambda t: t.metrics["params"])
    names = [f"fashion-mini-trial-{trial.number}.pt" for trial in by_size]
    assert [row[-1] for row in page.rows("networks")[1:]] == names
    assert re.findall(r'href="networks/(.*?)" download', page.body) == names
    for trial, name in zip(by_size, names, strict=True):
        assert (folder / "networks" / name).read_text() == f"network {trial.number}"
        assert page.data["cards"]["cards"][f"trial-{trial.number}"]["link"] == f"networks/{name}"
    path = re.search(r'slimnet\.load\("(.*?)"\)', page.text)
    assert path
    assert Path(path[1]).is_file()


def with_files(study: StudyRecord, tmp_path: Path) -> StudyRecord:
    """The study with networks on this disk."""
    trials = list(study.trials)
    for trial in study.complete:
        *before, last = trial.stages
        path = tmp_path / "runs" / "stages" / "finetune" / last.key / "checkpoint.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"network {trial.number}")
        here = replace(last, source=InMemory(last.history, last.gamma_layers, checkpoint=path))
        trials[trial.number] = replace(trial, stages=(*before, here))
    return replace(study, trials=trials)


def test_networks_that_have_left_the_front_leave_the_folder(study: StudyRecord, tmp_path: Path) -> None:
    study = with_files(study, tmp_path)
    write(study, tmp_path)
    first, *others = study.front
    write(replace(study, front=others), tmp_path)
    left = sorted(os.listdir(tmp_path / "runs" / study.name / "report" / "networks"))
    assert left == sorted(f"fashion-mini-trial-{number}.pt" for number in others)
    assert f"fashion-mini-trial-{first}.pt" not in left


def test_a_run_and_a_report_may_offer_networks_at_once(
    study: StudyRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace_later(source: Path, target: Path) -> None:
        monkeypatch.undo()
        write(study, tmp_path)
        os.replace(source, target)

    study = with_files(study, tmp_path)
    monkeypatch.setattr(os, "replace", replace_later)
    write(study, tmp_path)
    names = sorted(os.listdir(tmp_path / "runs" / study.name / "report" / "networks"))
    assert names == sorted(f"fashion-mini-trial-{number}.pt" for number in study.front)


def test_a_network_that_is_made_again_is_offered_again(
    study: StudyRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("this disk has no second names")

    monkeypatch.setattr(os, "link", refuse)
    study = with_files(study, tmp_path)
    write(study, tmp_path)
    number = study.front[0]
    stage = tmp_path / "runs" / "stages" / "finetune" / study.trials[number].stages[-1].key / "checkpoint.pt"
    stage.write_text("another network")
    write(study, tmp_path)
    beside = tmp_path / "runs" / study.name / "report" / "networks" / f"fashion-mini-trial-{number}.pt"
    assert beside.read_text() == "another network"


def test_a_network_that_is_not_on_this_disk_has_no_link(page: Page, study: StudyRecord) -> None:
    rows = page.rows("networks")[1:]
    assert [row[-1] for row in rows] == ["not on this disk"] * len(study.front)
    assert "slimnet.load" not in page.text


def test_the_network_and_the_data_are_named(page: Page, make_study: MakeStudy, tmp_path: Path) -> None:
    assert "resnet (blocks 1, 1, 1, width 16) on fashion-mini at 14 pixels" in page.text
    study = make_study([{"model.width": w} for w in (8, 16)], space="{model.width: [8, 16]}")
    study.dense.metrics.update(val_images=1000, test_images=2000)
    assert (
        "resnet (blocks 1, 1, 1) on fashion-mini at 14 pixels, 1,000 validation images and 2,000 test images"
    ) in write(study, tmp_path).text


def test_a_line_per_trial_crosses_what_was_searched_and_what_came_out(page: Page, study: StudyRecord) -> None:
    drawing = page.drawings["parallel-0"][""]
    assert drawing["layout"]["xaxis"]["ticktext"] == ["λ", "ratio", "parameters", "validation accuracy"]
    lines: dict[str, list[float]] = {}
    for trace in drawing["data"]:
        for trial, y in zip(trace["customdata"], trace["y"], strict=True):
            if y is not None:
                lines.setdefault(trial, []).append(y)
    assert set(lines) == {f"trial-{trial.number}" for trial in study.complete}
    ratios = {trial.number: trial.config.prune.ratio for trial in study.complete}
    assert lines["trial-1"][0] == pytest.approx(1 / 3, abs=2e-3), "the second of four λ on a log scale"
    for number, ratio in ratios.items():
        assert lines[f"trial-{number}"][1] == pytest.approx((ratio - 0.3) / 0.6, abs=1e-3)
    biggest = max(study.complete, key=lambda trial: float(trial.metrics["params"]))
    assert lines[f"trial-{biggest.number}"][2] == 1
    assert {"0.003", "0.04", "0.3", "0.9"} <= {label["text"] for label in drawing["labels"]}


def test_importance_is_told_for_the_front_and_each_objective(
    page: Page, make_study: MakeStudy, tmp_path: Path
) -> None:
    for number, what in enumerate(("front", "val_accuracy", "params")):
        (bars,) = page.traces(f"importance-{number}")
        assert bars["name"] == what
        assert set(bars["y"]) == {"λ", "ratio"}
        assert sum(bars["x"]) == pytest.approx(1, abs=1e-3)
    assert page.traces("importance-2")[0]["y"][-1] == "ratio", "the ratio decides the size"
    assert "With 11 trials these are hints" in page.text
    few = write(make_study(TWO_PASSES), tmp_path)
    assert "importance-0" not in few.drawings
    assert "parallel-0" in few.drawings


def test_the_hypervolume_grows_over_trials_and_over_epochs(page: Page, study: StudyRecord) -> None:
    over_trials, over_epochs = (page.traces(f"hypervolume-{number}")[0] for number in (0, 1))
    assert over_trials["x"] == list(range(1, 13))
    assert over_trials["y"] == over_epochs["y"] == sorted(over_trials["y"])
    assert over_trials["y"][-1] == pytest.approx(pareto_table(study)["hypervolume"], abs=1e-5)
    epochs = over_epochs["x"]
    measured = 4  # epochs of fine-tuning; the histories have a row for each
    assert epochs[4] - epochs[3] == measured, "trial 4 shares the sparse training of trial 0"
    assert epochs[10] - epochs[9] == 2, "a failed trial took epochs too"


def test_how_sure_it_is_is_told_in_words(page: Page, make_study: MakeStudy, tmp_path: Path) -> None:
    assert "Seeds: every network was trained once" in page.text
    assert "Images:" not in page.text, "their number is not known"
    study = compared(make_study, DENSE, TRIAL, uniform=(0.86, 0.87, 0.88))
    for metrics in (study.dense.metrics, study.trials[0].metrics):
        metrics["val_images"] = 500
    text = write(study, tmp_path).text
    error = 100 * math.sqrt(0.881 * 0.119 / 500)
    assert f"has 500. On so many, an accuracy of 88.1 % has a standard error of {error:.1f} points" in text
    comparison = Comparison(study)
    assert comparison.spread is not None
    assert f"varies from seed to seed by {100 * comparison.spread:.1f} points" in text
    assert f"told apart from about {100 * comparison.told_apart(3):.1f} points on" in text
    assert "trial 0 loses 1.0 points and the dense network, which was not chosen, 1.0 points" in text


def test_what_sharing_saved_is_told(page: Page) -> None:
    assert (
        "All computing together took 3 min 40 s. Equal stages were computed once: without that it would have "
        "taken 6 min 57 s, 1.9× as long."
    ) in page.text


def test_how_it_was_run(page: Page) -> None:
    for fact in ("seed 3", "torch 2.15.0", "python 3.11.2", "device cpu", "threads 1", "precision bfloat16"):
        assert fact in page.text
    assert page.rows("how")[1:] == [
        ["sparse training", "13", "5", "8", "2 min 3 s", "3 min 17 s"],
        ["pruning", "12", "12", "0", "9.6 s", "0 s"],
        ["fine-tuning", "12", "11", "0", "1 min 9 s", "0 s"],
        ["pruning at every ratio", "4", "4", "0", "18 s", "0 s"],
        ["all", "41", "32", "8", "3 min 40 s", "3 min 17 s"],
    ]
    assert "study: fashion-mini" in page.text


def card(page: Page, number: int) -> dict[str, Any]:
    found: dict[str, Any] = page.data["cards"]["cards"][f"trial-{number}"]
    return found


def test_every_trial_has_a_card_that_the_tables_link_to(page: Page, study: StudyRecord) -> None:
    anchors = [f"trial-{trial.number}" for trial in study.trials]
    assert list(page.data["cards"]["cards"]) == anchors
    assert set(re.findall(r'href="#(trial-\d+)"', page.body)) == set(anchors)
    facts = dict(card(page, 4)["facts"])
    tuned, pruned = study.trials[4].metrics, study.trials[4].last("prune").metrics
    assert facts["parameters"] == f"{tuned['params']:,}, {126_330 / tuned['params']:.1f}× smaller"
    assert facts["channels kept"] == f"{pruned['kept']} of 976"
    assert facts["sparse training"].replace("\xa0", " ") == "12 epochs, 25 s, shared with 2 other trials"
    assert facts["beside the dense network"].endswith("points with one seed")
    assert card(page, 4)["title"] == "Trial 4: λ 0.003 · ratio 0.6"
    assert card(page, 10)["state"] == "failed: the loss is NaN in epoch 3"
    assert dict(card(page, 10)["facts"])["fine-tuning"] == "failed: the loss is NaN in epoch 3"
    shown = re.search(r'value="(trial-\d+)" selected', page.body)
    assert shown
    assert f"to {study.trials[int(shown[1][6:])].metrics['params']:,} (" in page.text, "the headline's"


def test_trials_that_are_on_wandb_lead_to_their_runs(study: StudyRecord, tmp_path: Path) -> None:
    place = "https://wandb.example/me/slimnet"
    ledger = Ledger(tmp_path / "runs" / study.name / "wandb")
    ledger.put(place, run_id(study, 4), Entry(again=1))
    page = write(study, tmp_path)
    address = f"{place}/runs/fashion-mini-4-again1-{study.uid[:6]}"
    assert [card(page, trial.number)["run"] for trial in study.trials] == [""] * 4 + [address] + [""] * 7
    assert [row[-1] for row in page.rows("trials")[2:]] == ["–"] * 5 + ["run"] + ["–"] * 7
    assert f'<td class="text" data-value="{address}"><a href="{address}">run</a></td>' in page.body


def test_the_addresses_of_runs_need_no_network(
    study: StudyRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = study.config.wandb.model_copy(update={"artifacts": "all"})
    study = replace(study, config=study.config.model_copy(update={"wandb": wandb}))
    Ledger(tmp_path).put("https://wandb.example/me/slimnet", run_id(study, 4), Entry())
    fetched: list[InMemory] = []
    monkeypatch.setattr(InMemory, "network", lambda source: fetched.append(source))
    assert run_pages(study, tmp_path).keys() == {4}
    assert study_views(study)
    assert fetched == []


def test_a_card_has_the_widths_of_every_layer(page: Page, study: StudyRecord) -> None:
    kept = study.trials[4].last("prune").metrics["layers"]
    assert page.data["cards"]["names"] == [list(kept)], "once for all trials"
    assert card(page, 4)["widths"] == list(kept.values())


def test_of_two_passes_a_card_has_the_first_and_the_last_widths(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(TWO_PASSES, passes=2)
    first, last = (study.trials[0].stages[index].metrics["layers"] for index in (1, 4))
    page = write(study, tmp_path)
    assert card(page, 0)["widths"][0] == [first["conv"][0], last["conv"][1]]
    assert dict(card(page, 0)["facts"])["fine-tuning 2"].startswith("4 epochs")


def test_a_result_without_widths_has_a_card_without_them(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(TWO_PASSES)
    for trial in study.trials:
        del trial.last("prune").metrics["layers"]
    assert card(write(study, tmp_path), 0)["widths"] == []


def test_a_failed_trial_is_told_with_its_reason(page: Page) -> None:
    assert "Trial 10 (λ 0.0169 · ratio 0.8) failed in fine-tuning: the loss is NaN in epoch 3" in page.text


def test_nothing_in_a_study_becomes_markup(make_study: MakeStudy, tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror=alert(1)>&amp;\"'"
    study = make_study(states={0: "failed"}, reason=hostile)
    page = write(study, tmp_path)
    assert "<img" not in page.body
    assert hostile in page.text
    assert page.source.count("</script>") == 3


def test_a_study_without_a_finished_trial(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(
        [{"sparse.lambda": 0.003, "prune.ratio": 0.3}], states={0: "running"}, dense=False, goal=12
    )
    page = write(study, tmp_path)
    assert "No trial has finished yet" in page.text
    assert "0 of 12 trials complete, 1 unfinished" in page.text
    assert "Pareto front" in page.sections()
    assert "The networks" not in page.sections()
    assert page.traces("finetune-0", "validation")[0]["x"] == [0, 2]


def test_a_study_of_failed_trials_says_so_and_why(make_study: MakeStudy, tmp_path: Path) -> None:
    points = [{"sparse.lambda": 0.01, "prune.ratio": ratio} for ratio in (0.3, 0.5, 0.7)]
    page = write(make_study(points, states=dict.fromkeys(range(3), "failed")), tmp_path)
    assert "All 3 trials have failed, so there is nothing to choose from." in page.text
    assert "The reason: the loss is NaN in epoch 3. Mend it, then retry lets them run again." in page.text
    assert "No trial has finished yet" not in page.text

    going_on = make_study(points, states={0: "failed", 1: "failed", 2: "running"})
    assert "No trial has finished yet" in write(going_on, tmp_path).text


def test_a_study_without_any_trial(make_study: MakeStudy, tmp_path: Path) -> None:
    page = write(make_study([], goal=12, dense=False), tmp_path)
    assert page.sections() == ["Pareto front", "How sure this is", "All trials", "How it was run"]
    assert not page.drawings


def test_trials_before_the_dense_network(make_study: MakeStudy, tmp_path: Path) -> None:
    page = write(make_study(dense=False), tmp_path)
    assert "The dense network is not trained yet" in page.text
    assert points(page.traces("pareto-0", "parameters|validation"), "diamond") == []


def test_one_lambda_is_coloured_by_the_ratio(make_study: MakeStudy, tmp_path: Path) -> None:
    space = "{sparse.lambda: [0.01], prune.ratio: [0.5, 0.7, 0.9]}"
    study = make_study([{"sparse.lambda": 0.01, "prune.ratio": r} for r in (0.5, 0.7, 0.9)], space=space)
    page = write(study, tmp_path)
    groups = {t.get("legendgroup") for t in page.traces("pareto-0", "parameters|validation")} - {None}
    assert groups == {"ratio 0.5", "ratio 0.7", "ratio 0.9"}
    assert [t["name"] for t in page.traces("sparse-0")] == ["dense, λ 0", "λ 0.01"]


def test_a_space_without_lambda_and_ratio(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study([{"model.width": w} for w in (8, 16, 12)], space="{model.width: [8, 12, 16]}")
    page = write(study, tmp_path)
    assert page.rows("trials")[1][:4] == ["trial", "λ", "ratio", "model.width"]
    assert [t["name"] for t in page.traces("sparse-0")] == [
        "dense, λ 0",
        *(f"λ 0 · model.width {w}" for w in (8, 12, 16)),
    ]
    hollow = points(page.traces("pruned-0", "validation"), "circle-open")
    assert [x for x, _ in hollow] == [0, 1, 2], "without ratios to compare, trials stand in a row"


def test_many_continuous_lambdas_get_a_scale_instead_of_a_list(make_study: MakeStudy, tmp_path: Path) -> None:
    params = [{"sparse.lambda": 0.001 * 1.2**i, "prune.ratio": 0.3 + 0.02 * i} for i in range(20)]
    space = "{sparse.lambda: {log: [0.001, 0.1]}, prune.ratio: {range: [0.1, 0.9]}}"
    page = write(make_study(params, space=space), tmp_path)
    front = page.body.split('id="figure-pareto"')[1].split("</figure>")[0]
    assert 'type="checkbox"' not in front
    assert "λ 0.001" in front
    assert "λ 0.0319" in front


def test_sparse_training_of_two_passes_has_a_figure_for_each(make_study: MakeStudy, tmp_path: Path) -> None:
    page = write(make_study(TWO_PASSES, passes=2), tmp_path)
    assert [t["name"] for t in page.traces("sparse-1")] == ["dense, λ 0", "λ 0.003", "λ 0.00711"]
    assert sorted(t["name"] for t in page.traces("sparse-pass-2-1")) == [
        f"λ {0.003 if i % 2 == 0 else 0.00711} · ratio {0.3 + 0.1 * i:.1f}" for i in (0, 2, 1, 3)
    ]
    assert "Pass 1 of 2. A line per sparse training" in page.text
    assert "Pass 2 of 2. A line per trial: sparse training of the network that pass 1 ended with" in page.text
    assert "Of 2 passes the first is shown" in page.text


def test_of_two_passes_the_last_is_before_and_after(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(TWO_PASSES, passes=2)
    page = write(study, tmp_path)
    traces = page.traces("pruned-0", "validation")
    pruned = [stage for trial in study.trials for stage in trial.stages if stage.name == "prune-2"]
    assert sorted(y for _, y in points(traces, "circle-open")) == sorted(
        in_percent(stage.metrics["val_accuracy"]) for stage in pruned
    )
    assert "Of several passes the last is shown: its pruning, its fine-tuning" in page.text
    curve = page.traces("finetune-0", "validation")[0]
    assert curve["y"][0] == in_percent(pruned[0].metrics["val_accuracy"])
    assert curve["y"][-1] == in_percent(study.trials[0].metrics["val_accuracy"])
    assert "Of several passes the last is drawn" in page.text
    first = page.rows("trials")[3]
    assert first[3] == f"{study.trials[0].metrics['params']:,}"
    assert first[6] == f"{100 * pruned[0].metrics['val_accuracy']:.1f} %"


def test_stages_of_all_passes_are_counted(make_study: MakeStudy, tmp_path: Path) -> None:
    page = write(make_study(TWO_PASSES, passes=2), tmp_path)
    assert [row[:4] for row in page.rows("how")[1:]] == [
        ["sparse training", "9", "7", "2"],
        ["pruning", "8", "8", "0"],
        ["fine-tuning", "8", "8", "0"],
        ["all", "25", "23", "2"],
    ]


def test_a_failure_in_a_later_pass_is_told_with_its_pass(make_study: MakeStudy, tmp_path: Path) -> None:
    page = write(make_study(TWO_PASSES, passes=2, states={1: "failed"}), tmp_path)
    assert "Trial 1 (λ 0.00711 · ratio 0.4) failed in fine-tuning of pass 2: the loss is NaN" in page.text


# Controls and repeats

BEST = 0  # the trial that has them


def accurate(stage: StageRecord, accuracy: float, seed: int, kind: str) -> StageRecord:
    """A stage as another seed or a control leaves it."""
    assert stage.result is not None
    metrics = {**stage.metrics, "val_accuracy": accuracy, "test_accuracy": accuracy - 0.01}
    result = {**stage.result, "metrics": metrics}
    return replace(stage, result=result, key=f"{kind}-{stage.key[:8]}-{seed}")


def compared(
    make_study: MakeStudy, dense: Sequence[float], trial: Sequence[float], **controls: Sequence[float]
) -> StudyRecord:
    """A study whose best trial and its controls have these accuracies by seed, as has the dense network."""
    study = make_study(
        [{"sparse.lambda": 0.003, "prune.ratio": 0.5}, {"sparse.lambda": 0.04, "prune.ratio": 0.9}]
    )
    best = study.trials[BEST]
    contenders = []
    for kind, values in (("dense", dense), ("trial", trial), *controls.items()):
        stages = {"dense": (study.dense,), "uniform": (study.dense,)}.get(kind, best.stages)
        for seed, accuracy in enumerate(values, study.config.seed):
            *before, last = stages
            size = {} if kind in ("dense", "trial") else {"params": best.metrics["params"] - 10}
            last = accurate(last, accuracy, seed, kind)
            last.metrics.update(size)
            if kind in ("dense", "trial") and seed == study.config.seed:
                target = study.dense if kind == "dense" else best
                target.metrics.update(last.metrics)
                continue
            number = None if kind == "dense" else BEST
            contenders.append(ContenderRecord(kind, number, seed, "complete", None, (*before, last)))  # type: ignore[arg-type]
    return replace(study, contenders=contenders)


TRIAL = (0.880, 0.878, 0.879)
DENSE = (0.881, 0.880, 0.881)


@pytest.mark.parametrize(
    ("uniform", "words", "answer"),
    [
        ((0.860, 0.859, 0.860), ": pruning is better, +1.9 points (95 %: +", None),
        (
            (0.899, 0.899, 0.898),
            ": pruning is worse, -2.0 points (95 %: -",
            "So the answer is the narrower network",
        ),
        (
            (0.900, 0.860, 0.879),
            ": the two cannot be told apart, -0.1 points (95 %: -",
            "Pruning is not shown to be better; the simpler answer is the narrower network",
        ),
    ],
    ids=["better", "worse", "alike"],
)
def test_the_head_says_whether_pruning_beats_the_narrower_network(
    make_study: MakeStudy, tmp_path: Path, uniform: Sequence[float], words: str, answer: str | None
) -> None:
    study = compared(make_study, DENSE, TRIAL, uniform=uniform)
    text = write(study, tmp_path).text
    beside_dense = "within one point of" if "apart" not in words else "cannot be told apart from"
    assert f"(mean of 3 seeds, 16 epochs each): {beside_dense} the dense network: -0.2 points (95 %: " in text
    reached = sum(uniform) / 3
    assert "A uniformly narrower network, trained from scratch for 16 epochs, reaches " in text
    beside = text.split("reaches ")[1]
    assert beside.startswith(f"{100 * reached:.1f} ± ")
    assert words in beside
    if answer is None:
        assert "narrower network:" not in text
    else:
        params = study.trials[BEST].metrics["params"] - 10
        assert f"{answer}: {params:,} parameters, {100 * (reached - 0.01):.1f} ± " in text
    assert f"of {len(study.contenders)} controls and repeats complete" in text


@pytest.mark.parametrize(
    ("uniform", "words", "answer"),
    [
        (0.86, ": +2.0 points with one seed for pruning.", None),
        (0.90, ": -2.0 points with one seed for pruning.", "By this one seed the answer is"),
    ],
)
def test_the_head_of_one_seed_with_a_control_says_that_it_is_one(
    make_study: MakeStudy, tmp_path: Path, uniform: float, words: str, answer: str | None
) -> None:
    study = compared(make_study, DENSE[:1], TRIAL[:1], uniform=[uniform])
    for metrics in (study.dense.metrics, study.trials[BEST].metrics, study.contenders[0].metrics):
        metrics |= {"val_images": 50_000, "test_images": 10_000}
    page = write(study, tmp_path)
    assert "(16 epochs): with this one seed the smallest network within one point of the dense" in page.text
    assert words in page.text
    narrower = re.search(r"([^.]*) the narrower network: [\d,]+ parameters", page.text)
    assert (narrower[1].strip() if narrower else None) == answer
    assert [row[7] for row in page.rows("beside")[2:]] == [
        "against dense: -0.1 points with one seed",
        words[2:].removesuffix(" for pruning."),
    ]


def test_the_head_tells_other_epochs_of_the_dense_network(make_study: MakeStudy, tmp_path: Path) -> None:
    study = compared(make_study, DENSE[:1], TRIAL[:1])
    study.dense.spec["recipe"]["epochs"] = 30
    assert "on the validation split (16 epochs, dense 30): " in write(study, tmp_path).text


def test_a_baseline_that_failed_leaves_a_report_though_its_repeats_did_not(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    study = compared(make_study, DENSE, TRIAL, uniform=(0.86, 0.859, 0.86))
    failure = {"reason": "NaN loss", "detail": ""}
    page = write(
        replace(study, dense=replace(study.dense, state="failed", result=None, failure=failure)), tmp_path
    )
    assert "The dense network has failed (retry lets it run again), so there is nothing to" in page.text
    assert [row[0].removesuffix("●") for row in page.rows("beside")[1:]] == ["trial 0", "uniform"]
    assert points(page.traces("pareto-0", "parameters|validation"), "diamond") == []


def test_the_head_without_a_narrower_network_does_not_speak_of_one(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    study = compared(make_study, DENSE, TRIAL, random=TRIAL)
    text = write(study, tmp_path).text
    assert "uniformly narrower network, trained from scratch for" not in text
    assert "narrower network:" not in text


def test_simpler_ways_have_a_table(make_study: MakeStudy, page: Page, tmp_path: Path) -> None:
    assert "Compared with simpler ways" not in page.sections()
    study = compared(
        make_study,
        DENSE,
        TRIAL,
        uniform=(0.86, 0.86, 0.86),
        scratch=(0.9, 0.9, 0.9),
        random=(0.88, 0.88, 0.877),
    )
    written = write(study, tmp_path)
    assert written.sections()[:2] == ["Pareto front", "Compared with simpler ways"]
    heading, *rows = written.rows("beside")
    assert heading == ["network", "parameters", "MACs", "epochs", "seeds", "validation", "test", "comparison"]
    names = ["dense", "trial 0", "uniform", "scratch", "random"]
    assert [row[0].removesuffix("●") for row in rows] == names
    assert [row[3:5] for row in rows] == [["16", "3"], ["16", "3"], ["16", "3"], ["4", "3"], ["16", "3"]]
    for row, mean in zip(rows, (0.881, 0.879, 0.86, 0.9, 0.879), strict=True):
        assert row[5].startswith(f"{100 * mean:.1f} ± ")
    assert rows[0][7] == "–"
    assert rows[1][7].startswith("against dense: -0.2 points (95 %: ")
    for row, words in zip(
        rows[2:], ("pruned is better: +1.9", "pruned is worse: -2.1", "cannot be"), strict=True
    ):
        assert row[7].startswith(words)
    for text in ("uniform: a uniformly narrower network", "up to 3 seeds"):
        assert text in written.text


def test_simpler_ways_tell_latency_and_size_where_they_were_measured(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    study = compared(make_study, DENSE, TRIAL, uniform=(0.86, 0.86, 0.86))
    facts = {"latency_ms": 0.25, "latency_ms_64": 4.0, "file_bytes": 50_000}
    trials = [with_metrics(trial, facts) for trial in study.trials]
    heading, *rows = write(replace(study, trials=trials), tmp_path).rows("beside")
    assert heading[3:5] == ["1 image", "file"]
    assert [row[3:5] for row in rows] == [["–", "–"], ["0.25 ms", "50.0 kB"], ["–", "–"]]


def test_controls_and_means_are_drawn_with_their_errors(
    make_study: MakeStudy, page: Page, tmp_path: Path
) -> None:
    view = "parameters|validation"
    assert not {t["name"] for t in page.traces("pareto-0", view)} & {"uniform", "scratch", "random", "means"}
    study = compared(make_study, DENSE, TRIAL, uniform=(0.86, 0.87, 0.88), random=(0.83, 0.93, 0.87))
    written = write(study, tmp_path)
    traces = {t["name"]: t for t in written.traces("pareto-0", view)}
    assert "scratch" not in traces
    uniform = traces["uniform"]
    assert (uniform["x"], uniform["y"]) == ([study.trials[BEST].metrics["params"] - 10], [87.0])
    assert uniform["error_y"]["array"] == [pytest.approx(100 * 0.01 / math.sqrt(3), abs=0.01)]
    assert traces["random"]["y"] == [pytest.approx(87.67, abs=0.01)]
    means = [t for t in written.traces("pareto-0", view) if t["name"] == "means"]
    assert sorted(t["y"][0] for t in means) == [pytest.approx(87.9), pytest.approx(88.07, abs=0.01)]
    on_test = {t["name"]: t for t in written.traces("pareto-0", "parameters|test")}
    assert on_test["uniform"]["y"] == [86.0]
    assert "squares for a uniformly narrower network" in written.text
    assert "triangles" not in written.text


def test_times_of_controls_and_repeats_are_told(make_study: MakeStudy, tmp_path: Path) -> None:
    study = compared(make_study, DENSE[:2], TRIAL[:2], uniform=(0.86, 0.87))
    rows = {row[0]: row[1:3] for row in write(study, tmp_path).rows("how")[1:]}
    assert rows["sparse training"] == ["7", "6"], "the baseline, two trials, two again and two controls"
    assert rows["fine-tuning"] == ["3", "3"]
    assert "early epochs" not in rows


@pytest.fixture(scope="module")
def large(make_study: MakeStudy) -> StudyRecord:
    """A thousand trials, each with a λ of its own, of which figures can hold only some."""
    params = [
        {"sparse.lambda": 0.001 * 1.005**i, "prune.ratio": 0.1 + 0.8 * (i * 397 % 1000) / 1000}
        for i in range(1000)
    ]
    space = "{sparse.lambda: {log: [0.001, 0.2]}, prune.ratio: {range: [0.1, 0.9]}}"
    study = make_study(params, space=space, curves=True)
    return replace(study, front=study.front[::5])


@pytest.fixture(scope="module")
def large_page(large: StudyRecord, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return write(large, tmp_path_factory.mktemp("large"))


def test_of_many_trials_the_front_and_some_others_are_drawn(large: StudyRecord, large_page: Page) -> None:
    traces = large_page.traces("finetune-0", "validation")
    drawn = [int(trace["name"].split(":")[0]) for trace in traces]
    assert len(drawn) == 100
    assert set(large.front) == set(drawn[: len(large.front)])
    others = drawn[len(large.front) :]
    assert min(others) < 20
    assert max(others) > 980
    assert "100 of 1,000 trials are drawn: the front and some of the others" in large_page.text
    assert len(large_page.rows("trials")) == 1003


def test_of_many_sparse_trainings_some_are_drawn_evenly(large_page: Page) -> None:
    names = [trace["name"] for trace in large_page.traces("sparse-0")]
    assert len(names) == 100
    assert names[0] == "dense, λ 0"
    assert names[-1] == "λ 0.146"
    assert "100 of 1,001 are drawn, chosen evenly over λ" in large_page.text


def test_of_many_curves_over_the_ratio_some_are_drawn_evenly(large_page: Page) -> None:
    names = [trace["name"] for trace in large_page.traces("ratios-0", "copied")]
    assert (len(names), names[0], names[-1]) == (100, "λ 0.001", "λ 0.146")
    assert "100 of 1,000 are drawn, chosen evenly over λ" in large_page.text


def test_every_trial_is_a_point_and_those_of_one_colour_are_drawn_together(
    large: StudyRecord, large_page: Page
) -> None:
    traces = large_page.traces("pareto-0", "parameters|validation")
    drawn = points(traces, "circle") + points(traces, "circle-open")
    assert sorted(drawn) == sorted(
        (t.metrics["params"], in_percent(t.metrics["val_accuracy"])) for t in large.complete
    )
    assert len(traces) < 70


def test_a_thousand_trials_fit_in_six_megabytes_and_a_dozen_in_three(page: Page, large_page: Page) -> None:
    assert len(large_page.source.encode()) < 6_000_000
    assert len(page.source.encode()) < 2_000_000  # a hundred add less than one


def test_a_front_that_is_too_long_is_drawn_in_part(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study([{"sparse.lambda": 0.01, "prune.ratio": 0.1 + i / 200} for i in range(120)])
    assert len(study.front) == 120
    page = write(study, tmp_path)
    assert len(page.traces("finetune-0", "validation")) == 100
    assert "100 of 120 trials are drawn: some of the front." in page.text


def test_a_history_is_read_for_what_is_drawn_alone(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study([{"sparse.lambda": 0.01, "prune.ratio": 0.1 + i / 500} for i in range(200)])
    stages = {id(stage): stage for trial in study.trials for stage in trial.stages}
    write(study, tmp_path)
    assert sum(reads_of(stage) for stage in stages.values()) <= 100 + 3  # and γ, from the same training
    assert max(reads_of(stage) for stage in stages.values()) <= 2


def reads_of(stage: StageRecord) -> int:
    reads: int = stage.source.reads  # type: ignore[attr-defined]
    return reads


def test_a_diverged_training_can_be_reported(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(TWO_PASSES)
    for row in study.trials[0].first("sparse").history:
        row |= {"loss": math.nan, "near_zero": math.nan, "lambda": math.inf if row["epoch"] > 3 else 0.01}
        row["gamma"] = {"counts": [0], "edges": [math.nan, math.nan]}
        if "val_accuracy" in row:
            row["val_accuracy"] = math.nan
    page = write(study, tmp_path)
    assert page.traces("sparse-1")[1]["y"] == [None, None, None]
    assert [page.traces(f"gamma-{number}")[0]["name"] for number in (0,)] == ["λ 0.00711"]


def test_the_headline_needs_neither_plotly_nor_wandb() -> None:
    script = (
        "import sys; from sweeps.report import headline, write_report; "
        "assert not {'plotly', 'wandb'} & set(sys.modules), sorted(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_the_page_is_written_in_one_step(study: StudyRecord, tmp_path: Path) -> None:
    first = write_report(study, tmp_path / "report")
    assert write_report(study, tmp_path / "report") == first == tmp_path / "report" / "index.html"
    assert os.listdir(tmp_path / "report") == ["index.html"]


def test_a_folder_that_cannot_be_made_is_named(study: StudyRecord, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SlimnetError, match=r"file/report/index\.html"):
        write_report(study, tmp_path / "file" / "report")


def test_nothing_is_fetched_from_elsewhere(page: Page) -> None:
    assert "default-src 'none'" in page.source
    assert not re.search(r"<(script|link|img|iframe)[^>]*\s(src|href)=", page.body)
    assert all(link.startswith(("#", "networks/")) for link in re.findall(r'href="(.*?)"', page.body))
