"""Networks of a sweep, exported: scored, described, and refused with one message where there is none."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from running import Command, Sweep

import slimnet
from slimnet.data import load_dataset
from sweeps.study import hold

TINY = ("--format", "pt", "--format", "safetensors")


def test_the_best_trial_is_a_folder_that_needs_no_slimnet(
    command: Command, finished: Sweep, tmp_path: Path
) -> None:
    out = tmp_path / "best"
    options = ("--runs", finished.runs, "--best", "--json", *TINY, "--format", "pt2")
    code, printed, _ = command("export", "smoke", out, *options)
    rows = json.loads(printed)
    assert (code, [row["format"] for row in rows]) == (0, ["pt", "safetensors", "pt2"])
    named = re.search(r"# trial (\d+)", (finished.runs / "output.txt").read_text())
    assert named is not None
    assert {row["trial"] for row in rows} == {int(named[1])}
    (point,) = (row for row in finished.pareto()["front"] if row["trial"] == rows[0]["trial"])
    assert all(abs(row["test_accuracy"] - point["test_accuracy"]) <= 2 / 2000 for row in rows)
    assert all((out / Path(row["file"]).name).stat().st_size == row["bytes"] for row in rows)

    network = slimnet.load(out / "model.pt")
    assert slimnet.count_params(network) == point["params"]
    preprocessing = slimnet.read(out / "model.pt").preprocessing
    assert preprocessing is not None
    assert preprocessing.classes[9] == "Ankle boot"
    said = json.loads((out / "model.json").read_text())
    assert (said["source"]["study"], said["source"]["trial"]) == ("smoke", point["trial"])
    assert said["metrics"]["test_accuracy"] == point["test_accuracy"]

    text = (out / "README.md").read_text()
    assert "Trained on fashion-mini; selected on 1,000 validation images." in text
    assert f"| **{point['trial']}** |" in text
    assert "| dense network |" in text
    assert "± is the standard error" in text
    assert re.search(r"\| \*\*this network\*\* \| [\d.]+.ms \| [\d.]+.ms \| [\d.]+ kB \|", text)
    (code_of_card,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    Image.fromarray(load_dataset("fashion-mini").x_test[0, ..., 0]).save(out / "picture.png")
    alone = f"import sys\nsys.modules['slimnet'] = sys.modules['sweeps'] = None\n{code_of_card}"
    result = subprocess.run([sys.executable, "-c", alone], cwd=out, text=True, capture_output=True)
    assert result.stdout.strip() in preprocessing.classes, result.stderr


def test_the_whole_front(command: Command, finished: Sweep, tmp_path: Path) -> None:
    out = tmp_path / "front"
    give = ("export", "smoke", out, "--runs", finished.runs, "--front", *TINY)
    code, printed, _ = command(*give)
    front = finished.pareto()["front"]
    assert (code, printed.count("as reported")) == (0, 2 * len(front))
    text = (out / "README.md").read_text()
    for point in front:
        assert f"(trial-{point['trial']}/README.md)" in text
        network = slimnet.load(out / f"trial-{point['trial']}" / "model.safetensors")
        assert slimnet.count_params(network) == point["params"]
    assert command(*give)[0] == 2
    assert command(*give, "--force")[0] == 0


def test_one_file(command: Command, finished: Sweep, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    code, printed, _ = command("export", "smoke", 0, tmp_path / "net.onnx", "--runs", finished.runs)
    assert code == 0
    assert "test images" in printed
    found = onnx.load(str(tmp_path / "net.onnx"))
    said = {entry.key: json.loads(entry.value) for entry in found.metadata_props}
    assert said["source"]["trial"] == 0
    assert str(Path(slimnet.__file__).parent) not in (tmp_path / "net.onnx").read_bytes().decode("latin-1")


def test_a_description_beside_the_tensors_is_not_replaced_unasked(
    command: Command, finished: Sweep, tmp_path: Path
) -> None:
    (tmp_path / "net.json").write_text("mine")
    code, _, err = command("export", "smoke", 0, tmp_path / "net.safetensors", "--runs", finished.runs)
    assert (code, "net.json is there already" in err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["net.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("9", "out"), "there is no trial 9: the study smoke has trials 0 to 2"),
        (("out",), "give TRIAL OUT, --best OUT or --front OUT"),
        (("one", "out"), "where TRIAL is a number"),
        (("1", "out", "--best"), "--best OUT or --front OUT, without a trial"),
        (("out", "--best", "--front"), "choose one of them"),
        (("out.onnx", "--front"), "name a folder"),
        (("0", "out.tflite"), "out.tflite ends in .tflite"),
        (("0", "out", "--format", "onnxx"), "there is no format onnxx; did you mean onnx? Formats are pt, "),
    ],
)
def test_mistakes(
    command: Command,
    finished: Sweep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command("export", "smoke", *arguments, "--runs", finished.runs)
    assert (code, out) == (2, "")
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_trials_without_a_network_are_refused(
    command: Command, finished: Sweep, sweep: Sweep, tmp_path: Path
) -> None:
    shutil.copytree(finished.runs, sweep.runs)
    stages = list((sweep.runs / "stages" / "finetune").iterdir())
    for stage in stages:
        (stage / "result.json").rename(stage / "kept.json")
    asked = ("export", "smoke", "0", tmp_path / "out", "--runs", sweep.runs)
    code, _, err = command(*asked)
    assert (code, "trial 0 is not complete yet; go on with" in err) == (2, True)
    with hold(sweep.folder):
        for name in (asked, ("export", "smoke", "--best", tmp_path / "out", "--runs", sweep.runs)):
            code, _, err = command(*name)
            assert (code, " yet; it is being run, watch it with: sweeps watch smoke " in err) == (2, True)
    code, _, err = command("export", "smoke", "--best", tmp_path / "out", "--runs", sweep.runs)
    assert (code, "no trial of smoke is complete yet" in err) == (2, True)
    for stage in stages:
        (stage / "failure.json").write_text(json.dumps({"reason": "the loss is NaN", "detail": ""}))
    code, _, err = command(*asked)
    assert code == 2
    assert "trial 0 failed (finetune: the loss is NaN); run it again with" in err
