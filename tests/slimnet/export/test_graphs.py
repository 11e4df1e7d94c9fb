"""Exported networks compute what they did, for any batch size; what fails leaves no file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import slimnet
from slimnet.export import aside, onnx


class Mixed(nn.Module):
    """A skip, a concatenation and a depthwise conv; the maps come out beside the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.expand, self.expanded = nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.depthwise, self.filtered = (
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
        )
        self.project, self.projected = nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.branch, self.branched = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.classify = nn.Linear(14, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.norm(self.stem(x)).relu()
        inner = self.filtered(self.depthwise(self.expanded(self.expand(x)).relu())).relu()
        x = x + self.projected(self.project(inner))
        x = torch.cat([x, self.branched(self.branch(x)).relu()], 1)
        return {"scores": self.classify(x.mean((2, 3))), "maps": x}


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


@pytest.fixture(scope="module")
def pruned() -> nn.Module:
    torch.manual_seed(0)
    model = Mixed()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.1, 1.0)
            nn.init.normal_(module.running_mean, std=0.1)
    graph = slimnet.trace(model, torch.zeros(1, 3, 8, 8))
    smaller = slimnet.prune(model, slimnet.plan(graph, ratio=0.5))
    assert slimnet.count_params(smaller) < slimnet.count_params(model)
    assert smaller.depthwise.groups < 16
    return smaller.train()


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_pruned_network_runs_in_onnxruntime(pruned: nn.Module, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "new" / "pruned.onnx"
    deviation = slimnet.export_onnx(pruned, torch.zeros(1, 3, 8, 8), path)
    assert deviation < 1e-4
    assert files_in(path.parent) == ["pruned.onnx"]
    assert all(module.training for module in pruned.modules())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = torch.randn(5, 3, 8, 8)
    scores, maps = session.run(["output0", "output1"], {"input": x.numpy()})
    with torch.no_grad():
        expected = pruned.eval()(x)
    pruned.train()
    np.testing.assert_allclose(scores, expected["scores"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(maps, expected["maps"], rtol=1e-4, atol=1e-4)


def test_a_pruned_network_is_a_program(pruned: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "pruned.pt2"
    slimnet.export_program(pruned, torch.zeros(1, 3, 8, 8), path)
    assert files_in(tmp_path) == ["pruned.pt2"]
    assert all(module.training for module in pruned.modules())
    x = torch.randn(5, 3, 8, 8)
    found = torch.export.load(path).module()(x)
    with torch.no_grad():
        expected = pruned.eval()(x)
    pruned.train()
    torch.testing.assert_close(found, expected)


def test_what_cannot_be_exported_is_said_in_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    for run, name in ((slimnet.export_onnx, "x.onnx"), (slimnet.export_program, "x.pt2")):
        with pytest.raises(slimnet.SlimnetError, match="Branching cannot be exported") as caught:
            run(Branching(), torch.zeros(1, 4), tmp_path / name)
        assert "\n" not in str(caught.value)
    assert files_in(tmp_path) == []
    assert capfd.readouterr().out == ""


def test_results_that_deviate_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx, "TOLERANCE", -1.0)
    with pytest.raises(slimnet.SlimnetError, match="onnxruntime deviates"):
        slimnet.export_onnx(nn.Linear(4, 2), torch.zeros(1, 4), tmp_path / "x.onnx")
    assert files_in(tmp_path) == []


def test_a_missing_package_is_named_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "find_spec", lambda name: None)
    with pytest.raises(slimnet.SlimnetError, match=r"needs onnx; .*pip install onnx"):
        slimnet.export_onnx(nn.Linear(4, 2), torch.zeros(1, 4), tmp_path / "x.onnx")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(slimnet.SlimnetError, match="cannot write"):
        slimnet.export_program(nn.Linear(4, 2), torch.zeros(1, 4), tmp_path / "file" / "x.pt2")
