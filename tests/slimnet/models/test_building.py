"""Networks made from descriptions: slimnet's, those of libraries, and one's own."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import slimnet
from slimnet.errors import SlimnetError
from slimnet.models.building import build_network

NETS = """
    import torch
    from torch import nn

    class Net(nn.Module):
        '''A depthwise conv, a concatenation, and a scale of its own.'''

        def __init__(self, width, num_classes, in_channels):
            super().__init__()
            self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
            self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
            self.norm = nn.BatchNorm2d(2 * width)
            self.scale = nn.Parameter(torch.ones(2 * width))
            self.fc = nn.Linear(2 * width, num_classes)

        def forward(self, x):
            x = self.stem(x).relu()
            x = self.norm(torch.cat([x, self.depthwise(x)], 1)).relu()
            return self.fc(x.mean((2, 3)) * self.scale)

    def net(num_classes, width=4, *, in_channels=3):
        return Net(width, num_classes, in_channels)

    def plain():
        return nn.Linear(3, 2)

    def takes_anything(**kwargs):
        return nn.Linear(len(kwargs), 2)

    def named():
        model = nn.Linear(3, 2)
        model.architecture = "linear"
        return model

    def nothing():
        return None

    def broken():
        raise RuntimeError("no weights\\ntoday")

    def needs(depth, num_classes):
        return nn.Linear(depth, num_classes)

    number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "nets_built", raising=False)
    (tmp_path / "nets_built.py").write_text(textwrap.dedent(NETS))
    return tmp_path


def own(name: str, **args: Any) -> dict[str, Any]:
    return {"factory": f"nets_built:{name}", "args": args}


def test_a_factory_gets_what_it_takes_of_the_data(folder: Path) -> None:
    model = build_network(own("net", width=6), num_classes=7, in_channels=1, folder=folder)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 7)
    assert model.architecture == own("net", width=6, num_classes=7, in_channels=1)
    again = build_network(model.architecture, folder=folder)
    assert [value.shape for value in again.parameters()] == [value.shape for value in model.parameters()]
    given = build_network(own("net", num_classes=3), num_classes=7, in_channels=1, folder=folder)
    assert given.fc.out_features == 3
    assert build_network(own("plain"), num_classes=7, in_channels=1, folder=folder).in_features == 3
    assert build_network(own("takes_anything", a=1), num_classes=7, folder=folder).in_features == 1


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (own("nothing"), "nets_built:nothing returns a NoneType; a torch.nn.Module is needed"),
        (own("broken"), r"nets_built:broken failed: RuntimeError: no weights \(.*nets_built.py, line \d+\)"),
        (own("needs"), "nets_built:needs needs the argument depth; give it in model.args"),
        (own("net", depth=3), "takes no argument depth; it takes num_classes, width, in_channels"),
        (own("nett"), "nets_built.py has no nett; did you mean nets_built:net?"),
        (own("number"), "nets_built:number is a int; a function is needed"),
        ({"factory": "nest:net"}, "there is no module nest in "),
        ({"name": "torchvision/mobilenet_v9"}, "torchvision has no network mobilenet_v9; did you mean"),
        (
            {"name": "torchvision/vgg11", "args": {"depth": 3}},
            "torchvision/vgg11 cannot be made with .*depth=3",
        ),
        (
            {"name": "torchvision/vgg11", "args": {"weights": "DEFAULT"}},
            "trained weights by init, not by args",
        ),
        ({"name": "densenet"}, "the network densenet is one that this slimnet does not know"),
    ],
)
def test_what_cannot_be_made_is_told_in_a_sentence(
    folder: Path, description: dict[str, Any], message: str
) -> None:
    with pytest.raises(SlimnetError, match=message):
        build_network(description, num_classes=7, folder=folder)


def test_a_module_of_another_folder_is_not_taken_for_it(folder: Path, tmp_path: Path) -> None:
    build_network(own("plain"), folder=folder)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/nets_built.py").write_text("def plain(): ...")
    with pytest.raises(SlimnetError, match="has already imported another module of that name"):
        build_network(own("plain"), folder=tmp_path / "elsewhere")


def test_an_attribute_of_the_same_name_is_left_alone(folder: Path, tmp_path: Path) -> None:
    model = build_network(own("named"), folder=folder)
    assert model.architecture == "linear"
    slimnet.save(tmp_path / "net.pt", model)
    assert slimnet.read(tmp_path / "net.pt").architecture == own("named")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_networks_of_torchvision_take_the_channels_of_the_data(channels: int) -> None:
    model = build_network({"name": "torchvision/squeezenet1_1"}, num_classes=5, in_channels=channels)
    assert model(torch.zeros(1, channels, 32, 32)).shape == (1, 5)
    assert model.architecture["args"] == {"num_classes": 5, "in_channels": channels}


def pruned(model: nn.Module, example: torch.Tensor) -> nn.Module:
    plan = slimnet.plan(slimnet.trace(model, example), ratio=0.5, score="l1", streams=True)
    return slimnet.prune(model, plan).eval()


def check_loads(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    slimnet.save(path, model)
    loaded = slimnet.load(path)
    assert loaded.architecture == model.architecture
    with torch.no_grad():
        assert torch.equal(loaded(example), model(example))


def test_a_pruned_network_of_torchvision_loads_from_its_file_alone(tmp_path: Path) -> None:
    example = torch.randn(2, 1, 32, 32)
    description = {"name": "torchvision/mobilenet_v2", "args": {"width_mult": 0.25}}
    check_loads(
        pruned(build_network(description, num_classes=4, in_channels=1), example), example, tmp_path / "n.pt"
    )


def test_a_pruned_network_of_timm_loads_from_its_file_alone(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    example = torch.randn(2, 1, 32, 32)
    model = build_network({"name": "timm/repvgg_a0"}, num_classes=4, in_channels=1)
    assert model.architecture == {"name": "timm/repvgg_a0", "args": {"num_classes": 4, "in_chans": 1}}
    check_loads(pruned(model, example), example, tmp_path / "n.pt")
    with pytest.raises(SlimnetError, match="timm has no network repvgg_a9; did you mean timm/repvgg_a"):
        build_network({"name": "timm/repvgg_a9"})


def test_timm_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SlimnetError, match=r"timm/repvgg_a0 needs the package timm: pip install timm"):
        build_network({"name": "timm/repvgg_a0"})


def test_a_file_of_ones_own_network_runs_no_code_unasked(folder: Path, tmp_path: Path) -> None:
    example = torch.randn(2, 1, 8, 8)
    model = pruned(build_network(own("net", width=8), num_classes=5, in_channels=1, folder=folder), example)
    slimnet.save(tmp_path / "net.pt", model)
    with pytest.raises(
        SlimnetError, match=r"holds a network of your own, made by nets_built:net; load it with model="
    ):
        slimnet.load(tmp_path / "net.pt")
    fresh = sys.modules["nets_built"].Net(8, 5, 1)
    loaded = slimnet.load(tmp_path / "net.pt", model=fresh)
    assert loaded.architecture == own("net", width=8, num_classes=5, in_channels=1)
    with torch.no_grad():
        assert torch.equal(loaded(example), model(example))
