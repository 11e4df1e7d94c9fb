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
from sweeps.tracking.ledger import FILE, Entry, Ledger
from sweeps.tracking.projection import Projector
from sweeps.tracking.views import Row, RunView


@dataclass
class Calls:
    """What was made and sent, as run ids."""

    views: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)


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

    def open_run(view: RunView, *_: Any) -> Any:
        calls.opened.append(view.id)
        return SimpleNamespace(starting_step=0, id=view.id)

    def log_rows(run: Any, rows: Iterator[tuple[int, Row]]) -> int | None:
        steps = [step for step, _ in rows]
        calls.sent += [run.id] * len(steps)
        return steps[-1] if steps else None

    for name in ("dense_view", "trial_view", "contender_view", "study_view"):
        monkeypatch.setattr(projection, name, noted(getattr(projection, name)))
    monkeypatch.setattr(sdk, "open_run", open_run)
    monkeypatch.setattr(sdk, "log_rows", log_rows)
    monkeypatch.setattr(sdk, "finish_run", lambda *_: None)
    return calls


def projector(study_dir: Path) -> Projector:
    return Projector(study_dir, online=True, warn=pytest.fail)


def test_only_trials_that_have_changed_are_looked_at(study_dir: Path, calls: Calls) -> None:
    done, running = trial(0), trial(1, 1, False, 0)
    online = projector(study_dir)
    online.project(study(done, running))
    calls.views.clear()
    calls.sent.clear()

    online.project(study(done, trial(1, 3, False, 0), dense=False))
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

    written = calls.sent.count(run_id("study"))
    assert 10 < written < 40, "with each of the first ten, then with every tenth part more"
    assert calls.sent.count(run_id(7)) == 6


def test_the_ledger_is_a_line_per_change_and_the_last_one_counts(study_dir: Path) -> None:
    ledger = Ledger(study_dir)
    ledger.put("a", Entry("folder", "1", "offline-run-a"))
    ledger.put("b", Entry("server", ""))
    ledger.put("b", Entry("server", ""))  # no change
    ledger.put("b", Entry("server", "2"))
    ledger.put("c", Entry("server", "3"))
    ledger.drop("c")
    ledger.drop("d")

    assert (study_dir / FILE).read_text().count('"run"') == 5
    assert Ledger(study_dir).items() == [
        ("a", Entry("folder", "1", "offline-run-a")),
        ("b", Entry("server", "2")),
    ]


@pytest.mark.parametrize(
    "damage", ['\n{"run": "b", "ent', "\nnull", '\n{"run": "b", "entry": {"x": 1}}', "\n\0"]
)
def test_a_damaged_line_of_the_ledger_harms_no_other(study_dir: Path, damage: str) -> None:
    Ledger(study_dir).put("a", Entry("server", "1"))
    with (study_dir / FILE).open("a") as file:
        file.write(damage)

    Ledger(study_dir).put("c", Entry("server", "2"))

    assert Ledger(study_dir).items() == [("a", Entry("server", "1")), ("c", Entry("server", "2"))]


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


def by_an_earlier_version(study_dir: Path, record: StudyRecord) -> None:
    """Sends a study; the ledger does not say which stages the rows are of."""
    projector(study_dir).project(record, final=True)
    ledger = Ledger(study_dir / "wandb")
    for run, entry in ledger.items():
        ledger.put(run, replace(entry, chain=None))


@pytest.mark.parametrize("rows", ["the same", "begun", "other"])
def test_of_what_an_earlier_version_has_sent_only_what_is_certain_goes_on(
    study_dir: Path, calls: Calls, rows: str
) -> None:
    now = study(trial(0), goal=1)
    sent = {"the same": now, "begun": study(trial(0), goal=1, dense=1), "other": trained_otherwise(now, "x")}
    by_an_earlier_version(study_dir, sent[rows])
    calls.opened.clear()

    projector(study_dir).project(now, final=True)

    assert run_id(0) not in calls.opened
    assert run_id("dense") not in calls.opened
    assert (calls.opened != []) == (rows != "the same")


def test_what_an_earlier_version_was_interrupted_in_goes_on_in_its_run(study_dir: Path, calls: Calls) -> None:
    begun = study(trial(0, 2, False, 0), dense=1)
    by_an_earlier_version(study_dir, begun)
    online = projector(study_dir)
    online.project(begun)
    online.project(study(trial(0), goal=1), final=True)
    assert set(calls.opened) == {run_id(name) for name in (0, "dense", "study")}


def test_a_run_that_is_not_on_the_server_keeps_its_id(study_dir: Path, calls: Calls) -> None:
    """Its folder is replaced as a whole."""
    folder = study_dir / "wandb" / f"offline-run-1-{run_id('dense')}"
    folder.mkdir(parents=True)
    (folder / f"run-{run_id('dense')}.wandb").touch()
    Ledger(study_dir / "wandb").put(run_id("dense"), Entry("folder", "mark", folder.name, "other"))

    projector(study_dir).project(study(trial(0), goal=1), final=True)

    assert set(calls.opened) == {run_id(name) for name in (0, "dense", "study")}
