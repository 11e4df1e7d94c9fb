"""The examples do what their pages say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALONE = ("--set", "controls.uniform=false", "--set", "latency=false")
SWEEPS = ("-m", "sweeps")

Example = Callable[[str], Callable[..., str]]


@pytest.mark.slow  # a sweep, an export and a prediction, each of which starts processes with torch
def test_a_network_and_pictures_of_ones_own(example: Example) -> None:
    call = example("own-network-and-pictures")
    call("draw.py", "pictures")
    assert "the goal is reached" in call(*SWEEPS, "run", "config.yaml", "--trials", "1", *ALONE)
    found = json.loads(call("-c", "print(open('runs/shapes/pareto.json').read())"))
    assert min(row["test_accuracy"] for row in [found["dense"], *found["front"]]) > 0.7  # by chance 0.33
    call(*SWEEPS, "export", "config.yaml", "--best", "out", "--format", "pt")
    files = ("out/model.pt", "pictures/disc", "--model", "net:small")
    lines = call("-m", "slimnet", "predict", *files).splitlines()
    assert sum(": disc" in line for line in lines) > 0.7 * len(lines) > 100


FEW = "import itertools, pretrain; whole = pretrain.train_batches; pretrain.EPOCHS = 1; "
FEW += "pretrain.train_batches = lambda *given, **more: itertools.islice(whole(*given, **more), 8); "


@pytest.mark.slow  # a torchvision network is trained by hand, and looked at by another process
def test_a_network_of_torchvision_from_trained_weights(example: Example) -> None:
    call = example("torchvision-weights")
    call("-c", FEW + "pretrain.main()")
    said = call(*SWEEPS, "check", "config.yaml")
    assert "torchvision/shufflenet_v2_x0_5, 351,610 parameters" in said
    assert "at prune.params 25%" in said


@pytest.mark.slow  # two trainings in a new process
def test_the_library_by_hand(example: Example) -> None:
    lines = example("library")("slim.py", "1").splitlines()
    assert [line.split()[0] for line in lines] == ["sparse", "pruned", "recalibrated", "fine-tuned", "from"]
    assert lines[3].split()[-3:] == lines[4].split()[-3:]  # as good from its file
    code = (ROOT / "examples" / "library" / "slim.py").read_text().splitlines()
    assert len([line for line in code if line.strip() and '"""' not in line]) <= 46


@pytest.mark.slow  # a kernel, and the sweep of smoke
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed; the extra dev has it")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(ROOT / "examples" / "first-sweep.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    found = json.loads((tmp_path / "runs" / "smoke" / "pareto.json").read_text())
    assert found["front"]
