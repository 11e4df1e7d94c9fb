"""The command that puts studies beside each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from running import Command, Sweep


def with_a_twin(finished: Sweep, folder: Path, **changes: str) -> Path:
    """The runs with the finished sweep, and with the same again as study "twin", changed in its config."""
    runs = folder / "runs"
    shutil.copytree(finished.runs, runs)
    shutil.copytree(runs / "smoke", runs / "twin")
    config = runs / "twin" / "config.yaml"
    text = config.read_text().replace("study: smoke", "study: twin")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    return runs


def test_two_studies_are_compared_on_the_terminal_and_on_a_page(
    finished: Sweep, tmp_path: Path, command: Command
) -> None:
    runs = with_a_twin(finished, tmp_path)
    twin = str(runs / "twin" / "config.yaml")
    status, out, _ = command("compare", "smoke", twin, "--runs", runs)
    assert status == 0
    assert "The fronts of smoke and twin cover the same in validation accuracy and parameters." in out
    page = runs / "smoke" / "report" / "beside-twin.html"
    assert f"comparison: {page}" in out
    assert "smoke and twin" in page.read_text()
    facts = json.loads(command("compare", "smoke", twin, "--runs", runs, "--json")[1])
    assert [row["study"] for row in facts["studies"]] == ["smoke", "twin"]
    assert facts["studies"][0]["hypervolume"] == facts["studies"][1]["hypervolume"] > 0
    assert facts["differences"] == {}


def test_one_study_is_not_compared_with_itself(finished: Sweep, tmp_path: Path, command: Command) -> None:
    before = sorted((finished.folder / "report").iterdir())
    for names in (["smoke"], ["smoke", "smoke"]):
        status, _, err = command("compare", *names, "--runs", finished.runs)
        assert (status, err.count("two or more different studies")) == (2, 1)
    assert sorted((finished.folder / "report").iterdir()) == before
    status, _, err = command("compare", "smoke", "fashion-mini", "--runs", finished.runs)
    assert status == 2
    assert "has no study fashion-mini yet" in err
