"""Networks to begin with: checked on the data, filled, and drawn anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import slimnet
from slimnet.errors import SlimnetError
from slimnet.models.building import build_network, describe
from slimnet.networks import check_fit, fresh, new_network, redraw, structure

SMALL = {"name": "torchvision/mobilenet_v2", "args": {"width_mult": 0.25}}


def values(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_first_weights_follow_from_the_seed() -> None:
    first, same, other = (new_network(SMALL, (1, 32, 32), 4, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(values(first), values(same))
    assert not torch.equal(values(first), values(other))
    family = {"name": "vgg", "blocks": [1], "width": 4}
    by_hand = fresh(lambda: slimnet.models.vgg([1], 4, num_classes=4, in_channels=1), seed=3)
    assert torch.equal(values(new_network(family, (1, 8, 8), 4, seed=3)), values(by_hand))


def test_a_network_starts_from_trained_weights_and_says_what_it_lacks(tmp_path: Path) -> None:
    trained = build_network(SMALL, num_classes=7, in_channels=3)
    torch.save(trained.state_dict(), tmp_path / "net.pth")
    notes: list[str] = []
    model = new_network(SMALL, (3, 32, 32), 4, init=str(tmp_path / "net.pth"), on_note=notes.append)
    assert torch.equal(model.features[0][0].weight, trained.features[0][0].weight)
    assert len(notes) == 1
    assert "classifier.1, starts with new weights" in notes[0]


class Training(nn.Module):
    """Returns more than one output while it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Any:
        out = self.fc(x.mean((2, 3)))
        return (out, out) if self.training else out


@pytest.mark.parametrize(
    ("description", "shape", "message"),
    [
        (
            {"name": "torchvision/vit_b_16"},
            (3, 32, 32),
            "does not take images of 3x32x32: Wrong image height!",
        ),
        ({"name": "torchvision/alexnet"}, (3, 8, 8), "torchvision/alexnet does not take images of 3x8x8: "),
        ({"name": "torchvision/fcn_resnet50"}, (3, 32, 32), "returns an output of type .*Dict for one image"),
    ],
)
def test_networks_that_the_data_cannot_go_through_are_refused(
    description: dict[str, Any], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(SlimnetError, match=message):
        new_network(description, shape, 4)


def test_outputs_are_checked_while_training_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Training().eval()
    assert check_fit(model, (3, 8, 8), 4, "it") == 4
    with pytest.raises(
        SlimnetError, match=r"it returns an output of shape \(1, 4\) for one image; the data need"
    ):
        check_fit(model, (3, 8, 8), 5, "it")
    with pytest.raises(SlimnetError, match="it does not take images of 2x8x8"):
        check_fit(model, (2, 8, 8), 4, "it")
    monkeypatch.setattr("slimnet.networks.build_network", lambda *args, **options: Training())
    with pytest.raises(
        SlimnetError, match="nets:it, while training, returns an output of type tuple for two images"
    ):
        new_network({"factory": "nets:it"}, (3, 8, 8), 4)


def test_gpus_are_left_alone_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[object] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", touched.append)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
    new_network({"name": "vgg", "blocks": [1], "width": 4}, (1, 8, 8), 4)
    assert touched == []


def test_the_structure_is_names_and_shapes() -> None:
    first = structure(slimnet.models.vgg([1], 4))
    assert first == structure(slimnet.models.vgg([1], 4))
    assert first != structure(slimnet.models.vgg([1], 5))
    assert first != structure(slimnet.models.vgg([1, 1], 4))


def test_a_network_of_a_library_is_redrawn_as_it_draws_itself() -> None:
    model = new_network(SMALL, (3, 32, 32), 4)
    example = torch.zeros(1, 3, 32, 32)
    plan = slimnet.plan(slimnet.trace(model, example), ratio=0.5, score="random", streams=True)
    smaller = slimnet.prune(model, plan)
    first, same, other = (redraw(smaller, seed=seed) for seed in (3, 3, 4))
    assert {n: v.shape for n, v in first.state_dict().items()} == {
        n: v.shape for n, v in smaller.state_dict().items()
    }
    assert torch.equal(values(first), values(same))
    assert not torch.equal(values(first), values(other))
    whole = build_network(model.architecture)
    for layer in ("classifier.1", "features.3.conv.0.0"):
        drawn, reference = first.get_submodule(layer).weight, whole.get_submodule(layer).weight
        assert float(drawn.std()) == pytest.approx(float(reference.std()), rel=0.3)
    assert first.features[0][1].weight.unique().tolist() == [1]
    assert float(first.classifier[1].bias.abs().sum()) == 0


class Scaled(nn.Module):
    """A layer with a parameter of its own, such as layer scale, that has no `reset_parameters`."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)
        self.scale = nn.Parameter(0.1 * torch.ones(width))
        self.fc = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)) * self.scale)


def test_parameters_of_a_networks_own_are_redrawn_by_what_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SlimnetError, match="cannot draw its weights anew"):
        redraw(Scaled(), seed=0)
    described = {"factory": "nets:scaled", "args": {}}
    monkeypatch.setattr("slimnet.networks.build_network", lambda architecture: Scaled())
    model = describe(Scaled(), described)
    with torch.no_grad():
        model.scale.fill_(3)
        model.norm.bias.fill_(1)  # so that constants are absorbed, where a removed channel has γ 0
        model.norm.weight[:4] = 0
    plan = slimnet.plan(slimnet.trace(model, torch.zeros(1, 3, 8, 8)), ratio=0.5)
    drawn = redraw(slimnet.prune(model, plan), seed=0)
    assert torch.equal(drawn.scale, torch.full((4,), 0.1))
    assert drawn.norm.bias.tolist() == [0, 0, 0, 0]


def test_networks_of_timm_start_and_are_redrawn() -> None:
    pytest.importorskip("timm")
    model = new_network({"name": "timm/convnext_atto"}, (1, 32, 32), 4)  # has layer scale
    drawn = redraw(model, seed=1)
    assert not torch.equal(values(drawn), values(model))
    assert drawn.architecture == model.architecture
