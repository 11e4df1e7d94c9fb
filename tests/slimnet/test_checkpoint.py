from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import slimnet
from slimnet import SlimnetError, checkpoint, load, models, plan, prune, save, trace


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 16, 16)


def small() -> models.ResNet:
    network = models.resnet([2, 1], 8)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.1, 1)
                module.bias.normal_()
    return network.eval()


def cut(network: nn.Module, ratio: float = 0.5, **options: Any) -> nn.Module:
    return prune(network, plan(trace(network, images(1)), ratio=ratio, **options)).eval()


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    x = images()
    with torch.no_grad():
        return torch.equal(ours(x), theirs(x))


class MyNet(nn.Module):
    """A user's own: grouped and transposed convs, norms of several kinds, a stream, linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(8, 12, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(12), nn.SiLU(),
            nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.SiLU(),
            nn.ConvTranspose2d(12, 8, 1, bias=False), nn.BatchNorm2d(8, affine=False), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.after = nn.Conv2d(8, 6, 7, bias=False)
        self.fc = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.fc(self.after(x + self.body(x)).flatten(1))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.pt"
    save(path, small(), metrics={"accuracy": 0.5})
    return path


# Round trips


@pytest.mark.parametrize("options", [{}, {"streams": True}], ids=["inner", "streams"])
def test_own_network_loads_from_the_file_alone(tmp_path: Path, options: dict[str, Any]) -> None:
    network = cut(small(), **options)
    assert (network.stages[1][0].shortcut.bias is not None) == bool(options)
    save(tmp_path / "net.pt", network)
    again = load(tmp_path / "net.pt")
    assert isinstance(again, models.ResNet)
    assert again.widths == network.widths
    assert not again.training
    assert same(again, network)


@pytest.mark.parametrize("streams", [False, True])
def test_own_class_pruned_twice_loads_with_a_fresh_instance(tmp_path: Path, streams: bool) -> None:
    network: nn.Module = MyNet().eval()
    for round_ in range(2):
        network = cut(network, 0.4, streams=streams, min_channels=1)
        save(tmp_path / f"{round_}.pt", network)
        again = load(tmp_path / f"{round_}.pt", model=MyNet())
        assert same(again, network)
        assert slimnet.count_macs(again, images(1)) == slimnet.count_macs(network, images(1))
        chosen = plan(trace(again, images(1)), ratio=0.2, streams=streams, min_channels=1)
        assert same(prune(again, chosen).eval(), prune(network, chosen).eval())


def test_last_conv_group_cut_further_loads(tmp_path: Path) -> None:
    def fresh() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, groups=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 2, 1),
        )  # fmt: skip

    network = cut(cut(fresh().eval(), 0.6, min_channels=1), 0.5)
    save(tmp_path / "net.pt", network)
    assert same(load(tmp_path / "net.pt", model=fresh()), network)


def test_fine_tuned_network_in_a_new_process(tmp_path: Path) -> None:
    network = cut(small())
    network.train()(images(4)).sum().backward()
    torch.optim.SGD(network.parameters(), 0.01).step()
    save(tmp_path / "net.pt", network.eval())
    script = "import sys, torch, slimnet; m = slimnet.load(sys.argv[1]); torch.manual_seed(5); "
    script += "print(m(torch.randn(2, 3, 16, 16)).sum().item())"
    command = [sys.executable, "-c", script, str(tmp_path / "net.pt")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    torch.manual_seed(5)
    with torch.no_grad():
        assert float(printed) == pytest.approx(float(network(images()).sum()), rel=1e-5)


def test_what_is_known_of_a_network_comes_back(tmp_path: Path) -> None:
    metrics: dict[str, Any] = {
        "nan": float("nan"),
        "inf": float("-inf"),
        "none": None,
        "list": [1, 2.5, "x", True, {}],
        "è": {"a": {}},
    }
    training = {"tensor": torch.arange(6).reshape(2, 3).T, "empty": torch.zeros(0, 3), 3: torch.tensor(1.5)}
    save(tmp_path / "deep" / "net.pt", small(), metrics=metrics, config={"a": (1, 2)}, training=training)
    found = checkpoint.read(tmp_path / "deep" / "net.pt")
    assert repr(found.metrics) == repr(metrics)
    assert found.config == {"a": [1, 2]}
    assert all(torch.equal(found.training[key], value) for key, value in training.items())


def test_numbers_of_numpy_become_plain(tmp_path: Path) -> None:
    save(
        tmp_path / "net.pt",
        small(),
        metrics={"a": np.float64(0.1), "b": np.int64(3), np.str_("c"): np.bool_(True)},
    )
    found = checkpoint.read(tmp_path / "net.pt").metrics
    assert found == {"a": 0.1, "b": 3, "c": True}
    assert [type(value) for value in found.values()] == [float, int, bool]


def test_what_a_network_is_made_of_is_plain_too(tmp_path: Path) -> None:
    network = MyNet()
    network.architecture = {"factory": "nets:net", "args": {"depth": np.int64(3), "size": (1, 2)}}
    save(tmp_path / "net.pt", network)
    found = checkpoint.read(tmp_path / "net.pt").architecture
    assert found == {"factory": "nets:net", "args": {"depth": 3, "size": [1, 2]}}
    network.architecture = {"factory": "nets:net", "args": {"since": date(2026, 1, 31)}}
    with pytest.raises(SlimnetError, match=r"architecture\['args'\]\['since'\] is a date"):
        save(tmp_path / "net.pt", network)


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, np.zeros(3), object()])
def test_values_that_need_pickle_are_refused_by_name(tmp_path: Path, value: object) -> None:
    with pytest.raises(SlimnetError, match=rf"metrics\['a'\]\[0\] is a {type(value).__name__}"):
        save(tmp_path / "net.pt", small(), metrics={"a": [value]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_survive(tmp_path: Path, dtype: torch.dtype) -> None:
    network = small().to(dtype)
    save(tmp_path / "net.pt", network)
    state = checkpoint.read(tmp_path / "net.pt").state
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


# Files that are refused


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_own_class_loads_in_the_precision_of_the_file(tmp_path: Path, dtype: torch.dtype) -> None:
    network = cut(MyNet().eval()).to(dtype)
    save(tmp_path / "own.pt", network)
    again = load(tmp_path / "own.pt", model=MyNet())
    assert {tensor.dtype for tensor in again.parameters()} == {dtype}
    x = images().to(dtype)
    with torch.no_grad():
        assert torch.equal(again(x), network(x))


def test_frozen_parameters_of_the_instance_stay_frozen(tmp_path: Path) -> None:
    save(tmp_path / "own.pt", cut(MyNet().eval()))
    again = load(tmp_path / "own.pt", model=MyNet().requires_grad_(False))
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_a_compiled_network_is_saved_as_what_it_was_made_of(tmp_path: Path) -> None:
    network = small()
    save(tmp_path / "compiled.pt", torch.compile(network))
    assert same(load(tmp_path / "compiled.pt"), network)


def test_layers_with_computed_weights_come_back(tmp_path: Path) -> None:
    def fresh() -> nn.Module:
        last = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 4, 3))
        convs = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        return nn.Sequential(*convs, last, nn.BatchNorm2d(4), nn.Flatten())

    network = cut(fresh().eval(), ratio=0.3)
    assert network[0].weight.shape[0] < 8
    save(tmp_path / "own.pt", network)
    again = load(tmp_path / "own.pt", model=fresh())
    assert same(again, network)
    x = images()
    with torch.no_grad():
        assert torch.allclose(slimnet.fold(again)(x), again(x), atol=1e-5)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SlimnetError, match=r"none\.pt: no such file"):
        load(tmp_path / "none.pt")


def test_truncated_at_any_length(file: Path) -> None:
    whole = file.read_bytes()
    for length in [*range(4, len(whole), len(whole) // 40), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(SlimnetError, match="is truncated"):
            load(file)


def test_one_changed_byte_anywhere_is_refused_or_without_effect(file: Path) -> None:
    whole, state = file.read_bytes(), checkpoint.read(file).state
    messages: list[str] = []
    positions = range(0, len(whole), 97)
    for position in positions:
        changed = bytearray(whole)
        changed[position] ^= 0x41
        file.write_bytes(changed)
        try:
            found = checkpoint.read(file).state
        except SlimnetError as error:
            messages.append(str(error))
        else:  # padding and dates of the zip format
            assert all(torch.equal(value, found[name]) for name, value in state.items())
    assert len(messages) > len(positions) / 2
    assert all(any(word in m for word in ("damaged", "truncated", "not a slimnet file")) for m in messages)


def rewritten(file: Path, **changes: Any) -> None:
    content = torch.load(file, weights_only=True)
    torch.save({**content, **changes}, file)


def test_changed_content_is_told_by_the_checksum(file: Path) -> None:
    rewritten(file, metrics={"accuracy": 0.99})
    with pytest.raises(SlimnetError, match="has been changed: its checksum does not match"):
        load(file)


@pytest.mark.parametrize(
    "content", [{"weight": torch.zeros(3)}, [1, 2], {"format": "slimnet", "version": "one"}]
)
def test_foreign_torch_file(file: Path, content: object) -> None:
    torch.save(content, file)
    with pytest.raises(SlimnetError, match="was not written by slimnet"):
        load(file)


@pytest.mark.parametrize("content", [b"", b"hello, world", pickle.dumps({"a": 1})])
def test_foreign_file(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(SlimnetError, match="is not a slimnet file"):
        load(file)


def test_newer_version(file: Path) -> None:
    rewritten(file, version=checkpoint.VERSION + 1)
    with pytest.raises(SlimnetError, match=r"format version 2, this slimnet reads up to 1; upgrade"):
        load(file)


def test_tensors_without_their_description(tmp_path: Path) -> None:
    texts = {"made_by": json.dumps("slimnet"), "architecture": "null", "config": "{}"}
    save_file({"weight": torch.zeros(3)}, tmp_path / "net.safetensors", texts)
    with pytest.raises(checkpoint.DamagedFileError, match="is damaged: it lacks dropped, metrics"):
        load(tmp_path / "net.safetensors")


class Bomb:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.flag),)


def test_pickled_objects_are_refused_without_running(file: Path, tmp_path: Path) -> None:
    rewritten(file, metrics=Bomb(tmp_path / "boom"))
    with pytest.raises(SlimnetError, match="holds pickled objects, which could run code"):
        load(file)
    assert not (tmp_path / "boom").exists()


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(SlimnetError, match="no such file"):
        load(tmp_path)
    with pytest.raises(SlimnetError, match="cannot write"):
        save(tmp_path, small())


# Networks that do not fit


def test_own_class_needs_an_instance(tmp_path: Path) -> None:
    save(tmp_path / "net.pt", MyNet())
    with pytest.raises(
        SlimnetError, match=r"net\.pt holds a network of your own; load it with model=YourNetwork"
    ):
        load(tmp_path / "net.pt")


def test_unknown_architecture_asks_for_an_upgrade(tmp_path: Path) -> None:
    network = MyNet()
    network.architecture = {"name": "densenet", "depth": 40}
    save(tmp_path / "net.pt", network)
    with pytest.raises(
        SlimnetError, match=r"net\.pt: the network densenet is one that this slimnet does not know"
    ):
        load(tmp_path / "net.pt")


def test_other_networks_are_refused_by_the_first_layer(tmp_path: Path) -> None:
    save(tmp_path / "net.pt", MyNet())
    other = MyNet()
    other.after = nn.Conv2d(8, 6, 5, bias=False)
    with pytest.raises(SlimnetError, match=r"weight of after it has a tensor of shape \(6, 8, 7, 7\)"):
        load(tmp_path / "net.pt", model=other)
    other = MyNet()
    other.stem.append(nn.BatchNorm2d(8))
    with pytest.raises(SlimnetError, match=r"for the weight of stem\.3 it has nothing"):
        load(tmp_path / "net.pt", model=other)
    other = MyNet()
    del other.fc[3]
    with pytest.raises(SlimnetError, match=r"does not fit MyNet: .*fc\.3\.weight"):
        load(tmp_path / "net.pt", model=other)


# Writing


def test_interrupted_save_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def half(content: object, target: Any) -> None:
        target.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        save(file, small())
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_full_disk_is_reported(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(content: object, target: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SlimnetError, match=r"cannot write .*No space left on device.*; make room"):
        save(file, small())


def test_file_can_be_read_by_others(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o644
