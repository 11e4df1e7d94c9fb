"""The command `init`: what it makes of data and networks that it is shown."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import Command

from slimnet.errors import SlimnetError
from sweeps.config import load_config
from sweeps.proposal import shown
from sweeps.proposal.choices import SIDES

NETS = """
from torch import nn

def small(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 24, 3, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, num_classes),
    )
"""
PLAIN = """
from torch import nn

def plain(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 24, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, num_classes),
    )
"""
SETS = """
import numpy as np

def noise():
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (90, 8, 8, 3), np.uint8), np.arange(90) % 3
    return {"x_train": x, "y_train": y, "x_test": x[:9], "y_test": y[:9], "classes": ["a", "b", "c"]}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; questions are answered in this process, which has torch."""
    monkeypatch.setattr("sweeps.executors.processes.ask", lambda question, *arguments: question(*arguments))
    monkeypatch.setattr("sweeps.executors.processes.warm_up", lambda: None)
    monkeypatch.setenv("SLIMNET_DATA", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def arrays(path: Path, side: int = 8, count: int = 80) -> Path:
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (count, side, side), np.uint8), np.arange(count) % 2
    np.savez(path, x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return path


def pictures(root: Path, count: int = 20) -> Path:
    random = np.random.default_rng(0)
    for name in ("cat", "sly fox"):
        (root / name).mkdir(parents=True)
        for number in range(count):
            height, width = random.integers(40, 90, 2)
            Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(
                root / name / f"{number}.png"
            )
    return root


def test_an_npz_becomes_a_config_that_passes_the_check(here: Path, command: Command) -> None:
    arrays(here / "my digits.npz")
    status, out, err = command("init", "my digits.npz")
    assert status == 0, err
    assert "80 grey images of 8x8 pixels in 2 classes" in out
    assert "written: my-digits.yaml; look at it, then start with: " in out
    text = (here / "my-digits.yaml").read_text()
    assert text.startswith("# A sweep over 80 grey images of 8x8 pixels in 2 classes.\n# About ")
    settings = load_config("my-digits.yaml")
    assert (settings.study, settings.data.name) == ("my-digits", "npz")
    assert settings.data.path == here / "my digits.npz"
    assert 'path: "my digits.npz"' in text  # so that both files can be moved together
    assert (settings.data.flip, settings.data.crop, settings.data.validation) == (False, 1, 0.2)
    assert settings.model.stem == "cifar"
    (override,) = re.findall(r"overridden: --set (\S+)", text)
    key = override.partition("=")[0]
    assert key not in settings.search.space, "some trials would not hear it"
    section, name = key.split(".")
    before, after = (
        getattr(getattr(one, section), name) for one in (settings, load_config("my-digits.yaml", [override]))
    )
    assert before != after
    (more,) = re.findall(r"trials: 10 .*--trials (\d+)", text)
    status, _, err = command("plan", "my-digits.yaml", "--trials", more)
    assert status == 0, err

    status, out, err = command("check", "my-digits.yaml")
    assert (status, "Error" in err) == (0, False)
    assert "refused" not in out


def test_pictures_of_odd_sizes_get_a_side_that_half_of_them_have(here: Path, command: Command) -> None:
    pictures(here / "animals")
    status, _, err = command("init", "animals", "--out", "sub.yaml")
    assert status == 0, err
    settings = load_config("sub.yaml")
    assert (settings.study, settings.data.name, settings.data.path) == ("animals", "folder", here / "animals")
    assert settings.data.image_size in SIDES
    assert 40 <= (settings.data.image_size or 0) <= 64
    assert settings.model.stem == "imagenet"
    assert settings.data.flip
    assert "half of the pictures have a shorter side of" in (here / "sub.yaml").read_text()


def test_factories_of_data_and_of_a_network_are_found_beside_the_config(here: Path, command: Command) -> None:
    (here / "init_sets.py").write_text(SETS)
    (here / "init_nets.py").write_text(NETS)
    status, out, err = command("init", "init_sets:noise", "--model", "init_nets:small")
    assert status == 0, err
    assert "network: init_nets:small" in out
    settings = load_config("noise.yaml")
    assert (settings.data.factory, settings.model.factory) == ("init_sets:noise", "init_nets:small")
    assert settings.finetune.lr == 0.05
    assert settings.search.space["prune.score"].values() == ["lamp", "gamma"]
    assert "path:" not in (here / "noise.yaml").read_text()


def test_a_network_without_batch_norm_is_cut_by_its_weights(here: Path, command: Command) -> None:
    (here / "init_plain.py").write_text(PLAIN)
    status, _, err = command("init", str(arrays(here / "noise.npz")), "--model", "init_plain:plain")
    assert status == 0, err
    settings = load_config("noise.yaml")
    assert (settings.prune.score, list(settings.search.space)) == ("lamp", ["prune.params"])
    status, _, err = command("plan", "noise.yaml")
    assert status == 0, err


def test_trials_are_no_more_than_sizes_that_a_tiny_network_has(here: Path, command: Command) -> None:
    (here / "init_tiny.py").write_text(PLAIN.replace("8", "2"))
    status, _, err = command("init", str(arrays(here / "noise.npz")), "--model", "init_tiny:plain")
    assert status == 0, err
    status, _, err = command("plan", "noise.yaml")
    assert status == 0, err


@pytest.mark.parametrize("name", ["2024", "1e5", "true", "null"])
def test_data_may_be_named_like_a_number(name: str, here: Path, command: Command) -> None:
    arrays(here / f"{name}.npz")
    status, _, err = command("init", f"{name}.npz")
    assert status == 0, err
    assert load_config(f"{name}.yaml").study == name


def test_a_config_that_is_there_stays(here: Path, command: Command) -> None:
    arrays(here / "own.npz")
    (here / "own.yaml").write_text("mine")
    status, out, err = command("init", "own.npz")
    assert (status, out) == (2, "")
    assert err == "Error: own.yaml is there already; name another file with --out\n"
    assert (here / "own.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere is not there; show a folder with a folder of pictures per class"),
        (["notes.txt"], "notes.txt is no data set; show an npz file"),
        (["empty"], "empty"),
        (["own.npz", "--model", "torchvision/mobilenet_v9"], "did you mean torchvision/mobilenet_v2"),
        (["own.npz", "--model", "nets_that_are_not:there"], "nets_that_are_not"),
        (["sets_that_are_not:there"], "sets_that_are_not"),
    ],
)
def test_what_cannot_be_used_is_one_message_and_nothing_is_written(
    arguments: list[str], said: str, here: Path, command: Command
) -> None:
    arrays(here / "own.npz")
    (here / "notes.txt").write_text("hello")
    (here / "empty").mkdir()
    before = sorted(here.iterdir())
    status, out, err = command("init", *arguments)
    assert (status, out, err.count("Error")) == (2, "", 1)
    assert said in err
    assert sorted(here.iterdir()) == before


def test_a_study_is_named_after_its_data(here: Path) -> None:
    arrays(here / "ünusual (2).npz")
    assert shown("ünusual (2).npz", None, None).study == "nusual-2"
    assert shown("pkg.mod:my_set", None, None).study == "my_set"
    (here / "arrays").mkdir()
    (here / "arrays" / "x_train.npy").touch()
    assert shown("arrays", None, None).data.name == "npy"
    (here / "stages").mkdir()
    assert shown("stages", None, None).study == "study"
    with pytest.raises(SlimnetError, match="is not there"):
        shown("torchvision/nothing", None, None)
    assert shown("fashion-mini", None, None).data.name == "fashion-mini"
