"""Tracking as a user meets it: commands, with stages that take no time, against the stand-in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_wandb import FakeWandb
from projected import Wait
from running import Command

from benchmarks import instant
from sweeps.executors.inline import InlineExecutor
from sweeps.tracking import projection

TRIALS = 3


@pytest.fixture(autouse=True)
def instantly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sweeps.executors.local.LocalExecutor", lambda *given: InlineExecutor(instant.compute, 2)
    )
    monkeypatch.setattr(projection, "CONFIRM_SECONDS", 0.5)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def run(command: Command, runs: Path, *options: str) -> tuple[int, str, str]:
    return command("run", "smoke", "--runs", runs, *options)


def rows_of(server: FakeWandb) -> dict[str, int]:
    """The rows of each run, by its name on the page."""
    return {one.attributes["displayName"]: len(one.history) for one in server.runs.values()}


@pytest.mark.parametrize("options", [("--wandb", "online"), ("--wandb", "online", "-q")])
def test_online_without_a_key_begins_nothing(command: Command, runs: Path, options: tuple[str, ...]) -> None:
    status, out, err = run(command, runs, *options)

    assert status == 2
    assert "there is no API key" in err
    assert "--wandb offline" in err
    assert out == ""
    assert not runs.exists()


def test_a_sweep_is_on_the_server_when_it_ends_and_says_where(
    command: Command, runs: Path, server: FakeWandb
) -> None:
    status, out, err = run(command, runs)

    assert (status, err) == (0, "")
    assert f"W&B: {server.url}/me/slimnet" in out
    found = rows_of(server)
    assert [found.pop(name) for name in ("dense", "study smoke")] == [3 + 1, TRIALS]
    assert list(found.values()) == [2 + 1 + 1] * TRIALS
    page = runs / "smoke" / "report" / "index.html"
    place = f"{server.url}/me/slimnet"
    assert f'<a href="{place}">runs on W&amp;B</a></p>' in page.read_text()
    status, out, err = command("report", "smoke", "--runs", runs, "--wandb")
    assert (status, err) == (0, "")
    assert f'<a href="{place}/reports/smoke--' in page.read_text()
    again = command("sync", "smoke", "--runs", runs)
    assert again == (0, "nothing to upload: the server has every run of this study, complete\n", "")


def test_a_server_that_fails_is_told_while_the_sweep_runs_with_the_command_that_completes_the_record(
    command: Command, runs: Path, server: FakeWandb, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait(2)
    server.stop()

    status, out, err = run(command, runs, "-q")

    assert status == 0
    (line,) = err.splitlines()
    assert "continuing offline" in line
    assert line.endswith(f"sweeps sync smoke --runs {runs}")
    server.start()
    wait(300)
    status, out, err = command("sync", "smoke", "--runs", runs)
    assert (status, err) == (0, "")
    assert out.count(": uploaded") == TRIALS + 2
    assert sum(rows_of(server).values()) == 4 * TRIALS + 4 + TRIALS


def test_sync_says_what_was_deleted_and_how_to_bring_it_back(
    command: Command, runs: Path, server: FakeWandb
) -> None:
    run(command, runs)
    gone = next(
        name for name, one in server.runs.items() if one.attributes["displayName"].startswith("trial 1")
    )
    server.delete(gone)

    status, out, err = command("sync", "smoke", "--runs", runs)
    assert (status, err) == (1, "")
    assert f"{gone}: failed: it is not on the server any more; was it deleted there?" in out
    assert out.rstrip().endswith("--force")

    status, out, err = command("sync", "smoke", "--runs", runs, "--json")
    (result,) = json.loads(out)
    assert (status, result["run_id"], result["gone"]) == (1, gone, True)

    status, out, err = command("sync", "smoke", "--runs", runs, "--force")
    assert (status, err) == (0, "")
    assert out.startswith(f"{gone}: uploaded, begun anew as smoke-1-again1-")
    assert len(rows_of(server)) == TRIALS + 2
    assert command("sync", "smoke", "--runs", runs)[0] == 0
