"""Comparisons of studies, published by the real SDK on a server on the loopback, and loaded from it again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import wandb_workspaces.reports.v2 as wr
from fake_wandb import USER, FakeWandb, ServerRun
from running import Command

from benchmarks import instant
from benchmarks.driver import run_in
from slimnet.errors import SlimnetError
from sweeps.config import load_config, resolve
from sweeps.executors.inline import InlineExecutor
from sweeps.records import StudyRecord
from sweeps.report.compare import compare, verdict
from sweeps.report.figures.fronts import colours
from sweeps.report.web.publish import Published, publish_comparison
from sweeps.tracking.study_view import study_views
from sweeps.tracking.views import run_id

OTHER = "elsewhere"  # the project of the second study
Pair = tuple[StudyRecord, StudyRecord]


@pytest.fixture
def pair(make_study: Callable[..., StudyRecord]) -> Pair:
    """A study, and another with less of a front and other epochs, in another project."""
    less = make_study([{"sparse.lambda": 0.003, "prune.ratio": ratio} for ratio in (0.3, 0.5)], name="less")
    config = resolve(less.config, {"finetune.epochs": 9})
    elsewhere = config.wandb.model_copy(update={"project": OTHER})
    return make_study(name="more"), replace(less, config=config.model_copy(update={"wandb": elsewhere}))


def hold_runs(server: FakeWandb, study: StudyRecord) -> None:
    """Let the server have every run of a study."""
    place = f"{USER}/{study.config.wandb.project}"
    runs = server.projects.setdefault(place, {})
    runs |= {view.id: ServerRun(view.id, place) for view in study_views(study)}


def publish(*studies: StudyRecord, share: bool = False) -> Published:
    folders = [Path("runs") / study.name for study in studies]  # where nothing is noted
    return publish_comparison(compare(studies), folders, [f"sync {one.name}" for one in studies], share=share)


def test_it_shows_all_fronts_in_one_chart_and_says_what_the_page_on_disk_says(
    server: FakeWandb, pair: Pair
) -> None:
    for study in pair:
        hold_runs(server, study)
    published = publish(*pair)
    assert (published.view, published.lacking) == (None, [0, 0])

    report = wr.Report.from_url(published.report)
    assert (report.project, report.title) == ("slimnet", "more and less")
    (verdict_,) = (block for block in report.blocks if isinstance(block, wr.CalloutBlock))
    assert verdict_.text == verdict(compare(pair))
    assert "a hypervolume of" in verdict_.text
    (grid,) = (block for block in report.blocks if isinstance(block, wr.PanelGrid))
    assert [(one.name, one.project) for one in grid.runsets] == [("more", "slimnet"), ("less", OTHER)]
    for study, one in zip(pair, grid.runsets, strict=True):
        assert study.uid in str(one.filters)
        assert f"in {study.front}" in str(one.filters)
    assert [panel.title for panel in grid.panels] == [
        "validation accuracy over parameters",
        "validation accuracy over MACs",
    ]
    spec = json.loads(report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    (painted,) = (b["metadata"]["customRunColors"] for b in spec["blocks"] if b["type"] == "panel-grid")
    assert painted == {
        run_id(study, number): colours(pair)[study.name] for study in pair for number in study.front
    }
    written = "\n".join(block.text for block in report.blocks if isinstance(block, wr.MarkdownBlock))
    assert "| finetune.epochs | 4 | 9 |" in written
    assert "| more | 12 |" in written


def test_publishing_again_updates_in_place(server: FakeWandb, pair: Pair) -> None:
    more, less = pair
    less = replace(less, config=more.config)  # in the same project
    for study in (more, less):
        hold_runs(server, study)
    links = [publish(*studies, share=True) for studies in ((more, less), (more, less), (less, more))]
    assert len({one.report.partition("--")[2] for one in links}) == 1
    assert links[0].shared == links[1].shared
    assert len(server.views) == 1

    third = replace(less, name="third", uid="third-1a2b3c4d")
    hold_runs(server, third)
    publish(more, less, third)
    assert len(server.views) == 2


def test_runs_that_are_not_on_the_server_are_told(server: FakeWandb, pair: Pair) -> None:
    more, less = pair
    hold_runs(server, more)
    with pytest.raises(SlimnetError, match=f"{OTHER} has no run of less; upload them first with: sync less"):
        publish(*pair)
    assert server.views == []
    hold_runs(server, less)
    del server.projects[f"{USER}/{OTHER}"][run_id(less, 0)]
    assert publish(*pair).lacking == [0, 1]


def test_the_command_publishes_and_the_page_on_disk_links_to_it(
    server: FakeWandb, tmp_path: Path, command: Command
) -> None:
    runs, names = tmp_path / "runs", ("smoke", "twin")
    for name in names:
        config = load_config("smoke", [f"study={name}"])
        hold_runs(server, run_in(runs, config, InlineExecutor(instant.compute, workers=2)))
    both = ("smoke", runs / "twin" / "config.yaml", "--runs", runs)

    page = runs / "smoke" / "report" / "beside-twin.html"
    server.refuse_key = True
    assert command("compare", *both, "--wandb")[0] == 2
    assert page.is_file()
    server.refuse_key = False

    status, out, err = command("compare", *both, "--wandb", "--share")
    assert status == 0, err
    (address,) = (line.split(": ", 1)[1] for line in out.splitlines() if line.startswith("comparison on W&B"))
    assert "everybody with this link can see the report: " in out
    assert wr.Report.from_url(address).title == "smoke and twin"
    assert f'<a href="{address}">comparison on W&amp;B</a>' in page.read_text()
    page.unlink()
    assert command("compare", *both)[0] == 0
    assert address in page.read_text()


def test_without_the_extra_or_a_key_it_is_said_what_to_do(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("compare", "smoke", "fashion-mini", "--runs", tmp_path / "runs")
    status, _, err = command(*arguments, "--wandb")
    assert (status, "wandb login" in " ".join(err.split())) == (2, True)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    status, _, err = command(*arguments, "--wandb")
    assert (status, "compare --wandb needs the package wandb-workspaces" in " ".join(err.split())) == (
        2,
        True,
    )
    assert not (tmp_path / "runs").exists()
    for options in (["--share"], ["--json", "--wandb"]):
        status, _, err = command(*arguments, *options)
        assert (status, "--wandb" in err) == (2, True)
