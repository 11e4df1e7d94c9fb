"""The command line: the chain of steps, files that carry what later steps need, interruption, wrong input."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import slimnet
from slimnet.checkpoint import read
from slimnet.cli import main
from slimnet.cli.datasets import recorded_data
from slimnet.data import Source, fingerprint
from slimnet.preprocessing import attach

ROOT = Path(slimnet.__file__).parents[1]
SMALL = ["--image-size", "7", "--blocks", "1,1", "--width", "8"]
CHAIN = (
    f"train {' '.join(SMALL)} --epochs 1 --batch-size 256 --crop 1 --flip --out sparse.pt",
    "prune sparse.pt --ratio 0.5 --out pruned.pt",
    "finetune pruned.pt --epochs 1 --batch-size 256 --out tuned.pt",
)
PATIENCE = 300  # seconds; a machine that is busy with something else must not fail a test
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

NETS = """
    import torch
    from torch import nn

    class Net(nn.Module):
        '''A skip, a concatenation and a depthwise conv.'''

        def __init__(self):
            super().__init__()
            self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.expand, self.expanded = nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16)
            self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
            self.filtered = nn.BatchNorm2d(16)
            self.project, self.projected = nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8)
            self.branch, self.branched = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
            self.classify = nn.Linear(14, 10)

        def forward(self, x):
            x = self.norm(self.stem(x)).relu()
            inner = self.filtered(self.depthwise(self.expanded(self.expand(x)).relu())).relu()
            x = x + self.projected(self.project(inner))
            x = torch.cat([x, self.branched(self.branch(x)).relu()], 1)
            return self.classify(x.mean((2, 3)))

    def scaled(factor, num_classes, in_channels):
        layers = nn.Conv2d(in_channels, 8 * factor, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(8 * factor, num_classes))

    def one_class():
        return nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def nothing():
        return None

    def broken():
        raise RuntimeError("no weights today")
"""

Slimnet = Callable[..., "Outcome"]


class Outcome:
    """What a command left: its exit status and what it printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def start(folder: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "slimnet", *args]
    return subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Slimnet:
    """Runs a command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    (tmp_path / "nets.py").write_text(textwrap.dedent(NETS))

    def call(*args: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["slimnet", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        return Outcome(int(ended.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sparse.pt, pruned.pt and tuned.pt, each made from the one before."""
    folder = tmp_path_factory.mktemp("chain")
    for command in CHAIN:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["slimnet", *command.split()])
            with pytest.raises(SystemExit) as ended:
                main()
        assert not ended.value.code
    return folder


@pytest.fixture
def files(chain: Path, tmp_path: Path) -> Path:
    """A folder of the test's own with the files of the chain."""
    for path in chain.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path


def numbers_in(text: str) -> tuple[int, ...]:
    """Parameters and multiply-accumulates of a line."""
    found = re.search(r"([\d,]+) parameters, ([\d,]+) MACs", text)
    assert found is not None, text
    return tuple(int(number.replace(",", "")) for number in found.groups())


def test_every_step_leads_to_the_next(run: Slimnet, tmp_path: Path) -> None:
    def succeed(command: str) -> str:
        outcome = run(*command.split())
        assert (outcome.code, outcome.err) == (0, "")
        return outcome.out

    train, prune, finetune = map(succeed, CHAIN)
    evaluate = succeed("evaluate tuned.pt")
    inspect = succeed("inspect tuned.pt")
    export = succeed("export tuned.pt --onnx tuned.onnx --program tuned.pt2")
    left = {path.name for path in tmp_path.iterdir()} - {"nets.py"}
    assert left == {"sparse.pt", "pruned.pt", "tuned.pt", "tuned.onnx", "tuned.pt2"}
    assert "epoch 1 of 1: loss" in train
    before, after = prune.splitlines()[-3:-1]
    assert before.startswith("before")
    assert numbers_in(after) < numbers_in(before)
    assert re.search(r"stages\.0\.0\.conv1 +8 +\d", prune)
    assert "24 of 48 prunable channels removed" in prune
    assert numbers_in(evaluate) == numbers_in(finetune) == numbers_in(after)
    assert "made by: train (1 epoch, λ 0.005), then prune (ratio 0.5), then finetune (1 epoch)" in inspect
    assert re.search(r"stages\.0\.0\.conv3 and 1 more +32 .*its channels meet in a residual add", inspect)
    assert export.count("% of 2,000 test images") == 2


def test_files_carry_what_they_were_made_from(chain: Path) -> None:
    saved = [read(chain / name) for name in ("sparse.pt", "pruned.pt", "tuned.pt")]
    assert [[step["kind"] for step in one.config["steps"]] for one in saved] == [
        ["train"],
        ["train", "prune"],
        ["train", "prune", "finetune"],
    ]
    for one in saved:
        data = one.config["data"]
        assert (data["name"], data["image_size"], data["crop"], data["flip"]) == ("fashion-mini", 7, 1, True)
        assert one.config["seed"] == 0
    assert saved[2].config["steps"][2]["recipe"]["augmentation"]["crop"] == 1
    assert [len(one.training.get("history", [])) for one in saved] == [1, 0, 1]
    model = slimnet.load(chain / "tuned.pt")
    assert model.widths == saved[1].metrics["widths"]
    assert slimnet.count_params(model) == saved[2].metrics["params"]


def test_evaluate_measures_what_was_saved(run: Slimnet, files: Path) -> None:
    facts = json.loads(run("evaluate", "tuned.pt", "--json").out)
    metrics = read(files / "tuned.pt").metrics
    for name in ("params", "macs"):
        assert facts[name] == metrics[name]
    for name in ("val_accuracy", "test_accuracy"):  # another number of threads may tip an image
        assert facts[name] == pytest.approx(metrics[name], abs=0.01)


def test_inspect_counts_every_scaling_factor_once(run: Slimnet, files: Path) -> None:
    facts = json.loads(run("inspect", "sparse.pt", "--json").out)
    groups = {group["name"]: group for group in facts["groups"]}
    assert groups["stages.0.0.conv1"]["width"] == sum(groups["stages.0.0.conv1"]["gamma"]) == 8
    assert groups["stages.0.0.conv1"]["prunable"]
    assert not groups["fc"]["prunable"]
    assert sum(group["width"] for group in groups.values() if group["prunable"]) == 48
    assert facts["image_shape"] == [1, 7, 7]


def test_budgets_are_met(run: Slimnet, files: Path) -> None:
    for name, budget in (("params", 6000), ("macs", 120_000)):
        outcome = run(
            "prune", "sparse.pt", f"--{name}", str(budget), "--recalibrate", "0", "--out", f"{name}.pt"
        )
        assert outcome.code == 0, outcome.err
        assert 0.9 * budget < read(files / f"{name}.pt").metrics[name] <= budget


def test_channels_are_ranked_by_their_cost_and_layers_keep_a_floor(run: Slimnet, files: Path) -> None:
    def left(*options: str) -> list[int]:
        base = ("prune", "sparse.pt", "--ratio", "0.5", "--recalibrate", "0", "--out", "left.pt", "--force")
        outcome = run(*base, *options)
        assert outcome.code == 0, outcome.err
        widths: list[int] = slimnet.load(files / "left.pt").widths
        return widths

    by_score, by_cost = left(), left("--cost-aware", "params")
    assert sum(by_score) == sum(by_cost)
    assert by_score != by_cost
    assert left("--cost-aware", "params", "--cost-power", "0") == by_score
    floored = left("--cost-aware", "macs", "--cost-power", "0.5", "--layer-floor", "1")
    assert floored == left("--threshold-over", "layer")
    left("--cost-aware", "macs", "--cost-power", "0.5", "--layer-floor", "0.25")
    step = read(files / "left.pt").config["steps"][-1]
    assert (step["cost_aware"], step["cost_power"], step["layer_floor"]) == ("macs", 0.5, 0.25)


@pytest.mark.parametrize("score", ["l2", "taylor"])
def test_other_scores_and_wishes_for_layers(run: Slimnet, files: Path, score: str) -> None:
    wishes = ["--keep", "stages.0.*", "--layer-ratio", "stages.1.0.conv1=0.25", "--max-ratio", "0.9"]
    outcome = run(
        *("prune", "sparse.pt", "--params", "90%", "--score", score, *wishes, "--recalibrate", "0"),
        *("--out", "wished.pt", "--force"),
    )
    assert outcome.code == 0, outcome.err
    before, after = (read(files / name).metrics["params"] for name in ("sparse.pt", "wished.pt"))
    assert after <= 0.9 * before
    assert "stages.0." not in outcome.out
    step = read(files / "wished.pt").config["steps"][-1]
    assert (step["params"], step["layer_ratios"]) == ("90%", {"stages.1.0.conv1": 0.25})


def test_layers_at_the_floor_are_told(run: Slimnet, files: Path) -> None:
    outcome = run("prune", "sparse.pt", "--ratio", "0.9", "--min-channels", "1", "--out", "floor.pt")
    assert re.search(r"note: \d+ layers? keeps? only 1 channel.*layer_floor", outcome.err)


def test_a_latency_budget_prunes_until_it_is_met_or_names_the_floor(run: Slimnet, files: Path) -> None:
    generous = run("prune", "sparse.pt", "--latency-ms", "1000", "--recalibrate", "0", "--out", "all.pt")
    assert generous.code == 0, generous.err
    assert read(files / "all.pt").metrics["params"] == read(files / "sparse.pt").metrics["params"]
    impossible = run("prune", "sparse.pt", "--latency-ms", "0.0001", "--out", "none.pt")
    assert impossible.code == 2
    assert re.match(r"Error: a budget of 0.0001 ms cannot be met: pruning ends at [\d.]+ ms", impossible.err)


def test_a_target_is_trained_to_without_a_lambda(run: Slimnet, tmp_path: Path) -> None:
    options = ["--penalty", "proximal", "--target", "0.6", "--epochs", "6", "--batch-size", "64"]
    outcome = run("train", *SMALL, *options, "--lr", "0.05", "--out", "aimed.pt")
    assert outcome.code == 0, outcome.err
    history = read(tmp_path / "aimed.pt").training["history"]
    assert len({row["lambda"] for row in history}) > 1
    assert history[-1]["near_zero"] == pytest.approx(0.6, abs=0.3)  # few γ, few epochs


def test_a_teacher_changes_what_fine_tuning_finds(run: Slimnet, files: Path) -> None:
    plain, taught = (
        ["finetune", "pruned.pt", "--epochs", "1", "--batch-size", "256", "--out"],
        ["--teacher", "sparse.pt"],
    )
    assert run(*plain, "plain.pt").code == 0
    outcome = run(*plain, "taught.pt", *taught, "--distill", "1")
    assert outcome.code == 0, outcome.err
    losses = [read(files / name).metrics["loss"] for name in ("plain.pt", "tuned.pt", "taught.pt")]
    assert losses[0] == losses[1] != losses[2]
    assert read(files / "taught.pt").config["steps"][-1]["recipe"]["distill"] == 1


def test_new_weights_at_the_widths_of_a_pruned_network(run: Slimnet, files: Path) -> None:
    fresh = ["finetune", "pruned.pt", "--weights", "fresh", "--epochs", "1", "--batch-size", "256", "--out"]
    outcome = run(*fresh, "fresh.pt")
    assert outcome.code == 0, outcome.err
    made, tuned = read(files / "fresh.pt"), read(files / "tuned.pt")
    assert made.config["steps"][-1]["weights"] == "fresh"
    assert "weights" not in tuned.config["steps"][-1]
    assert made.metrics["params"] == tuned.metrics["params"]
    assert slimnet.load(files / "fresh.pt").widths == slimnet.load(files / "pruned.pt").widths
    assert made.metrics["loss"] > tuned.metrics["loss"]

    other = run("prune", "tuned.pt", "--ratio", "0", "--recalibrate", "0", "--out", "pruned.pt", "--force")
    assert other.code == 0, other.err
    assert run(*fresh, "again.pt").code == 0
    again = read(files / "again.pt").state
    assert all(torch.equal(value, again[name]) for name, value in made.state.items()), "whatever was there"


def test_a_training_from_new_weights_goes_on_where_it_was_stopped(
    run: Slimnet, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = ["finetune", "pruned.pt", "--weights", "fresh", "--epochs", "3", "--batch-size", "500", "--out"]
    assert run(*fresh, "whole.pt").code == 0

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("slimnet.cli.show.Progress.epoch", interrupt)
        assert run(*fresh, "parts.pt").code == 130
    resumed = run(*fresh, "parts.pt")
    assert resumed.code == 0, resumed.err
    assert "going on after epoch" in resumed.out
    ends = [read(files / name).state for name in ("whole.pt", "parts.pt")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_validation_is_measured_as_often_as_asked(run: Slimnet, files: Path) -> None:
    options = ["--epochs", "3", "--batch-size", "256", "--evaluate-every", "2", "--out", "rarely.pt"]
    outcome = run("finetune", "pruned.pt", *options)
    assert outcome.code == 0, outcome.err
    epochs = [line for line in outcome.out.splitlines() if line.startswith("epoch ")]
    assert ["validation" in line for line in epochs] == [False, True, True]


def test_a_second_pruning_starts_from_the_first(run: Slimnet, files: Path) -> None:
    outcome = run("prune", "tuned.pt", "--ratio", "0.3", "--streams", "--no-absorb", "--out", "again.pt")
    assert outcome.code == 0, outcome.err
    assert "training penalised no residual stream" in outcome.out
    again, once = read(files / "again.pt"), read(files / "tuned.pt")
    assert again.metrics["params"] < once.metrics["params"]
    assert run("evaluate", "again.pt").code == 0


def test_a_sweeps_file_needs_no_options_either(run: Slimnet, files: Path) -> None:
    which = {"name": "fashion-mini", "fingerprint": fingerprint("fashion-mini")}
    data = {**which, "image_size": 7, "validation": 0.2}
    spec = {"kind": "sparse", "seed": 3, "data": data, "recipe": {"crop": 1, "flip": True, "epochs": 1}}
    slimnet.save(files / "checkpoint.pt", slimnet.load(files / "tuned.pt"), config=spec)
    assert run("prune", "checkpoint.pt", "--ratio", "0.2", "--out", "smaller.pt").code == 0
    config = read(files / "smaller.pt").config
    assert (config["seed"], config["data"]["validation"], config["data"]["crop"]) == (3, 0.2, 1)


def test_a_network_of_your_own_from_training_to_onnx(run: Slimnet, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    own = ["--model", "nets:Net"]
    train = run(
        "train", *own, "--image-size", "7", "--epochs", "1", "--batch-size", "256", "--out", "sparse.pt"
    )
    assert train.code == 0, train.err
    assert run("prune", "sparse.pt", *own, "--ratio", "0.5", "--out", "pruned.pt").code == 0
    script = """
        import sys, nets, slimnet, torch
        assert "typer" not in sys.modules
        model = slimnet.load("pruned.pt", model=nets.Net())
        x = torch.linspace(-1, 1, 147).reshape(3, 1, 7, 7)
        print(slimnet.count_params(model), model.depthwise.groups, *model(x).flatten().tolist())
    """
    elsewhere = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        text=True,
        capture_output=True,
        check=True,
    ).stdout.split()
    import nets  # type: ignore[import-not-found]

    model = slimnet.load("pruned.pt", model=nets.Net())
    x = torch.linspace(-1, 1, 147).reshape(3, 1, 7, 7)
    assert [int(text) for text in elsewhere[:2]] == [slimnet.count_params(model), model.depthwise.groups]
    assert slimnet.count_params(model) < slimnet.count_params(nets.Net())
    assert model.depthwise.groups < 16
    torch.testing.assert_close(
        torch.tensor([float(text) for text in elsewhere[2:]]), model(x).flatten().detach()
    )
    export = run("export", "pruned.pt", *own, "--onnx", "pruned.onnx")
    assert export.code == 0, export.err
    assert (tmp_path / "pruned.onnx").exists()
    refused = run("evaluate", "pruned.pt")
    assert (refused.code, "--model nets:Net" in refused.err) == (2, True)


def test_a_factory_gets_its_arguments_from_the_command_and_then_from_the_file(
    run: Slimnet, tmp_path: Path
) -> None:
    """A network without BatchNorm, which is pruned by its weights."""

    def succeed(command: str) -> str:
        outcome = run(*command.split())
        assert (outcome.code, outcome.err) == (0, ""), outcome.err
        return outcome.out

    small = "--image-size 7 --epochs 1 --batch-size 256"
    succeed(f"train --model nets:scaled --arg factor=2 {small} --lambda 0 --out dense.pt")
    saved = read(tmp_path / "dense.pt")
    assert saved.architecture == {
        "factory": "nets:scaled",
        "args": {"factor": 2, "num_classes": 10, "in_channels": 1},
    }
    succeed("prune dense.pt --model nets:scaled --ratio 0.5 --score l1 --out pruned.pt")
    succeed(
        "finetune pruned.pt --model nets:scaled --epochs 1 --batch-size 256 --weights fresh --out tuned.pt"
    )
    assert "made by: train (1 epoch), then prune" in succeed("inspect tuned.pt --model nets:scaled")
    refused = run("train", "--model", "nets:scaled", "--arg", "factor=2", *small.split(), "--out", "new.pt")
    assert refused.code == 2
    assert "has no BatchNorm whose scaling factors could be trained sparse" in refused.err
    assert not (tmp_path / "new.pt").exists()

    export = "export tuned.pt net.safetensors --model nets:scaled --no-check"
    succeed(export)
    (tmp_path / "nets.py").write_text((tmp_path / "nets.py").read_text() + "\n# edited\n")
    refused = run(*export.split(), "--force")
    assert refused.code == 2
    assert "the source of nets:scaled has been edited since tuned.pt was trained" in refused.err


def test_a_network_of_torchvision_from_weights_alone(run: Slimnet, tmp_path: Path) -> None:
    import torchvision

    name = "torchvision/mobilenet_v2"
    trained = torchvision.models.mobilenet_v2(num_classes=3, width_mult=0.1)
    trained.features[0][0] = torch.nn.Conv2d(1, 8, 3, 2, 1, bias=False)
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    model = ("--model", name, "--arg", "width_mult=0.1")
    data = ("--data", "fashion-mini", "--image-size", "7")

    measured = run("train", *model, "--init", "trained.pth", "--epochs", "0", *data[2:], "--out", "net.pt")
    assert measured.code == 0, measured.err
    assert (
        "tells 3 classes apart, and the data have 10: the last layer, classifier.1, starts with"
        in measured.err
    )
    kept = slimnet.load(tmp_path / "net.pt").state_dict()["features.0.0.weight"]
    assert torch.equal(kept, trained.features[0][0].weight)
    assert run("prune", "net.pt", "--ratio", "0.5", "--score", "l1", "--out", "smaller.pt").code == 0
    assert run("evaluate", "smaller.pt").code == 0

    arguments = (*model, "--arg", "num_classes=3", "--arg", "in_channels=1", "--input-shape", "1x7x7")
    assert "mobilenet" not in run("inspect", "trained.pth").out
    inspected = run("inspect", "trained.pth", *arguments)
    assert inspected.code == 0, inspected.err
    wrong = run("inspect", "trained.pth", *model, "--input-shape", "3x7x7")
    assert (
        wrong.code,
        "the weight of features.0.0 is 8x3x3x3, but in the file it is 8x1x3x3" in wrong.err,
    ) == (2, True)


@pytest.mark.slow  # a process that imports torch
def test_an_interrupted_training_goes_on_to_the_same_end(
    run: Slimnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["train", *SMALL, "--epochs", "8", "--batch-size", "500", "--threads", "1", "--out", "sparse.pt"]
    for name in ("through", "broken"):
        (tmp_path / name).mkdir()
    first = start(tmp_path / "broken", *args)
    assert first.stdout is not None
    while not first.stdout.readline().lstrip().startswith("epoch 1 of 8"):
        assert first.poll() is None
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=PATIENCE)
    assert first.returncode == 130
    assert f"Go on with: {sys.executable} -m slimnet train" in err
    assert "Traceback" not in err
    (partial,) = (tmp_path / "broken").iterdir()
    assert partial.name.endswith(".partial")

    monkeypatch.chdir(tmp_path / "broken")
    again = run(*args)
    assert (again.code, again.err) == (0, "")
    assert re.search(r"going on after epoch \d of 8", again.out)
    assert "epoch 8 of 8" in again.out
    assert [path.name for path in (tmp_path / "broken").iterdir()] == ["sparse.pt"]
    monkeypatch.chdir(tmp_path / "through")
    assert run(*args).code == 0
    ends = [read(tmp_path / name / "sparse.pt").state for name in ("through", "broken")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_training_begun_with_other_settings_is_not_gone_on_with(run: Slimnet, tmp_path: Path) -> None:
    (tmp_path / "sparse.pt.01234567.partial").touch()
    args = ["train", *SMALL, "--epochs", "1", "--batch-size", "500", "--out", "sparse.pt"]
    refused = run(*args)
    assert refused.code == 2
    assert "other settings" in refused.err
    assert run(*args, "--force").code == 0
    assert sorted(path.name for path in tmp_path.glob("sparse*")) == ["sparse.pt"]


def test_a_diverged_training_leaves_nothing(run: Slimnet, tmp_path: Path) -> None:
    args = ["train", *SMALL, "--epochs", "1", "--lr", "1e30", "--batch-size", "500", "--out", "sparse.pt"]
    outcome = run(*args)
    assert outcome.code == 2
    assert "lower lr" in outcome.err
    assert list(tmp_path.glob("*sparse*")) == []


def test_npz_files_are_found_again_and_changes_noticed(run: Slimnet, tmp_path: Path) -> None:
    def write(seed: int) -> None:
        random = np.random.default_rng(seed)
        images = {f"x_{part}": random.integers(0, 256, (40, 6, 6, 3), np.uint8) for part in ("train", "test")}
        np.savez(tmp_path / "own.npz", **images, y_train=np.arange(40) % 2, y_test=np.arange(40) % 2)

    write(0)
    args = ["--blocks", "1", "--width", "4", "--epochs", "1", "--batch-size", "16"]
    assert run("train", "--data", "own.npz", *args, "--out", "sparse.pt").code == 0
    assert run("evaluate", "sparse.pt").code == 0
    write(1)
    refused = run("evaluate", "sparse.pt")
    assert refused.code == 2
    assert "not what sparse.pt was trained on" in refused.err
    assert run("evaluate", "sparse.pt", "--data", "own.npz").code == 0


SETS = """
    from pathlib import Path
    import numpy as np

    def make(side=5):
        Path("ran").touch()
        x, y = np.random.default_rng(0).integers(0, 256, (40, side, side), np.uint8), np.arange(40) % 2
        return {"x_train": x, "x_test": x, "y_train": y, "y_test": y}
"""


def test_data_of_ones_own_function_are_made_only_where_it_is_named(run: Slimnet, tmp_path: Path) -> None:
    (tmp_path / "own_sets.py").write_text(textwrap.dedent(SETS))
    source = Source("factory", tmp_path, "own_sets:make", {"side": 6})
    data = {"name": "factory", "factory": "own_sets:make", "args": {"side": 6}, "image_size": 3}
    data |= {"mean": [0.25], "std": [0.5]}
    network = slimnet.models.vgg([1], 4, num_classes=2, in_channels=1)
    for name, known in [
        ("own.pt", fingerprint(source)),
        ("claims.pt", fingerprint("fashion-mini")),
        ("none.pt", None),
    ]:
        slimnet.save(tmp_path / name, network, config={"data": {**data, "fingerprint": known}})
    for file in ("own.pt", "claims.pt", "none.pt"):
        refused = run("evaluate", file)
        assert refused.code == 2
        assert "made by own_sets:make; name it with --data own_sets:make" in refused.err
        refused = run("inspect", file)
        assert refused.code == 2
        assert "--input-shape" in refused.err
    run("evaluate", "claims.pt", "--data", "fashion-mini")
    assert not (tmp_path / "ran").exists()
    for file in ("own.pt", "none.pt"):
        settings = recorded_data(tmp_path / file, read(tmp_path / file).config, "own_sets:make", None)
        assert (settings.args, settings.image_size, settings.mean) == ({"side": 6}, 3, (0.25,))
    assert run("evaluate", "own.pt", "--data", "own_sets:make").code == 0


def test_the_function_of_ones_data_gets_its_arguments_from_the_command(run: Slimnet, tmp_path: Path) -> None:
    (tmp_path / "sets_of_a_size.py").write_text(textwrap.dedent(SETS))
    train = (
        "train",
        "--blocks",
        "1",
        "--width",
        "4",
        "--epochs",
        "1",
        "--batch-size",
        "16",
        "--out",
        "own.pt",
    )
    refused = run(*train, "--data-arg", "side=6")
    assert (refused.code, "--data-arg is for data that MODULE:FUNCTION makes" in refused.err) == (2, True)
    trained = run(*train, "--data", "sets_of_a_size:make", "--data-arg", "side=6")
    assert trained.code == 0, trained.err
    assert read(tmp_path / "own.pt").config["data"]["args"] == {"side": 6}


def test_data_without_a_fingerprint_are_not_taken_for_the_same(run: Slimnet, tmp_path: Path) -> None:
    network = slimnet.models.vgg([1], 4, in_channels=1)
    slimnet.save(tmp_path / "net.pt", network, config={"data": {"name": "fashion-mini"}})
    assert "name it with --data" in run("evaluate", "net.pt").err
    assert run("evaluate", "net.pt", "--data", "fashion-mini").code == 0


def test_a_network_that_knows_its_images_is_inspected_without_them(run: Slimnet, tmp_path: Path) -> None:
    """As one that a sweep over pictures exports, which does not say where they are."""
    network = slimnet.models.vgg([1], 2, in_channels=1)
    attach(network, slimnet.Preprocessing((6, 5), 1, (0.5,), (0.2,), ("cat", "dog")))
    slimnet.save(tmp_path / "net.pt", network, config={"data": {"name": "folder", "fingerprint": "of them"}})
    inspected = run("inspect", "net.pt", "--json")
    assert inspected.code == 0, inspected.err
    assert json.loads(inspected.out)["image_shape"] == [1, 6, 5]


@pytest.mark.parametrize("command", ["train", "prune", "finetune", "evaluate", "inspect", "export"])
def test_help(run: Slimnet, command: str) -> None:
    outcome = run(command, "--help")
    assert outcome.code == 0
    assert "Usage: " in outcome.out
    assert command in run("--help").out


def test_a_network_is_as_wide_as_in_a_sweep_where_blocks_are_given() -> None:
    from slimnet.cli.networks import describe_network
    from sweeps.config import load_config

    for name in ("resnet", "basic-resnet", "vgg", "mobilenet"):
        config = load_config("smoke", [f"model={{name: {name}, blocks: [1, 1]}}"])
        assert describe_network(name, [1, 1])["width"] == config.model.width
    assert describe_network("resnet")["width"] == 16


@pytest.mark.parametrize(("name", "widths"), [("basic-resnet", [8, 8, 8, 16, 16]), ("vgg", [8, 16])])
def test_other_families_are_trained_too(run: Slimnet, tmp_path: Path, name: str, widths: list[int]) -> None:
    args = ["train", *SMALL, "--model", name, "--epochs", "1", "--batch-size", "500"]
    assert run(*args, "--out", "sparse.pt").code == 0
    assert slimnet.load(tmp_path / "sparse.pt").widths == widths
    assert run("prune", "sparse.pt", "--ratio", "0.5", "--out", "pruned.pt").code == 0
    assert sum(slimnet.load(tmp_path / "pruned.pt").widths) < sum(widths)


def test_a_folder_of_pictures_is_trained_on(
    run: Slimnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMNET_DATA", str(tmp_path / "kept"))
    rng = np.random.default_rng(0)
    for label, name in enumerate(("red", "green")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 90, (9, 8 + number % 3, 3), np.uint8)
            pixels[..., label] += 150
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    train = ["train", "--data", "pictures", *SMALL, "--epochs", "1", "--batch-size", "16"]
    trained = run(*train, "--resize", "pad", "--jitter", "0.2", "--mixup", "0.2", "--out", "sparse.pt")
    assert trained.code == 0, trained.err
    saved = read(tmp_path / "sparse.pt")
    data = saved.config["data"]
    assert (data["name"], data["path"], data["resize"]) == ("folder", str(tmp_path / "pictures"), "pad")
    assert (data["image_size"], data["jitter"], data["mixup"]) == (7, 0.2, 0.2)
    assert saved.preprocessing is not None
    assert (saved.preprocessing.classes, saved.preprocessing.resize) == (("green", "red"), "pad")
    measured = json.loads(run("evaluate", "sparse.pt", "--json").out)
    assert measured["test_images"] == 12
    swept = {**saved.config, "data": {**data, "path": None}}
    slimnet.save(tmp_path / "swept.pt", slimnet.load(tmp_path / "sparse.pt"), config=swept)
    assert "name it with --data" in run("evaluate", "swept.pt").err
    again = json.loads(run("evaluate", "swept.pt", "--data", "pictures", "--json").out)
    assert {**again, "file": "sparse.pt"} == measured
    tuned = run(
        "finetune", "sparse.pt", "--epochs", "1", "--batch-size", "16", "--mixup", "0", "--out", "t.pt"
    )
    assert tuned.code == 0, tuned.err
    data = read(tmp_path / "t.pt").config["data"]
    assert (data["jitter"], data["mixup"]) == (0.2, 0.0)
    (tmp_path / "pictures" / "red" / "0.png").unlink()
    assert "is not what sparse.pt was trained on" in run("evaluate", "sparse.pt").err


TRAIN = f"train {' '.join(SMALL)} --epochs 1 --out new.pt"

WRONG = [
    ("evaluate none.pt", "none.pt: no such file"),
    ("evaluate truncated.pt", "truncated.pt is "),
    ("evaluate pickled.pt", "not a slimnet file"),
    ("evaluate running.pt", "a training in progress, after epoch 1"),
    ("evaluate bare.pt", "does not say which data set it was trained on; name it with --data"),
    ("evaluate sparse.pt --image-size 5", "image_size 5 does not divide"),
    ("evaluate sparse.pt --data nowhere.npz", "no such file or folder is there"),
    ("evaluate sparse.pt --data colour.npz", "does not take images of 3x7x7"),
    ("evaluate sparse.pt --model nets:Net", "the file is of another network"),
    ("inspect bare.pt", "--input-shape"),
    ("inspect bare.pt --input-shape 28x28", "such as 3x32x32"),
    ("inspect sparse.pt --input-shape 3x7x7", "fails at"),
    ("prune sparse.pt --out new.pt", "give a ratio, or budgets: params, macs"),
    ("prune sparse.pt --ratio 0.5 --macs 10 --out new.pt", "give a ratio, or budgets: params, macs"),
    ("prune sparse.pt --ratio 1.5 --out new.pt", "ratio is 1.5"),
    ("prune sparse.pt --ratio nan --out new.pt", "ratio is nan"),
    ("prune sparse.pt --ratio much --out new.pt", "'--ratio'"),
    ("prune sparse.pt --params 10 --out new.pt", "cannot be met"),
    ("prune sparse.pt --ratio 0.5 --min-channels 0 --out new.pt", "min-channels"),
    ("prune sparse.pt --ratio 0.5 --cost-aware time --out new.pt", "'time' is not one of"),
    ("prune sparse.pt --ratio 0.5 --cost-power -1 --out new.pt", "cost-power"),
    ("prune sparse.pt --ratio 0.5 --layer-floor 1.5 --out new.pt", "layer-floor"),
    (
        "prune sparse.pt --ratio 0.5 --layer-floor 0.5 --threshold-over layer --out new.pt",
        "layer_floor goes with",
    ),
    ("prune sparse.pt --ratio 0.5 --out pruned.pt", "pruned.pt is there already"),
    ("prune sparse.pt --ratio 0.5 --out .", "is a folder"),
    ("prune sparse.pt --ratio 0.5 --out sparse.pt/new.pt", "cannot be written"),
    ("finetune sparse.pt --weights old --out new.pt", "'old' is not one of"),
    ("finetune sparse.pt --lr 0 --out new.pt", "0.0 is not above 0"),
    ("finetune sparse.pt --lr nan --out new.pt", "nan is not above 0"),
    ("finetune sparse.pt --epochs 0 --out new.pt", "epochs"),
    (f"{TRAIN} --data fashion-mimi", "did you mean fashion-mini? It is one of fashion-mini"),
    (f"{TRAIN} --data svhn", "did you mean torchvision/SVHN?"),
    (f"{TRAIN} --data torchvision/cifar10", "take slimnet's own cifar10"),
    (f"{TRAIN} --data torchvision/SVHM", "did you mean torchvision/SVHN? The names are"),
    ("train --out new.pt --model torchvision", "--model is torchvision; it is resnet, "),
    ("train --out new.pt --model torchvison/vgg11", "did you mean torchvision/vgg11? It is resnet, "),
    (f"{TRAIN} --data npz", "an npz file, a folder"),
    (f"{TRAIN} --validation 0.9", "validation is 0.9"),
    (f"{TRAIN} --lambda -1", "-1.0 is not at least 0"),
    (f"{TRAIN} --target 1", "1.0 is not between 0 and 1"),
    (f"{TRAIN} --target 0.5 --lambda 0.1", "leave out --lambda, or --target"),
    (
        f"{TRAIN} --target 0.5 --lambda-schedule warmup-tail",
        "leave out the schedule 'warmup-tail' of λ, or the target",
    ),
    ("finetune pruned.pt --distill 0.9 --out new.pt", "need a --teacher FILE"),
    ("finetune pruned.pt --teacher none.pt --out new.pt", "none.pt: no such file"),
    (f"{TRAIN} --blocks one", "--blocks is one"),
    (
        f"{TRAIN} --model resnet50",
        "--blocks and --width are of resnet, basic-resnet, vgg, mobilenet; resnet50 has",
    ),
    (f"{TRAIN} --model vgg16", "vgg16 has its own"),
    (f"{TRAIN} --model vgg --stem cifar", "--stem is of ResNets and MobileNets; vgg has"),
    (f"{TRAIN} --optimiser sgd", "No such option"),
    ("train --out new.pt --model nets", "timm/NAME or MODULE:FACTORY"),
    ("train --out new.pt --model nest:Net", "there is no module nest in "),
    ("train --out new.pt --model nets:Nut", "nets.py has no Nut; did you mean nets:Net?"),
    ("train --out new.pt --model nets:broken", "no weights today"),
    ("train --out new.pt --model nets:nothing", "nets:nothing returns a NoneType"),
    (
        "train --out new.pt --model nets:one_class",
        "for one image; the data need (1, 10)",
    ),
    ("train --out new.pt --epochs 0", "--epochs is 0, which needs a trained network to measure: --init FILE"),
    ("train --out new.pt --init gone.pth", "gone.pth cannot be read"),
    ("train --out new.pt --model nets:scaled", "nets:scaled needs the argument factor; give it"),
    ("train --out new.pt --model nets:scaled --arg factor", "--arg factor: write NAME=VALUE"),
    (
        "train --out new.pt --model nets:scaled --arg factor=2026-01-31",
        "--arg factor=2026-01-31: the value is a date that JSON does not have; for a text quote it, as in",
    ),
    ("train --out new.pt --arg factor=2", "--arg is for factories and networks of torchvision and timm"),
    ("train --out new.pt --model torchvision/alexnet --image-size 7", "does not take images of 1x7x7"),
    ("export sparse.pt", "export needs OUT: a .onnx"),
    ("export sparse.pt new.tflite", "files end in .pt, .safetensors, .onnx, .pt2"),
    ("export sparse.pt new --format tflite", "formats are pt, safetensors, onnx, pt2"),
    ("export sparse.pt new.onnx --format pt2", "new.onnx is one file"),
    ("export sparse.pt new.onnx --data nowhere.npz", "to leave that out: --no-check"),
    ("export sparse.pt new.safetensors", "new.json is there already"),
    ("export none.pt new", "none.pt: no such file"),
    ("export sparse.pt --onnx pruned.pt", "pruned.pt is there already"),
    ("train", "--out"),
    ("prone", "No such command 'prone'"),
]


@pytest.mark.parametrize(("command", "reason"), WRONG, ids=[command for command, _ in WRONG])
def test_a_mistake_is_one_message_and_nothing_written(
    run: Slimnet, files: Path, command: str, reason: str
) -> None:
    content = (files / "sparse.pt").read_bytes()
    (files / "truncated.pt").write_bytes(content[: len(content) // 2])
    (files / "pickled.pt").write_bytes(pickle.dumps({"format": "slimnet"}))
    network = slimnet.load(files / "sparse.pt")
    slimnet.save(files / "bare.pt", slimnet.models.vgg([1], 2, in_channels=1))
    slimnet.save(files / "running.pt", network, training={"optimizer": {}, "history": [{}]})
    colour = np.zeros((20, 7, 7, 3), np.uint8)
    labels = np.arange(20) % 2
    np.savez(files / "colour.npz", x_train=colour, x_test=colour, y_train=labels, y_test=labels)
    (files / "new.json").write_text("mine")
    there = {path.name: path.stat().st_mtime_ns for path in files.iterdir() if path.is_file()}

    outcome = run(*command.split())
    assert outcome.code == 2
    assert reason in outcome.err
    assert "Traceback" not in outcome.err
    assert {path.name: path.stat().st_mtime_ns for path in files.iterdir() if path.is_file()} == there
