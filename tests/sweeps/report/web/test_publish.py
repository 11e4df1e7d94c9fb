"""Reports and views, published by the real SDK on a server on the loopback, and loaded from it again."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from fake_wandb import USER, FakeWandb, ServerRun
from projected import track
from running import Command

from slimnet.errors import SlimnetError
from sweeps.records import StudyRecord
from sweeps.report.web.build import WebPages
from sweeps.report.web.publish import publish
from sweeps.tracking import sync
from sweeps.tracking.study_view import study_views
from sweeps.tracking.views import run_id

SYNC = "python -m sweeps sync fashion-mini"
PLACE = f"{USER}/slimnet"
FOLDER = Path("runs/fashion-mini")  # where nothing is noted


def hold_runs(server: FakeWandb, study: StudyRecord) -> None:
    """Let the server have every run of a study."""
    runs = server.projects.setdefault(PLACE, {})
    runs |= {view.id: ServerRun(view.id, PLACE) for view in study_views(study)}


def test_a_saved_report_is_the_same_when_it_is_loaded(server: FakeWandb, study: StudyRecord) -> None:
    hold_runs(server, study)
    published = publish(study, FOLDER, SYNC)

    addresses = {
        trial.number: f"{server.url}/{PLACE}/runs/{run_id(study, trial.number)}" for trial in study.trials
    }
    built = WebPages(study, USER, "slimnet", addresses=addresses).report
    loaded = wr.Report.from_url(published.report)
    assert loaded.title == built.title
    assert "/reports/fashion-mini--" in published.report
    assert shape(loaded) == shape(built)
    assert published.lacking == [0]
    assert published.shared is None


def shape(report: wr.Report) -> str:
    """What a report shows, without the ids that are drawn anew each time."""
    spec = json.loads(report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    return json.dumps(_kept(spec["blocks"]), indent=1, sort_keys=True)


def _kept(value: Any) -> Any:
    """Without ids, and without the layout of tables, which wandb-workspaces 0.4.13 does not load."""
    if isinstance(value, dict):
        left_out = {"id", "__id__", *(["layout"] if value.get("viewType") == "Weave" else [])}
        return {key: _kept(inner) for key, inner in value.items() if key not in left_out}
    return [_kept(inner) for inner in value] if isinstance(value, list) else value


def test_the_view_of_the_project_has_the_panels_of_the_report(server: FakeWandb, study: StudyRecord) -> None:
    hold_runs(server, study)
    view = ws.Workspace.from_url(publish(study, FOLDER, SYNC).view)
    assert view.name == "fashion-mini"
    assert [section.name for section in view.sections][:2] == ["Pareto front", "What the search found"]
    assert view.runset_settings.filters == f"Config(\"study_uid\") == '{study.uid}'"


def test_publishing_again_updates_in_place(
    server: FakeWandb, study: StudyRecord, make_study: Callable[..., StudyRecord]
) -> None:
    hold_runs(server, study)
    first = publish(make_study(states={3: "running"}), FOLDER, SYNC)
    again = publish(study, FOLDER, SYNC)
    assert (again.report, again.view) == (first.report, first.view)
    assert sorted(view.kind for view in server.views) == ["project-view", "runs"]
    assert "11 of 12 trials complete" in server.views[0].description

    other = make_study(name="other")
    hold_runs(server, other)
    publish(other, FOLDER, SYNC)
    assert len(server.views) == 4


def test_a_link_to_share_stays_the_same(server: FakeWandb, study: StudyRecord) -> None:
    hold_runs(server, study)
    links = [publish(study, FOLDER, SYNC, share=True).shared for _ in range(2)]
    assert links[0] == links[1]
    assert "accessToken=" in str(links[0])
    assert [token["projects"] for token in server.views[0].tokens] == [
        [{"entityName": USER, "name": "slimnet"}]
    ]


def test_runs_that_are_not_on_the_server_are_counted(server: FakeWandb, study: StudyRecord) -> None:
    hold_runs(server, study)
    server.runs.popitem()
    assert publish(study, FOLDER, SYNC).lacking == [1]


def test_runs_that_were_begun_again_are_found(
    server: FakeWandb, make_study: Callable[..., StudyRecord], tmp_path: Path
) -> None:
    """After `sync --force` they have other ids."""
    record = make_study([{"sparse.lambda": 0.01, "prune.ratio": 0.5}])
    track(tmp_path, record)
    for name in list(server.runs):
        server.delete(name)
    sync(tmp_path, record)
    assert all(result.ok for result in sync(tmp_path, record, force=True))

    published = publish(record, tmp_path, SYNC)

    assert published.lacking == [0]
    left_out = ws.Workspace.from_url(published.view).runset_settings.filters
    assert f"Metric(\"ID\") not in ['fashion-mini-dense-{record.uid[:6]}'" in left_out


def test_without_a_run_on_the_server_it_is_said_how_to_upload_them(
    server: FakeWandb, study: StudyRecord
) -> None:
    with pytest.raises(SlimnetError, match=f"has no run of fashion-mini; upload them first with: {SYNC}"):
        publish(study, FOLDER, SYNC)
    assert server.views == []


def test_a_refused_key_is_an_error(server: FakeWandb, study: StudyRecord) -> None:
    server.refuse_key = True
    with pytest.raises(SlimnetError, match="W&B did not take the report"):
        publish(study, FOLDER, SYNC)


def test_without_the_extra_it_is_said_how_to_install_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    status, _, err = command("report", "smoke", "--wandb", "--runs", tmp_path / "runs")
    assert status == 2
    assert "pip install wandb-workspaces" in " ".join(err.split())
    assert not (tmp_path / "runs").exists()


def test_without_a_key_it_is_said_how_to_set_one(command: Command, tmp_path: Path) -> None:
    status, _, err = command("report", "smoke", "--wandb", "--runs", tmp_path / "runs")
    assert status == 2
    assert "wandb login" in " ".join(err.split())


def test_trials_lead_to_their_runs(server: FakeWandb, study: StudyRecord) -> None:
    hold_runs(server, study)
    number = study.front[0]
    del server.runs[run_id(study, number)]
    report = wr.Report.from_url(publish(study, FOLDER, SYNC).report)
    (table,) = (
        block.text for block in report.blocks if isinstance(block, wr.MarkdownBlock) and "W&B |" in block.text
    )
    links = re.findall(r"\[run\]\((.*)\) \|", table)
    assert links == [
        f"{server.url}/{PLACE}/runs/{run_id(study, trial.number)}"
        for trial in study.trials
        if trial.number != number
    ]


@pytest.mark.parametrize("options", [["--share"], ["--wandb", "--watch"]])
def test_options_that_do_not_go_together(command: Command, options: list[str]) -> None:
    status, _, err = command("report", "smoke", *options)
    assert status == 2
    assert "--wandb" in err
