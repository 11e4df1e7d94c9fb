"""The command that puts studies beside each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from running import Command, Sweep

from sweeps.cli.compare import page_name


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
    assert facts["verdict"] in out


def test_a_page_that_cannot_be_written_hides_no_comparison(
    finished: Sweep, tmp_path: Path, command: Command
) -> None:
    runs = with_a_twin(finished, tmp_path)
    page = runs / "smoke" / "report" / "beside-twin.html"
    page.mkdir()
    status, out, err = command("compare", "smoke", runs / "twin" / "config.yaml", "--runs", runs)
    assert (status, "The fronts of smoke and twin" in out) == (2, True)
    assert err.startswith(f"Error: cannot write {page}: ")


def test_each_comparison_has_a_page_of_its_own() -> None:
    names = [["a", "b-c"], ["a", "b", "c"], ["a", "b-c", "d"], ["a", *("x" * 90 + str(i) for i in range(5))]]
    pages = {page_name(one) for one in names}
    assert len(pages) == len(names)
    assert max(map(len, pages)) < 255


def test_one_study_is_not_compared_with_itself(finished: Sweep, tmp_path: Path, command: Command) -> None:
    before = sorted((finished.folder / "report").iterdir())
    for names in (["smoke"], ["smoke", "smoke"]):
        status, _, err = command("compare", *names, "--runs", finished.runs)
        said = "smoke is the only one" if len(names) == 1 else "smoke is named twice"
        assert (status, err) == (2, f"Error: compare needs two or more different studies, and {said}\n")
    assert sorted((finished.folder / "report").iterdir()) == before
    status, _, err = command("compare", "smoke", "fashion-mini", "--runs", finished.runs)
    assert status == 2
    assert "has no study fashion-mini yet" in err
