"""What a projection does again and what it does not, and what it notes; wandb itself is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tracked import contender, failed, run_id, study, trial

from sweeps.records import StudyRecord
from sweeps.tracking import projection, sdk
from sweeps.tracking.ledger import FILE, FOLDER, UNKNOWN, Entry, Ledger
from sweeps.tracking.projection import Projector
from sweeps.tracking.server import Held
from sweeps.tracking.views import Row, RunView


@dataclass
class Calls:
    """What was made and sent, as run ids."""

    views: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    next_step: dict[str, int] = field(default_factory=dict)


@dataclass
class TakesEverything:
    """A server that has what it was sent; its rows are those that were sent in this test."""

    calls: Calls
    place: str = "https://wandb.example/me/slimnet"

    def held(self, ids: list[str]) -> dict[str, Held]:
        rows = self.calls.rows
        return {
            one: Held(one, rows.get(one, 0), {}, (), frozenset()) for one in ids if one in self.calls.opened
        }

    def set_seconds(self, held: Held, seconds: float) -> None:
        pass


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A server that takes everything, and a note of each view that is made."""
    calls = Calls()

    def noted(make: Callable[..., RunView]) -> Callable[..., RunView]:
        def make_noted(*arguments: Any) -> RunView:
            view = make(*arguments)
            calls.views.append(view.id)
            return view

        return make_noted

    def open_run(view: RunView, *_: Any, **__: Any) -> Any:
        calls.opened.append(view.id)
        return SimpleNamespace(starting_step=calls.next_step.get(view.id, 0), id=view.id)

    def log_rows(run: Any, rows: Iterator[tuple[int, Row]]) -> int | None:
        steps = [step for step, _ in rows]
        calls.sent += [run.id] * len(steps)
        calls.rows[run.id] = calls.rows.get(run.id, 0) + len(steps)
        if steps:
            calls.next_step[run.id] = steps[-1] + 1
        return steps[-1] if steps else None

    monkeypatch.setattr(projection, "Server", lambda project, entity: TakesEverything(calls))
    for name in ("dense_view", "trial_view", "contender_view", "study_view"):
        monkeypatch.setattr(projection, name, noted(getattr(projection, name)))
    monkeypatch.setattr(sdk, "open_run", open_run)
    monkeypatch.setattr(sdk, "log_rows", log_rows)
    monkeypatch.setattr(sdk, "finish_run", lambda *_: None)
    monkeypatch.setattr(sdk, "write_summary", lambda *_: None)
    monkeypatch.setattr(projection, "ASK_SECONDS", 0.0)
    return calls


def projector(study_dir: Path) -> Projector:
    return Projector(study_dir, online=True, warn=pytest.fail)


def test_only_trials_that_have_changed_are_looked_at(study_dir: Path, calls: Calls) -> None:
    done, running = trial(0), trial(1, 1, False, 0)
    online = projector(study_dir)
    online.project(study(done, running))
    calls.views.clear()
    calls.sent.clear()

    online.project(study(done, trial(1, 3, False, 0)))
    assert run_id(0) not in calls.views
    assert calls.sent == [run_id(1)] * 2

    calls.views.clear()
    retried = failed(done, "killed")
    online.project(study(retried, running))
    assert run_id(0) in calls.views


def test_only_controls_that_have_changed_are_looked_at(study_dir: Path, calls: Calls) -> None:
    done, running = contender("uniform", 0, 0), contender("uniform", 0, 1, 1)
    first, dense = trial(0), study().dense
    online = projector(study_dir)
    online.project(replace(study(first, contenders=[done, running]), dense=dense))
    assert calls.sent.count(run_id("uniform-0-0")) == 3
    calls.views.clear()
    calls.sent.clear()

    later = contender("uniform", 0, 1, 2)
    online.project(replace(study(first, contenders=[done, later]), dense=dense))

    assert calls.views == [run_id("uniform-0-1")]
    assert calls.sent == [run_id("uniform-0-1")]


def test_nothing_is_looked_at_where_nothing_has_changed(study_dir: Path, calls: Calls) -> None:
    record = study(trial(0), trial(1, 2, False, 0))
    online = projector(study_dir)
    online.project(record)
    calls.views.clear()

    online.project(record)

    assert calls.views == []


def test_the_run_of_the_study_is_written_less_often_the_more_trials_there_are(
    study_dir: Path, calls: Calls
) -> None:
    trials = [trial(number) for number in range(60)]
    online = projector(study_dir)
    for count in range(1, 61):
        online.project(study(*trials[:count], goal=61), final=count == 60)

    written = calls.views.count(run_id("study"))
    assert 10 < written < 40, "with each of the first ten, then with every tenth part more"
    assert calls.sent.count(run_id("study")) == 60
    assert calls.sent.count(run_id(7)) == 6


PLACE = "https://wandb.example/me/slimnet"


def test_the_ledger_is_a_line_per_change_and_the_last_one_counts(study_dir: Path) -> None:
    ledger = Ledger(study_dir)
    ledger.put(FOLDER, "a", Entry("1", folder="offline-run-a"))
    ledger.put(PLACE, "b", Entry())
    ledger.put(PLACE, "b", Entry())  # no change
    ledger.put(PLACE, "b", Entry("2"))
    ledger.put(f"{PLACE}-2", "b", Entry("1"))
    ledger.put(PLACE, "c", Entry("3"))
    ledger.drop(PLACE, "c")
    ledger.drop(PLACE, "d")

    assert (study_dir / FILE).read_text().count('"run"') == 6
    again = Ledger(study_dir)
    assert again.items(FOLDER) == [("a", Entry("1", folder="offline-run-a"))]
    assert again.items(PLACE) == [("b", Entry("2"))]
    assert again.servers("b") == [PLACE, f"{PLACE}-2"]
    assert again.servers("a") == again.servers("c") == []


def test_what_an_earlier_version_has_noted_is_asked_for(study_dir: Path) -> None:
    """It did not note which server, and took the upload for granted."""
    (study_dir / FILE).write_text(
        '{"run": "a", "entry": {"home": "server", "mark": "1", "folder": null, "chain": "c"}}\n'
        '{"run": "b", "entry": {"home": "folder", "mark": "1", "folder": "offline-run-b", "chain": "c"}}\n'
        '{"run": "d", "entry": {"home": "server", "mark": "", "folder": null, "chain": "c"}}\n'
        '{"run": "d", "entry": null}\n'
    )
    ledger = Ledger(study_dir)
    assert ledger.items(UNKNOWN) == [("a", Entry("", "c"))]
    assert ledger.items(FOLDER) == [("b", Entry("1", "c", "offline-run-b"))]


@pytest.mark.parametrize(
    "damage", ['\n{"run": "b", "ent', "\nnull", '\n{"run": "b", "entry": {"x": 1}}', "\n\0"]
)
def test_a_damaged_line_of_the_ledger_harms_no_other(study_dir: Path, damage: str) -> None:
    Ledger(study_dir).put(PLACE, "a", Entry("1"))
    with (study_dir / FILE).open("a") as file:
        file.write(damage)

    Ledger(study_dir).put(PLACE, "c", Entry("2"))

    assert Ledger(study_dir).items(PLACE) == [("a", Entry("1")), ("c", Entry("2"))]


def test_the_row_of_the_study_is_sent_once_with_what_stands_beside_it(study_dir: Path, calls: Calls) -> None:
    record = study(trial(0), goal=2, contenders=[contender("uniform", 0, 0)])
    online = projector(study_dir)
    online.project(record)
    online.project(record, final=True)
    assert calls.sent.count(run_id("study")) == 1


# What a later version trains otherwise


def trained_otherwise(record: StudyRecord, key: str) -> StudyRecord:
    return replace(record, dense=replace(record.dense, key=key))


def test_rows_of_another_training_have_a_run_of_their_own(study_dir: Path, calls: Calls) -> None:
    """The trials are what they were, and are left alone."""
    before = study(trial(0), goal=1)
    projector(study_dir).project(before, final=True)
    assert calls.sent.count(run_id("dense")) == 4
    calls.sent.clear()
    after = trained_otherwise(before, "other")

    projector(study_dir).project(after, final=True)

    (own,) = {sent for sent in calls.sent if sent != run_id("study")}
    assert own.startswith("smoke-dense-")
    assert own.endswith(run_id("dense").removeprefix("smoke-dense"))
    assert own != run_id("dense")
    assert calls.sent.count(own) == 4
    for record in (before, after):
        calls.sent.clear()
        assert projector(study_dir).missing_on_server(record) == []
        projector(study_dir).project(record)
        assert own not in calls.sent
        assert run_id("dense") not in calls.sent


def test_a_training_that_goes_on_keeps_its_run(study_dir: Path, calls: Calls) -> None:
    projector(study_dir).project(study(trial(0, 2, False, 0), dense=1), final=True)
    projector(study_dir).project(study(failed(trial(0, True, True, 1), "killed")), final=True)
    projector(study_dir).project(study(trial(0), goal=1), final=True)
    assert set(calls.opened) == {run_id(name) for name in (0, "dense", "study")}


def test_a_run_that_is_not_on_the_server_keeps_its_id(study_dir: Path, calls: Calls) -> None:
    """Its folder is replaced as a whole."""
    folder = study_dir / "wandb" / f"offline-run-1-{run_id('dense')}"
    folder.mkdir(parents=True)
    (folder / f"run-{run_id('dense')}.wandb").touch()
    Ledger(study_dir / "wandb").put(FOLDER, run_id("dense"), Entry("mark", "other", folder.name))

    projector(study_dir).project(study(trial(0), goal=1), final=True)

    assert set(calls.opened) == {run_id(name) for name in (0, "dense", "study")}
