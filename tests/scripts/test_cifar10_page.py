"""The page on CIFAR-10: what it takes from studies, what it counts, and what it says without any study."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import instant
from slimnet.errors import SlimnetError
from sweeps.config import load_config
from sweeps.console import Console
from sweeps.driver import Driver
from sweeps.executors.inline import InlineExecutor
from sweeps.interruption import Interruption
from sweeps.outputs import pareto_table
from sweeps.records import Histogram, StudyRecord
from sweeps.report.summary import headline
from sweeps.report.view import LAMBDA, StudyView
from sweeps.resuming import resume
from sweeps.study import keep_config, make_study
from sweeps.tracking import Tracker
from sweeps.tracking.mode import Mode

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))  # where a script finds modules of its own

import cifar10_page

from cifar10 import lab_report, published, studies
from cifar10.networks import counted

ROOT = Path(__file__).parents[2]
SHORT = ("sparse.epochs=12", "finetune.epochs=4", "confirm.seeds=2", "confirm.points=2")


def run(runs: Path, name: str, *changes: str) -> StudyRecord:
    """A study whose stages take no time."""
    settings = load_config(name, [*SHORT, *changes])
    folder = runs / settings.study
    folder.mkdir()
    keep_config(folder, settings)
    study = make_study(folder, settings, "float32")
    state, sampling, database = resume(study, settings, runs)
    executor, tracker = InlineExecutor(instant.compute, 2), Tracker(folder, Mode("disabled", ""))
    quiet, interruption = Console(quiet=True), Interruption()
    return Driver(state, study, sampling, database, executor, tracker, quiet, interruption).run()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def resnet50(runs: Path) -> StudyRecord:
    """The study of the lab report's network: six trials, two points with controls, two seeds."""
    return run(runs, "cifar10-resnet50")


@pytest.fixture(scope="module")
def resnet20(runs: Path) -> StudyRecord:
    return run(runs, "cifar10-resnet20", "search.trials=4")


@pytest.fixture(scope="module")
def page(resnet50: StudyRecord, resnet20: StudyRecord) -> str:
    return cifar10_page.page([resnet20, resnet50], note="The images are a copy.")


def rows(page: str, title: str) -> list[list[str]]:
    """The cells of the table below a heading, the header first, without the line of dashes."""
    part = re.split(r"^#+ ", page.split(f" {title}\n")[1], flags=re.M)[0]
    lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
    return [line for line in lines if not line[0].startswith("---")]


def in_percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


# Without a study


def test_without_a_study_the_page_tells_the_commands_and_what_others_report() -> None:
    text = cifar10_page.page([])
    for command in ("make sweep CONFIG=cifar10-resnet50", "make sweep CONFIG=cifar10-resnet20"):
        assert f"    {command}\n    python scripts/cifar10_page.py runs/cifar10-resnet50" in text
    assert rows(text, "The lab report, and the same again")[1:] == [
        ["dense", "23,513,162", "–", "91.00"],
        ["ratio 0.5", "9,824,205", "89.97", "91.00"],
        ["ratio 0.9", "3,665,475", "29.45", "90.30"],
    ]
    assert len(rows(text, "After fine-tuning")) == 1 + len(published.FINE_TUNED)
    assert len(rows(text, "Right after pruning, before fine-tuning")) == 1 + len(published.RIGHT_AFTER)


def test_a_table_has_as_many_cells_in_every_row(page: str) -> None:
    for table in re.findall(r"(?:^\|.*\|\n)+", page, flags=re.M):
        assert len({line.count(" | ") for line in table.splitlines()}) == 1, table


# The lab report


def test_the_report_is_beside_the_study_of_its_network_alone(
    resnet50: StudyRecord, resnet20: StudyRecord
) -> None:
    assert lab_report.repeats(resnet50)
    assert not lab_report.repeats(resnet20)
    assert "No study of this network has been given" in cifar10_page.page([resnet20])


def test_accuracy_over_sparse_training_has_a_column_for_each_training_and_split(
    page: str, resnet50: StudyRecord
) -> None:
    header, *table = rows(page, "1. Accuracy over sparse training")
    trainings = ("dense, λ 0", "λ 0", "λ 1e-5", "λ 0.0001")
    assert header == ["epoch", *(f"{label}: {split}" for label in trainings for split in ("train", "test"))]
    assert [row[0] for row in table] == ["1", "3", "5", "7", "9", "10", "12", "14", "16"]
    last = resnet50.trials[0].first("sparse").history[-1]
    assert in_percent(last["test_accuracy"]) in [row[header.index("λ 0: test")] for row in table]


def test_the_scaling_factors_are_those_of_three_strengths(page: str) -> None:
    table = rows(page, "2. Scaling factors for three λ")[1:]
    assert [row[0] for row in table] == ["λ 0", "λ 1e-5", "λ 0.0001"]
    for row in table:
        assert row[1:3] == ["12", "30.00 %"]
        assert [float(value) for value in row[3:]] == sorted(float(value) for value in row[3:])


@pytest.mark.parametrize(("fraction", "value"), [(0.25, 0.05), (0.5, 0.1), (0.75, 0.15)])
def test_a_quantile_is_read_off_a_histogram(fraction: float, value: float) -> None:
    histogram: Histogram = {"counts": [4, 4, 0], "edges": [0.0, 0.1, 0.2, 0.3]}
    assert lab_report.quantile(histogram, fraction) == pytest.approx(value)


def test_right_after_pruning_every_trial_stands_beside_the_report(page: str, resnet50: StudyRecord) -> None:
    table = rows(page, "3. Right after pruning")[1:]
    assert [(row[0], row[4]) for row in table] == [("0.5", "89.97")] * 3 + [("0.9", "29.45")] * 3
    view = StudyView(resnet50)
    ordered = sorted(resnet50.trials, key=lambda trial: (trial.ratio, view.value(trial, LAMBDA)))
    found = [in_percent(trial.last("prune").metrics["test_accuracy"]) for trial in ordered]
    assert [row[3] for row in table] == found


def test_the_course_of_fine_tuning_is_that_of_the_smallest_networks(page: str) -> None:
    header, *table = rows(page, "4. Fine-tuning")
    assert header[1:3] == ["λ 0: train", "λ 0: test"]
    assert len(header) == 1 + 2 * 3
    assert [row[0] for row in table] == ["1", "2", "3", "4"]


def test_sizes_and_accuracies_have_the_dense_network_with_and_without_the_epochs_of_fine_tuning(
    page: str, resnet50: StudyRecord
) -> None:
    dense, before, *pruned = rows(page, "5. Sizes and accuracies")[1:]
    assert (dense[0], dense[2], before[0], before[2]) == ("dense", "16", "dense, before fine-tuning", "12")
    assert [row[4] for row in (dense, *pruned)] == ["23,513,162"] + ["9,824,205"] * 3 + ["3,665,475"] * 3
    assert {row[6] for row in pruned} == {in_percent(t.metrics["test_accuracy"]) for t in resnet50.trials}


# Studies


def test_a_study_is_shown_as_its_files_have_it(page: str, resnet20: StudyRecord) -> None:
    facts = pareto_table(resnet20)
    header, dense, *table = rows(page, "`cifar10-resnet20`")
    assert dict(zip(header, dense, strict=True))["parameters"] == f"{facts['dense']['params']:,}"
    points = [row for row in table if row[0].startswith("trial")]
    assert [int(row[0].split()[1]) for row in points] == [
        row["trial"] for row in sorted(facts["front"], key=lambda row: int(row["params"]))
    ]
    controls = [row for row in table if row[0] == "uniform"]
    assert len(controls) == len(facts["controls"]) == 2
    for row in (dense, *controls):
        assert row[header.index("seeds")] == "2"
        assert row[header.index("epochs")] == "16"
    assert in_percent(facts["dense"]["test_accuracy_mean"]) in dense[header.index("test")]
    assert in_percent(facts["dense"]["val_accuracy_se"] or 0) in dense[header.index("validation")]


def test_the_headline_and_the_note_are_on_the_page(page: str, resnet20: StudyRecord) -> None:
    assert headline(resnet20) in page
    assert page.index("The images are a copy.") < page.index("## The lab report")


def test_a_point_of_one_seed_has_no_interval_that_is_not_known(page: str) -> None:
    assert "inf" not in page.split("## What others report")[0].split("### `cifar10-resnet20`")[1]


def test_an_unfinished_study_says_how_far_it_is(runs: Path) -> None:
    settings = load_config("cifar10-resnet50", ["study=begun"])
    (runs / "begun").mkdir()
    keep_config(runs / "begun", settings)
    make_study(runs / "begun", settings, "float32")
    text = cifar10_page.page([studies.read(runs / "begun")])
    assert "0 of 6 trials complete" in text
    assert "No trial has finished yet" in text
    assert "Nothing yet." in text


# What is counted


def test_networks_have_the_sizes_that_their_sources_give() -> None:
    sizes = {name: one.params for name, one in counted().items()}
    assert sizes["ResNet-50, max-pool"] == 23_513_162
    assert sizes["report 90 %"] == 3_665_475
    assert sizes["ResNet-56"] == 855_770
    shares = {"Group-BN 2.11": 0.4380, "DepGraph 2.11": 0.4981, "DepGraph 2.55": 0.3438}  # by the logs
    for name, share in shares.items():
        assert sizes[name] / sizes["ResNet-56"] == pytest.approx(share, abs=5e-5)
    assert sizes["ResNet-20, option A"] - counted()["ResNet-20, option A"].norm == 268_346


def test_disagreements_are_worked_out_from_the_networks() -> None:
    text = "\n".join(published.disagreements())
    for found in (
        "it comes to 127.12 M",
        "2.13x (Group-BN), 2.13x and 2.63x (DepGraph)",
        "85.9 % of the 7,552 inside the bottlenecks",
        "hold 2,768,896 of the 3,665,475 parameters",
        "adds 8,080 constants of its channel selection (1.71 M)",
        "268,346 are elsewhere",
    ):
        assert found in text


# As a command


def test_the_script_reads_folders_and_writes_the_page(
    resnet20: StudyRecord, runs: Path, tmp_path: Path
) -> None:
    script, out = ROOT / "scripts" / "cifar10_page.py", tmp_path / "docs" / "page.md"
    options = ["--note", "A copy.", "--out", str(out)]
    subprocess.run([sys.executable, script, runs / resnet20.name, *options], check=True, cwd=ROOT)
    assert out.read_text() == cifar10_page.page([resnet20], note="A copy.")


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(SlimnetError, match=re.escape(str(tmp_path))):
        studies.read(tmp_path)


def test_the_published_page_is_as_the_script_makes_it() -> None:
    """Of the part that no study enters, whatever study the rest was made from."""
    shipped = (ROOT / "docs" / "cifar10.md").read_text()
    heading = "## What others report"
    assert shipped.split(heading)[1] == cifar10_page.page([]).split(heading)[1]
