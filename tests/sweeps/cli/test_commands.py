"""The commands: what they print and leave, and what they refuse."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running import PATIENCE, ROOT, Command, Sweep, swift

import slimnet
from benchmarks import instant
from slimnet.errors import SlimnetError
from sweeps.comparison import Comparison
from sweeps.config import shipped_configs
from sweeps.executors.reporting import Compute
from sweeps.jobs import Job, Place, Watch
from sweeps.state import State
from sweeps.worker import compute


def copy(finished: Sweep, folder: Path) -> Sweep:
    """The finished sweep, to be changed."""
    shutil.copytree(finished.runs, folder / "runs")
    return Sweep(folder / "runs")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# What a sweep leaves


def test_a_sweep_ends_with_its_front_its_report_and_the_next_commands(finished: Sweep) -> None:
    output = (finished.runs / "output.txt").read_text()
    assert "3 of 3 trials complete: the goal is reached" in output
    assert f"report: {finished.folder / 'report' / 'index.html'}" in output
    assert "-m sweeps status smoke" in output
    assert "--trials 8" in output  # the space has no more
    assert (finished.folder / "report" / "index.html").read_text().startswith("<!DOCTYPE html>")

    table = finished.pareto()
    assert table["trials"] == 3
    assert table["front"]
    assert table["hypervolume"] > 0
    assert table["dense"]["params"] > max(row["params"] for row in table["front"])
    assert table["controls"] == []
    over_seeds = {f"{split}_accuracy_{what}" for split in ("val", "test") for what in ("mean", "se")}
    facts = {"params", "macs", "val_accuracy", "test_accuracy", "file_bytes", "epochs", "seeds"} | over_seeds
    assert set(table["dense"]) == facts
    for row in table["front"]:
        assert set(row) == facts | {"trial", "lambda", "ratio"}
        assert (row["epochs"], row["seeds"]) == (table["dense"]["epochs"], [0]) == (3, [0])
        assert row["val_accuracy_mean"] == row["val_accuracy"]
        assert 0 < row["val_accuracy_se"] < 0.1
    with (finished.folder / "pareto.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["params"]) for row in rows] == [row["params"] for row in table["front"]]
    names = {"config.yaml", "study.db", "pareto.json", "pareto.csv", "report", "driver.log"}
    assert names <= {path.name for path in finished.folder.iterdir()}
    assert "driver.json" not in {path.name for path in finished.folder.iterdir()}


def test_every_finished_network_was_measured_once(finished: Sweep, command: Command) -> None:
    folders = list((finished.runs / "stages" / "latency").iterdir())
    assert len(folders) == 4  # three trials and the dense network
    table = json.loads((finished.folder / "latency.json").read_text())
    assert table["machine"] == json.loads((finished.folder / "study.json").read_text())["machine"]
    assert [(row["network"], row["trial"]) for row in table["networks"]] == [
        ("dense", None),
        *(("trial", number) for number in range(3)),
    ]
    _, out, _ = command("status", "smoke", "--runs", finished.runs, "--json")
    for row, trial in zip(table["networks"][1:], json.loads(out)["trials"], strict=True):
        assert min(row["latency_ms"], row["latency_ms_64"]) > 0
        assert {name: trial[name] for name in ("latency_ms", "latency_ms_64", "file_bytes")} == {
            name: value for name, value in row.items() if name not in ("network", "trial")
        }
    sizes = {row["trial"]: row["file_bytes"] for row in table["networks"]}
    assert all(row["file_bytes"] == sizes[row["trial"]] < sizes[None] for row in finished.pareto()["front"])
    assert re.search(r"latency +file", (finished.runs / "output.txt").read_text())


def test_every_epoch_was_computed_once_and_sparse_networks_are_shared(finished: Sweep) -> None:
    assert len(finished.epochs()) == len(set(finished.epochs()))
    kinds = {kind: len(list((finished.runs / "stages" / kind).iterdir())) for kind in ("sparse", "finetune")}
    assert kinds == {"sparse": 3, "finetune": 3}  # two values of λ and the dense baseline


def test_the_network_that_is_named_can_be_loaded(finished: Sweep) -> None:
    import slimnet

    output = (finished.runs / "output.txt").read_text()
    path = output.partition('slimnet.load("')[2].partition('"')[0]
    assert slimnet.count_params(slimnet.load(path)) == max(
        row["params"] for row in finished.pareto()["front"]
    )


def test_status_pareto_and_plan_as_json(finished: Sweep, command: Command) -> None:
    at = ("--runs", finished.runs, "--json")
    before = snapshot(finished.runs)

    status, out, _ = command("status", "smoke", *at)
    facts = json.loads(out)
    assert (status, facts["goal"], facts["beside"]) == (0, 3, [])
    assert [(row["trial"], row["state"], row["finetune"]) for row in facts["trials"]] == [
        (number, "complete", "done") for number in range(3)
    ]

    status, out, _ = command("pareto", "smoke", *at)
    assert (status, json.loads(out)) == (0, finished.pareto())

    status, out, _ = command("plan", "smoke", *at)
    facts = json.loads(out)
    assert (status, facts["asked"], facts["points"]) == (0, 3, 8)
    assert facts["stages"] == {"done": 9, "partial": 0, "missing": 0, "failed": 0}
    assert facts["epochs_left"] == {"sparse": 0, "early": 0, "finetune": 0}

    status, out, _ = command("plan", "smoke", "--trials", 5, *at)
    assert json.loads(out)["epochs_left"] == {"sparse": 0, "early": 0, "finetune": 2}  # both λ are there

    assert snapshot(finished.runs) == before


def test_the_same_facts_for_people(finished: Sweep, command: Command) -> None:
    at = ("--runs", finished.runs)
    assert "3 of 3 trials complete" in command("status", "smoke", *at)[1]
    assert "Pareto front of smoke" in command("pareto", "smoke", *at)[1]
    plan = command("plan", "smoke", *at)[1]
    assert "the curves and the controls known so far: 9 done, 0 partial, 0 missing, 0 failed" in plan


def test_constraints_that_no_trial_meets_are_told_as_such(
    finished: Sweep, tmp_path: Path, command: Command
) -> None:
    sweep = copy(finished, tmp_path)
    kept = sweep.folder / "config.yaml"
    bounds = "{params: <= 1000, val_accuracy: '>= 0.99'}"
    kept.write_text(kept.read_text().replace("  constraints: {}", f"  constraints: {bounds}"))
    unmet = "o trial meets search.constraints (params <= 1000, val_accuracy >= 0.99)"
    at = ("smoke", "--runs", sweep.runs)
    assert f"study smoke: n{unmet}\n" in command("pareto", *at)[1]
    status, _, err = command("export", *at, "--best", tmp_path / "net.pt")
    assert (status, err) == (2, f"Error: n{unmet}; choose one by its number, as `status` shows them\n")
    assert command("report", *at)[0] == 0
    page = (sweep.folder / "report" / "index.html").read_text()
    assert html.escape(f"N{unmet}, so there is nothing to choose from.") in page


def test_a_plan_of_a_study_that_is_not_begun_writes_nothing(tmp_path: Path, command: Command) -> None:
    status, out, _ = command("plan", "smoke", "--runs", tmp_path / "runs", "--json")
    facts = json.loads(out)
    assert (status, facts["asked"]) == (0, 0)
    assert facts["epochs_left"] == {"sparse": 2 * 2 + 3, "early": 0, "finetune": 3}
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_has_to_make_a_network_decodes_pictures_where_it_is_told(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.executors.processes.ask", lambda question, *arguments: question(*arguments))
    monkeypatch.setenv("SLIMNET_DATA", str(tmp_path / "cache"))
    for number in range(10):
        picture = tmp_path / "animals" / "cd"[number % 2] / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(picture)
    data = f"data={{name: folder, path: {tmp_path / 'animals'}, image_size: 32, validation: 0.5}}"
    model = "model={name: torchvision/squeezenet1_1}"
    options = ("--runs", tmp_path / "runs", "--data-dir", tmp_path / "data", "--set", data, "--set", model)
    status, _, err = command("plan", "smoke", *options)
    assert status == 0, err
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"animals", "data"}
    assert not (tmp_path / "cache" / "pictures").exists()  # where hashes of files are kept


def test_doctor_finds_what_a_sweep_needs(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    status, out, _ = command("doctor", "--json")
    facts = {fact["what"]: fact for fact in json.loads(out)}
    assert status == 0
    assert {"python", "torch", "optuna", "wandb", "cpu", "fashion-mini", "W&B"} <= facts.keys()
    assert "5,000 train" in facts["fashion-mini"]["found"]
    assert "WANDB_MODE is offline" in facts["W&B"]["found"]
    assert "ok       torch" in command("doctor")[1]


def test_the_report_is_written_again(finished: Sweep, tmp_path: Path, command: Command) -> None:
    sweep = copy(finished, tmp_path)
    shutil.rmtree(sweep.folder / "report")
    (sweep.folder / "pareto.json").unlink()
    status, out, _ = command("report", "smoke", "--runs", sweep.runs)
    assert (status, out.strip()) == (0, f"report: {sweep.folder / 'report' / 'index.html'}")
    assert (sweep.folder / "report" / "index.html").exists()
    assert sweep.pareto() == finished.pareto()


def test_curves_are_added_to_a_finished_sweep_and_may_fail(
    finished: Sweep, tmp_path: Path, command: Command
) -> None:
    sweep = copy(finished, tmp_path)
    again = ("run", "smoke", "--runs", sweep.runs, "--wandb", "disabled", "--set", "curves=true")
    status, out, err = command(*again)
    assert (status, err) == (0, "")
    folders = list((sweep.runs / "stages" / "curve").iterdir())
    assert len(folders) == 2
    assert "Where λ matters" in (sweep.folder / "report" / "index.html").read_text()
    assert sweep.pareto() == finished.pareto()
    plan = ("plan", "smoke", "--runs", sweep.runs, "--set", "curves=true", "--json")
    assert json.loads(command(*plan)[1])["stages"] == {"done": 11, "partial": 0, "missing": 0, "failed": 0}

    (folders[0] / "result.json").unlink()
    (folders[0] / "failure.json").write_text('{"reason": "the disk is full", "detail": ""}')
    status, out, err = command(*again)
    assert (status, "goal is reached" in out) == (0, True)
    assert f"the curve {folders[0].name}, which only the report shows, failed: the disk is full" in err
    assert "sweeps retry smoke" in err
    assert command("retry", "smoke", "--runs", sweep.runs)[0] == 0
    assert not (folders[0] / "failure.json").exists()


def test_results_outlive_the_data_they_came_from(sweep: Sweep, command: Command, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (60, 8, 8), np.uint8), np.arange(60, dtype=np.uint8) % 2
    path = npz(tmp_path, x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    options = ("--set", f"data={{name: npz, path: {path}}}", "--set", "model.blocks=[1]", "--trials", "1")
    assert sweep.run(*options).returncode == 0
    front = sweep.pareto()

    npz(tmp_path, x_train=images[::-1], y_train=labels, x_test=images[:20], y_test=labels[:20])
    for name in ("run", "plan"):
        status, _, err = command(name, "smoke", "--runs", sweep.runs, *options)
        assert (status, err.count("have changed since the study smoke began")) == (2, 1)
    path.unlink()
    for name in ("status", "pareto", "report"):
        status, _, err = command(name, "smoke", "--runs", sweep.runs)
        assert (status, err) == (0, "")
    assert sweep.pareto() == front


def test_the_version_is_that_of_the_package(command: Command) -> None:
    assert command("--version") == (0, f"sweeps of slimnet {slimnet.__version__}\n", "")


def test_the_list_of_commands_says_each_in_a_whole_sentence(command: Command) -> None:
    said, listed = command("--help")[1].split("Commands:\n")
    assert "Usage: " in said
    assert not [line for line in listed.splitlines() if line and not line.endswith(".")]
    assert "..." not in listed


def test_a_terminal_that_knows_no_greek_and_a_folder_with_a_question_mark(tmp_path: Path) -> None:
    options = ("--trials", "1", "--wandb", "disabled")
    environment = {"PYTHONIOENCODING": "latin-1"}
    process = swift(tmp_path / "what? #1 ü", *options, env=environment, encoding="latin-1")
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert "trial 0 done: ? 0.0" in out
    assert [entry.name for entry in tmp_path.iterdir()] == ["what? #1 ü"]


# Controls and repeats, on stages that take no time

BESIDE = "controls={uniform: true, scratch: true, random: true}"


def run_instantly(sweep: Sweep, command: Command, *overrides: str) -> tuple[int, str, str]:
    options = [
        part for override in (*overrides, "confirm={seeds: 2, points: 1}") for part in ("--set", override)
    ]
    return command("run", "smoke", "--runs", sweep.runs, "--wandb", "disabled", *options)


def test_a_sweep_ends_with_what_its_controls_reach(
    sweep: Sweep, command: Command, instantly: Callable[[Compute], None]
) -> None:
    instantly(instant.compute)
    status, out, err = run_instantly(sweep, command, BESIDE)
    assert (status, err) == (0, "")
    assert "Simpler ways to networks of these sizes, with as many epochs" in out
    assert "mean ± standard error of 2 seeds" in " ".join(out.split())
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    for kind, verdict in (("uniform", "worse"), ("scratch", "apart"), ("random", "apart")):
        assert verdict in lines[kind], kind
    assert "A uniformly narrower network, trained from scratch for 3 epochs, reaches" in out
    assert "of training in all" in out

    table = sweep.pareto()
    (number,) = {row["trial"] for row in table["controls"]}
    assert [row["kind"] for row in table["controls"]] == ["uniform", "scratch", "random"]
    assert [row["seeds"] for row in table["front"] if row["trial"] == number] == [[0, 1]]
    assert table["dense"]["seeds"] == [0, 1]
    with (sweep.folder / "pareto.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [json.loads(row["seeds"]) for row in rows] == [row["seeds"] for row in table["front"]]

    status, out, _ = command("pareto", "smoke", "--runs", sweep.runs)
    assert (status, "Simpler ways" in out) == (0, True)
    status, out, _ = command("plan", "smoke", "--runs", sweep.runs, "--json", *("--set", BESIDE), *(
        "--set", "confirm={seeds: 2, points: 1}",
    ))  # fmt: skip
    facts = json.loads(out)
    assert (status, facts["epochs_left"]) == (0, {"sparse": 0, "early": 0, "finetune": 0})


def test_a_sweep_of_which_every_trial_fails_has_reached_nothing(
    sweep: Sweep, command: Command, instantly: Callable[[Compute], None]
) -> None:
    def compute(job: Job, place: Place, watch: Watch) -> bool:
        raise SlimnetError("the loss became nan")

    instantly(compute)
    status, out, err = run_instantly(sweep, command, "controls.uniform=true")
    assert (status, "trial 2 failed: sparse: the loss became nan" in err) == (1, True)
    assert "0 of 3 trials complete: all have ended" in out
    assert "the goal is reached" not in out


def test_a_control_that_fails_is_told_and_tried_again(
    sweep: Sweep, command: Command, instantly: Callable[[Compute], None]
) -> None:
    def compute(job: Job, place: Place, watch: Watch) -> bool:
        if job.stage.spec.dump().get("within"):
            raise SlimnetError("it cannot be so narrow")
        return instant.compute(job, place, watch)

    instantly(compute)
    status, out, err = run_instantly(sweep, command, "controls.uniform=true")
    assert status == 1
    assert "3 of 3 trials complete: the goal is reached" in out
    (number,) = set(re.findall(r"the uniform control of trial (\d+) ", err))
    for seed in (0, 1):
        name = f"uniform control of trial {number} (seed {seed})"
        assert f"the {name} failed: sparse: it cannot be so narrow" in err
    assert f"sweeps retry smoke --runs {sweep.runs}" in err
    assert sweep.pareto()["controls"] == []

    status, out, _ = command("status", "smoke", "--runs", sweep.runs)
    assert (status, "of 4 controls and repeats complete" in out) == (0, True)
    shown = out.partition("Controls and repeats")[2]
    for name in (f"uniform control of trial {number} (seed 1)", "dense network again (seed 1)"):
        assert name in shown
    assert shown.count("sparse: it cannot be so narrow") == 2
    status, out, _ = command("status", "smoke", "--runs", sweep.runs, "--json")
    assert [(row["network"], row["state"], row["reason"]) for row in json.loads(out)["beside"]][:2] == [
        (f"uniform control of trial {number} (seed 0)", "failed", "sparse: it cannot be so narrow"),
        ("dense network again (seed 1)", "complete", None),
    ]

    status, out, _ = command("retry", "smoke", "--runs", sweep.runs)
    assert status == 0
    assert f"to run again: the uniform control of trial {number} (seed 1)" in out
    instantly(instant.compute)
    status, _, err = run_instantly(sweep, command, "controls.uniform=true")
    assert (status, err) == (0, "")
    assert [row["seeds"] for row in sweep.pareto()["controls"]] == [[0, 1]]
    status, out, _ = command("retry", "smoke", "--runs", sweep.runs)
    assert (status, "to run again: the" in out) == (0, False)


def test_a_study_is_read_and_compared_once_for_all_that_is_said_of_it(
    sweep: Sweep, command: Command, instantly: Callable[[Compute], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Counter[str] = Counter()

    def counted(kind: type[Any]) -> None:
        begin = kind.__init__

        def count(self: Any, *arguments: Any, **options: Any) -> None:
            made[kind.__name__] += 1
            begin(self, *arguments, **options)

        monkeypatch.setattr(kind, "__init__", count)

    for kind in (Comparison, State):
        counted(kind)
    instantly(instant.compute)
    assert run_instantly(sweep, command, BESIDE)[0] == 0
    assert made == {"Comparison": 1, "State": 1}
    for name, compared in (("pareto", 1), ("report", 1), ("retry", 0)):
        made.clear()
        assert command(name, "smoke", "--runs", sweep.runs)[0] == 0
        assert made == Counter(Comparison=compared, State=1), name


def test_commands_that_are_suggested_work_as_they_are(
    sweep: Sweep, command: Command, instantly: Callable[[Compute], None], tmp_path: Path
) -> None:
    instantly(instant.compute)
    given = ("--runs", sweep.runs, "--data-dir", tmp_path, "--wandb", "disabled")
    status, out, _ = command("run", "smoke", *given, "--set", "prune.layer_floor=0.5", "--trials", "2")
    assert status == 0
    suggested = dict(re.findall(r"(more trials|every trial|take it): +sweeps (.+)", out))
    assert shlex.split(suggested["take it"])[-4:-2] == ["--data-dir", str(tmp_path)]
    for what, count in (("more trials", 8), ("every trial", 8)):
        status, out, err = command(*shlex.split(suggested[what]))
        assert (status, err, f"{count} of {count} trials complete" in out) == (0, "", True)
    again = command("retry", "smoke", "--runs", sweep.runs, "--data-dir", tmp_path)[1]
    words = shlex.split(again.partition("nothing has failed; the study goes on with: sweeps ")[2])
    assert words[-2:] == ["--data-dir", str(tmp_path)]
    assert command(*words)[0] == 0


def test_a_run_ends_well_without_the_file_that_it_began_with(
    sweep: Sweep, command: Command, instantly: Callable[[Compute], None], tmp_path: Path
) -> None:
    """A file that is no config by itself, as it lacks what an option gives; and that is deleted meanwhile."""
    file = tmp_path / "mine.yaml"
    smoke = shipped_configs()["smoke"].read_text()
    file.write_text(smoke.replace("study: smoke\n", "").replace("  trials: 3\n", ""))

    def compute(job: Job, place: Place, watch: Watch) -> bool:
        file.unlink(missing_ok=True)
        return instant.compute(job, place, watch)

    instantly(compute)
    given = ("--runs", sweep.runs, "--wandb", "disabled", "--trials", "2")
    status, out, err = command("run", file, *given)
    assert (status, err) == (0, "")
    assert f"run {sweep.runs / 'mine' / 'config.yaml'} --runs {sweep.runs} --trials 8" in out


def test_controls_are_added_to_a_finished_sweep(
    sweep: Sweep, command: Command, instantly: Callable[[Compute], None]
) -> None:
    instantly(instant.compute)
    at = ("smoke", "--runs", sweep.runs)
    assert command("run", *at, "--wandb", "disabled")[0] == 0
    assert sweep.pareto()["controls"] == []
    assert "Controls and repeats" not in command("status", *at)[1]
    kept = (sweep.folder / "trials.jsonl").read_bytes()

    assert run_instantly(sweep, command, BESIDE)[0] == 0
    assert [row["kind"] for row in sweep.pareto()["controls"]] == ["uniform", "scratch", "random"]
    assert (sweep.folder / "trials.jsonl").read_bytes() == kept
    status, out, _ = command("plan", *at, "--set", BESIDE)
    assert (status, "the curves and the controls known so far: " in out) == (0, True)


def test_status_has_the_stages_of_every_trial(
    sweep: Sweep, command: Command, instantly: Callable[[Compute], None]
) -> None:
    instantly(instant.compute)
    space = "search.space={passes: [1, 2], finetune.weights: [pruned, early]}"
    changes = ("--set", space, "--set", "search.sampler=grid", "--trials", 4, "--set", "sparse.epochs=3")
    assert command("run", "smoke", "--runs", sweep.runs, "--wandb", "disabled", *changes)[0] == 0
    status, out, _ = command("status", "smoke", "--runs", sweep.runs)
    assert (status, "4 of 4 trials complete" in out) == (0, True)
    heading, *rows = map(str.split, out.splitlines()[1:])
    stages = [f"{kind}{later}" for later in ("", "-2") for kind in ("sparse", "early", "prune", "finetune")]
    assert [name for name in heading if name in stages] == stages
    assert sorted(row.count("done") for row in rows) == [3, 4, 6, 8]


# What is refused

ABSENT = "xpu" if sys.platform == "darwin" else "mps"


def npz(folder: Path, **arrays: np.ndarray[Any, Any]) -> Path:
    path = folder / "own.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["smok"], ["smok", "did you mean smoke?"]),
        (["missing.yaml"], ["missing.yaml"]),
        (["smoke", "--set", "sparse.epoch=2"], ["sparse.epoch", "sparse.epochs"]),
        (["smoke", "--set", "sparse.epochs=two"], ["sparse.epochs", "two"]),
        (["smoke", "--set", "sparse.epochs=0"], ["sparse.epochs", "0"]),
        (["smoke", "--set", "sparse.epochs"], ["sparse.epochs", "key=value"]),
        (["smoke", "--set", "search.space.prune.ratio={range: [0.9, 0.3]}"], ["prune.ratio", "0.9", "0.3"]),
        (["smoke", "--trials", "0"], ["search.trials", "0"]),
        (["smoke", "--trials", "9"], ["search.trials", "9", "8 points"]),
        (["smoke", "--workers", "0"], ["workers", "0"]),
        (["smoke", "--wandb", "maybe"], ["wandb.mode", "maybe"]),
        (["smoke", "--trials", "many"], ["--trials", "integer"]),
        (["smoke", "--no-such-option"], ["--no-such-option"]),
        (["smoke", "--set", f"device={ABSENT}"], ["Apple GPU" if ABSENT == "mps" else "Intel GPU", "cpu"]),
        (["smoke", "--set", "data={name: npz, path: none.npz}"], ["none.npz"]),
        (["smoke", "--set", f"sparse.epochs={'9' * 1000}"], ["sparse.epochs", "at most 1,000,000"]),
        (["smoke", "--set", "data.crop=3000000"], ["data.crop", "at most 65,536"]),
        (["smoke", "--set", "model.width=3000000"], ["model.width", "at most 65,536"]),
        (["smoke", "--set", "model.blocks=[3000000]"], ["model.blocks", "at most 1,000"]),
        (["smoke", "--set", "prune.min_channels=3000000"], ["prune.min_channels", "at most 65,536"]),
        (["smoke", "--set", "prune.round_to=3000000"], ["prune.round_to", "at most 65,536"]),
        (["smoke", "--set", "data={name: npz, path: ~nosuchuser/x.npz}"], ["data.path", "nosuchuser"]),
        (["smoke", "--set", "model.path=~nosuchuser/x"], ["--set model.path", "nosuchuser"]),
        (["smoke", "--set", r'data={name: npz, path: "a\0b"}'], ["data.path", "null"]),
        (["smoke", "--set", "data={name: npz, path: /dev/zero}"], ["/dev/zero", "is no file"]),
        (["smoke", "--set", "data={name: npz, path: br\udce9/x.npz}"], ["not allowed in YAML"]),
    ],
)
def test_bad_usage_is_one_message_and_writes_nothing(
    arguments: list[str], named: list[str], tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = command("run", *arguments, "--runs", tmp_path / "runs")
    assert (status, out) == (2, "")
    assert err.count("Error") == 1
    for part in named:
        assert part in err
    assert list(tmp_path.iterdir()) == []


def test_files_that_claim_more_than_there_is_room_for_or_never_end(tmp_path: Path, command: Command) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 32, 32), }"
    padded = header + b" " * (53 - len(header) % 64) + b"\n"
    claim = b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded
    with zipfile.ZipFile(tmp_path / "vast.npz", "w") as file:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            file.writestr(f"{name}.npy", claim + bytes(100))
    os.mkfifo(tmp_path / "pipe.npz")

    def given(name: str) -> list[str]:
        data = f"data={{name: npz, path: {tmp_path / name}.npz}}"
        return ["run", "smoke", "--set", data, "--runs", str(tmp_path / "runs")]

    limited = ["sh", "-c", 'ulimit -v 16000000; exec "$0" -m sweeps "$@"', sys.executable, *given("vast")]
    ended = subprocess.run(limited, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "x_train cannot be read (Unable to allocate" in ended.stderr
    status, _, err = command(*given("pipe"))
    assert (status, err.count("\n"), "is no file" in err) == (2, 1, True), err
    assert not (tmp_path / "runs").exists()


def test_bad_data_are_found_before_anything_is_written(tmp_path: Path, command: Command) -> None:
    images, labels = np.zeros((40, 8, 8), np.uint8), np.arange(40, dtype=np.uint8) % 4
    path = npz(tmp_path, x_train=images, y_train=labels[:30], x_test=images, y_test=labels)
    status, _, err = command(
        "run", "smoke", "--set", f"data={{name: npz, path: {path}}}", "--runs", tmp_path / "runs"
    )
    assert status == 2
    assert str(path) in err
    assert "40" in err
    assert "30" in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["own.npz"]


def draw_pictures(folder: Path, count: int) -> Path:
    """Two classes of pictures of odd sizes, red and green."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("red", "green")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 90, (8 + number % 3, 9, 3), np.uint8)
            pixels[..., label] += 150
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_a_folder_of_pictures_is_swept(
    tmp_path: Path, sweep: Sweep, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMNET_DATA", str(tmp_path / "kept"))
    pictures = draw_pictures(tmp_path / "pictures", 40)
    data = f"name: folder, path: {pictures}, image_size: 8, validation: 0.2, resized_crop: 0.5, mixup: 0.2"
    options = ("--set", f"data={{{data}}}", "--set", "sparse.batch_size=16", "--trials", "1")
    result = sweep.run(*options)
    assert result.returncode == 0, result.stderr
    assert "there is no folder test: 20% of each class" in result.stdout
    (trial,) = sweep.pareto()["front"][:1]
    assert trial["val_accuracy"] > 0.8
    known = slimnet.read(next((sweep.runs / "stages" / "finetune").glob("*/checkpoint.pt"))).preprocessing
    assert known is not None
    assert (known.classes, known.resize) == (("green", "red"), "crop")

    (pictures / "red" / "0.png").unlink()
    status, _, err = command("run", "smoke", "--runs", sweep.runs, *options)
    assert (status, err.count("have changed since the study smoke began")) == (2, 1)


def test_a_runs_folder_whose_name_is_no_text_is_named(tmp_path: Path, command: Command) -> None:
    status, _, err = command("run", "smoke", "--runs", tmp_path / "runs\udce9")
    assert (status, "is not UTF-8; give it another name" in err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_pictures_whose_name_is_no_text_is_named(tmp_path: Path, command: Command) -> None:
    draw_pictures(tmp_path / "pictures", 4)
    (tmp_path / "pictures" / "red").rename(tmp_path / "pictures" / "r\udce9d")
    data = f"data={{name: folder, path: {tmp_path / 'pictures'}, image_size: 8}}"
    status, _, err = command("run", "smoke", "--set", data, "--runs", tmp_path / "runs")
    assert (status, "r\\udce9d" in err, "is not UTF-8; give it another name" in err) == (2, True, True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ("{name: folder, path: empty}", ["empty holds no folder of pictures"]),
        ("{name: folder, path: pictures}", ["of 3 sizes", "image_size"]),
        ("{name: folder, path: pictures/red, image_size: 8}", ["in no such folder"]),
        ("{name: folder}", ["data.path is missing"]),
        ("{name: npy, path: pictures, image_size: 8}", ["lacks x_train"]),
        ("{name: fashion-mini, channels: 3}", ["data.channels is 3", "holds arrays"]),
        ("{name: fashion-mini, mean: [0.5, 0.5, 0.5]}", ["mean has 3 numbers", "1 channel"]),
        ("{name: torchvision/SVNH}", ["torchvision/SVNH", "torchvision/SVHN"]),
        ("{factory: nowhere}", ["nowhere"]),
    ],
)
def test_wrong_pictures_are_one_message_and_nothing_written(
    data: str, named: list[str], tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMNET_DATA", str(tmp_path / "kept"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    draw_pictures(tmp_path / "pictures", 4)
    status, out, err = command("run", "smoke", "--set", f"data={data}", "--runs", tmp_path / "runs")
    assert (status, out, err.count("Error")) == (2, "", 1)
    for part in named:
        assert part in err
    assert not (tmp_path / "runs").exists()


def test_a_runs_folder_that_cannot_be_written_is_named(tmp_path: Path, command: Command) -> None:
    (tmp_path / "file").write_text("in the way")
    status, out, err = command("run", "smoke", "--runs", tmp_path / "file", "--wandb", "disabled")
    assert (status, out) == (2, "")
    assert f"{tmp_path / 'file'}" in err
    assert "--runs" in err


def test_no_traceback_in_a_process_of_its_own(sweep: Sweep) -> None:
    result = sweep.run("--set", "prune.ratios=0.5", anew=True)
    assert (result.returncode, result.stdout) == (2, "")
    (message,) = result.stderr.splitlines()
    assert message.startswith("Error: --set prune.ratios=0.5: ")
    assert message.endswith("did you mean prune.ratio?")
    assert not sweep.runs.exists()


@pytest.mark.parametrize("name", ["status", "retry"])
def test_a_study_is_found_by_its_config_which_is_named_where_its_own_name_is_given(
    name: str, tmp_path: Path, command: Command
) -> None:
    kept = tmp_path / "mine" / "config.yaml"
    kept.parent.mkdir()
    kept.write_text(shipped_configs()["smoke"].read_text())
    _, _, err = command(name, "mine", "--runs", tmp_path)
    assert err.rstrip() == f"Error: mine is the name of a study; give its config, {kept}"
    assert "mime is neither a file nor" in command(name, "mime", "--runs", tmp_path)[2]


@pytest.mark.parametrize("name", ["status", "pareto", "report", "sync", "retry"])
def test_a_study_that_is_not_begun_is_said_to_be_so(name: str, tmp_path: Path, command: Command) -> None:
    status, out, err = command(name, "smoke", "--runs", tmp_path / "runs")
    assert (status, out) == (2, "")
    assert "has no study smoke yet" in err
    assert f"run smoke --runs {tmp_path / 'runs'}" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("sparse.epochs=3", "sparse.epochs was 2, is 3"),
        ("seed=5", "seed was 0, is 5"),
        ("search.sampler=tpe", "search.sampler was random, is tpe"),
        ("precision=float16", "precision"),
    ],
)
def test_another_config_under_the_same_name_is_refused(
    change: str, named: str, finished: Sweep, tmp_path: Path, command: Command
) -> None:
    sweep = copy(finished, tmp_path)
    before = snapshot(sweep.runs)
    for name in ("run", "plan"):
        status, _, err = command(name, "smoke", "--runs", sweep.runs, "--set", change)
        assert status == 2
        assert named in err
    after = snapshot(sweep.runs)
    assert {path for path in after if not path.endswith("driver.lock")} == {
        path for path in before if not path.endswith("driver.lock")
    }
    assert all(after[path] == before[path] for path in before)


@pytest.mark.parametrize(
    ("name", "content"),
    [("study.json", b"{"), ("trials.jsonl", b"{\n"), ("config.yaml", b"study: [")],
)
def test_a_damaged_study_is_named_with_what_to_do(
    name: str, content: bytes, finished: Sweep, tmp_path: Path, command: Command
) -> None:
    sweep = copy(finished, tmp_path)
    (sweep.folder / name).write_bytes(content)
    for given in ("run", "status", "pareto", "retry"):
        status, _, err = command(given, "smoke", "--runs", sweep.runs)
        assert status == 2
        assert name in err
        assert "next `run`" in err
    assert (sweep.folder / name).read_bytes() == content


def test_a_damaged_database_is_set_aside_and_made_anew(
    finished: Sweep, tmp_path: Path, command: Command
) -> None:
    sweep, content = copy(finished, tmp_path), b"no database, whatever its name says" * 40
    (sweep.folder / "study.db").write_bytes(content)
    for name in ("status", "pareto"):
        assert command(name, "smoke", "--runs", sweep.runs)[0] == 0  # they do not read it
    status, out, err = command("run", "smoke", "--runs", sweep.runs, "--wandb", "disabled")
    assert (status, err) == (0, "")
    assert "it was set aside as study.db.old and made anew" in out
    assert (sweep.folder / "study.db.old").read_bytes() == content
    assert (sweep.folder / "study.db").read_bytes().startswith(b"SQLite format 3")


def test_nothing_waits_for_a_locked_database(
    finished: Sweep, tmp_path: Path, command: Command, instantly: Callable[[Compute], None]
) -> None:
    sweep = copy(finished, tmp_path)
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN EXCLUSIVE'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(sweep.folder / "study.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for name in ("status", "pareto", "plan", "report"):
            assert command(name, "smoke", "--runs", sweep.runs)[0] == 0
        instantly(compute)
        options = ("smoke", "--runs", sweep.runs, "--wandb", "disabled", "--trials", 4)
        status, out, err = command("run", *options)
        assert (status, err) == (0, "")
        assert "study.db is locked by another program" in out
        assert "4 of 4 trials complete" in out
        other.communicate("")
    assert "made anew" not in command("run", *options)[1]
    with sqlite3.connect(sweep.folder / "study.db") as connection:
        states = connection.execute("SELECT state FROM trials").fetchall()
    assert states == [("COMPLETE",)] * 4


@pytest.mark.parametrize("content", ["{", "{}", "[]", "5", '{"metrics": {"params": NaN}}'])
def test_a_damaged_stage_is_named_shown_and_computed_again(
    content: str, finished: Sweep, tmp_path: Path, command: Command, instantly: Callable[[Compute], None]
) -> None:
    sweep = copy(finished, tmp_path)
    whole = sweep.pareto()
    result = next((sweep.runs / "stages" / "finetune").glob("*/result.json"))
    result.write_text(content)
    at = ("smoke", "--runs", sweep.runs)
    before = snapshot(sweep.runs)
    for name, expected in (("pareto", 2), ("report", 2), ("status", 0)):
        status, out, err = command(name, *at)
        assert (status, f"{result} is damaged" in " ".join(err.split())) == (expected, True)
        assert "sets it aside" in err
    assert snapshot(sweep.runs) == before
    assert "interrupted" in out  # as one of its stages is missing

    instantly(compute)
    status, out, err = command("run", *at, "--wandb", "disabled")
    assert (status, err) == (0, "")
    assert f"{result} was damaged" in " ".join(out.split())
    assert result.with_name("result.json.damaged").read_text() == content
    assert sweep.pareto() == whole
    assert command("pareto", *at)[0] == 0


def test_only_failed_trials_can_be_retried(finished: Sweep, tmp_path: Path, command: Command) -> None:
    status, _, err = command("retry", "smoke", 1, "--runs", copy(finished, tmp_path).runs)
    assert status == 2
    assert "trial 1 has not failed; failed trials: none" in err
