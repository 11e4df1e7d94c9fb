"""Trained weights to start from: from which files, and what is said where they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

import slimnet
from slimnet.errors import SlimnetError
from slimnet.models.building import build_network
from slimnet.models.catalogue import names_weights
from slimnet.models.weights import give_weights, is_plain_weights, published_source

DESCRIPTION = {"name": "basic-resnet", "blocks": [1], "width": 4}


def make(num_classes: int = 5, width: int = 4) -> nn.Module:
    torch.manual_seed(width * num_classes)
    return slimnet.models.basic_resnet([1], width, num_classes=num_classes)


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, other: nn.Module) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


FILES: dict[str, Callable[[Path, nn.Module], Any]] = {
    "net.pt": lambda path, model: slimnet.save(path, model),
    "net.safetensors": lambda path, model: save_file(state_of(model), path),
    "net.pth": lambda path, model: torch.save(model.state_dict(), path),
    "old.pth": lambda path, model: torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False),
    "wrapped.pth": lambda path, model: torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state_of(model).items()}}, path
    ),
    "compiled.pth": lambda path, model: torch.save(
        {"model": {f"module._orig_mod.{name}": value for name, value in state_of(model).items()}}, path
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_weights_are_read_from_files_of_every_kind(name: str, tmp_path: Path) -> None:
    trained, model = make(), make()
    with torch.no_grad():
        trained.fc.weight.fill_(3)
    FILES[name](tmp_path / name, trained)
    assert give_weights(model, DESCRIPTION, str(tmp_path / name), 5) is None
    assert same(model, trained)
    assert is_plain_weights(tmp_path / name) == (name != "net.pt")


def test_a_last_layer_of_other_classes_starts_fresh_and_is_named(tmp_path: Path) -> None:
    path, trained, model = tmp_path / "net.pth", make(num_classes=7), make()
    torch.save(trained.state_dict(), path)
    head = model.fc.weight.detach().clone()
    note = give_weights(model, DESCRIPTION, str(path), 5)
    assert note is not None
    assert note.endswith(
        "tells 7 classes apart, and the data have 5: the last layer, fc, starts with new weights"
    )
    assert torch.equal(model.fc.weight, head)
    assert torch.equal(model.conv1.weight, trained.conv1.weight)
    with pytest.raises(SlimnetError, match="the weight of fc is 5x4, but in the file it is 7x4"):
        give_weights(model, DESCRIPTION, str(path), None)


def without(*names: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state_of(make()).items() if name not in names}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (state_of(make(width=6)), "the weight of conv1 is 4x3x3x3, but in the file it is 6x3x3x3"),
        (without("bn1.running_var"), "the running_var of bn1 is 4, but in the file there is none"),
        ({**without(), "extra.weight": torch.ones(1)}, "does not fit the network, which has no extra.weight"),
        ({"epoch": 3}, "holds no state_dict; save one with torch.save"),
        (torch.ones(3), "holds no state_dict"),
        (make(), "holds pickled objects, which could run code"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_the_first_layer(
    state: Any, message: str, tmp_path: Path
) -> None:
    path, model = tmp_path / "net.pth", make()
    before = state_of(model)
    torch.save(state, path)
    with pytest.raises(SlimnetError, match=message):
        give_weights(model, DESCRIPTION, str(path), 5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_files_that_are_missing_or_damaged_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(SlimnetError, match=f"there is no file .*{name}"):
        give_weights(make(), DESCRIPTION, str(tmp_path / name), 5)
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(SlimnetError, match=f"{name} cannot be read as"):
        give_weights(make(), DESCRIPTION, str(tmp_path / name), 5)


def test_old_files_lack_the_batches_that_were_counted(tmp_path: Path) -> None:
    trained, path = make(), tmp_path / "net.pth"
    torch.save(without("bn1.num_batches_tracked"), path)
    assert give_weights(model := make(), DESCRIPTION, str(path), 5) is None
    assert same(model, trained)


TORCHVISION = {"name": "torchvision/mobilenet_v2", "args": {"num_classes": 4, "width_mult": 0.1}}


def test_published_weights_are_taken_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    known = models.MobileNet_V2_Weights
    assert published_source(TORCHVISION, "DEFAULT") == known.DEFAULT.url
    assert published_source(TORCHVISION, "IMAGENET1K_V1") == known.IMAGENET1K_V1.url
    with pytest.raises(SlimnetError, match="has no weights IMAGENET1K_V9; it has DEFAULT, IMAGENET1K_V1"):
        give_weights(nn.Linear(1, 1), TORCHVISION, "IMAGENET1K_V9", 4)
    trained, model = (build_network(TORCHVISION) for _ in range(2))
    monkeypatch.setattr(known, "get_state_dict", lambda self, **options: trained.state_dict())
    assert give_weights(model, TORCHVISION, "DEFAULT", 4) is None
    assert same(model, trained)


def test_published_weights_are_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = models.MobileNet_V2_Weights.DEFAULT
    (tmp_path / "checkpoints").mkdir()
    torch.save(make(), tmp_path / "checkpoints" / Path(weights.url).name)  # a pickled object
    with pytest.raises(SlimnetError, match="Weights only load failed"):
        give_weights(build_network(TORCHVISION), TORCHVISION, "DEFAULT", 4)


def test_a_download_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, **options: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(models.MobileNet_V2_Weights, "get_state_dict", fail)
    with pytest.raises(
        SlimnetError, match=r"cannot be downloaded \(Name or service not known\); download them"
    ):
        give_weights(build_network(TORCHVISION), TORCHVISION, "DEFAULT", 4)


def test_names_of_weights_are_told_from_files() -> None:
    assert names_weights("torchvision/vgg11", "DEFAULT")
    assert names_weights("timm/repvgg_a0", "pretrained")
    for name, init in [("torchvision/vgg11", "vgg.pth"), (None, "DEFAULT"), ("vgg16", "pretrained")]:
        assert not names_weights(name, init)
