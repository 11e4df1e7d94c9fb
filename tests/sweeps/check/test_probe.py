"""What is found out about real data and a real network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from slimnet.errors import SlimnetError
from sweeps.check import Findings, examine, warnings_about
from sweeps.config import load_config


def look(*overrides: str) -> Findings:
    return examine(load_config("smoke", overrides), None)


@pytest.fixture(autouse=True)
def same_threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_default_of_the_smoke_study() -> None:
    found = look("workers=2")
    data, network, times = found.data, found.network, found.times
    assert data.image_shape == (1, 7, 7)
    assert (sum(data.train), sum(data.validation), sum(data.test)) == (4000, 1000, 2000)
    assert len(data.classes) == len(data.train) == 10
    assert (data.looked_at, data.constant) == (2000, 0)
    assert (network.name, network.params, network.outputs) == ("resnet", 8066, 10)
    assert network.scaling_factors == 48
    reasons = {group.name: group.whole_because for group in network.groups}
    assert reasons["stages.0.0.conv1"] == ""
    assert reasons["conv1"] == "its channels meet in a residual add, and prune.streams is false"
    assert reasons["fc"] == "it is the network's output"
    assert [cut.at for cut in network.cuts] == ["prune.ratio 0.3", "prune.ratio 0.9"]
    less, more = (cut.params for cut in network.cuts)
    assert network.params > (less or 0) > (more or 0) > 0
    assert (more or 0) < times.pruned_params < (less or 0)
    assert min(times.step, times.pruned_step, times.image, times.start, times.prune) > 0
    assert found.workers == 2
    assert warnings_about(load_config("smoke"), found) == []


def test_streams_and_scores_by_weight_leave_fewer_groups_whole() -> None:
    space = ("search.space={prune.ratio: [0.5]}", "search.trials=1")
    found = look("prune.streams=true", "prune.score=taylor", "sparse.lambda=0.1", *space)
    whole = [group.name for group in found.network.groups if group.whole_because]
    assert whole == ["fc"]
    assert [cut.at for cut in found.network.cuts] == ["prune.ratio 0.5"]


def test_what_is_searched_is_looked_at_in_the_middle() -> None:
    space = "search.space={model.width: [4, 8, 16], prune.params: {log: [500, 50000]}}"
    found = look(space, "sparse.target=0.5")
    assert found.network.params == 8066
    assert [cut.at for cut in found.network.cuts] == ["prune.params 500", "prune.params 50,000"]
    assert found.network.cuts[1].params == 8066
    assert "prune.params 50,000 removes nothing" in warnings_about(load_config("smoke", [space]), found)[-1]


def test_a_point_at_which_pruning_is_refused_is_a_finding_and_all_points_are_a_mistake() -> None:
    space = "search.space={sparse.lambda: [0.1, 0.2], prune.params: [10, 5000]}"
    found = look(space)
    assert found.network.cuts[0].params is None
    assert "trials at prune.params 10 would fail" in warnings_about(load_config("smoke", [space]), found)[0]
    with pytest.raises(SlimnetError, match=r"no trial could prune this network: .* named nolayer"):
        look("prune.keep=[nolayer]")


def test_a_network_without_scaling_factors_is_pruned_by_its_weights_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "without_norms.py").write_text(
        "from torch import nn\n"
        "def make(num_classes, in_channels):\n"
        "    conv, pool = nn.Conv2d(in_channels, 16, 3), nn.AdaptiveAvgPool2d(1)\n"
        "    return nn.Sequential(conv, nn.ReLU(), pool, nn.Flatten(), nn.Linear(16, num_classes))\n"
    )
    model = f"model={{factory: 'without_norms:make', path: {tmp_path}}}"
    space = ("search.space={prune.ratio: [0.5]}", "search.trials=1")
    found = look(model, "prune.score=l2", *space)
    assert found.network.scaling_factors == 0
    assert [group.name for group in found.network.groups if not group.whole_because] == ["0"]
    with pytest.raises(SlimnetError, match="no BatchNorm whose scaling factors could be trained sparse"):
        look(model, "prune.score=l2", *space, "sparse.target=0.5")
    with pytest.raises(SlimnetError, match=r"no trial could prune this network: .* no BatchNorm follows"):
        look(model, *space)


def test_a_network_of_streams_alone_is_told_to_turn_them_on(tmp_path: Path) -> None:
    (tmp_path / "only_streams.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes, in_channels):\n"
        "        super().__init__()\n"
        "        self.one, self.two = (nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.BatchNorm2d(8)) "
        "for _ in range(2))\n"
        "        self.head = nn.Linear(8, num_classes)\n"
        "    def forward(self, x):\n"
        "        return self.head((self.one(x) + self.two(x)).relu().mean((2, 3)))\n"
    )
    model = f"model={{factory: 'only_streams:Net', path: {tmp_path}}}"
    space = ("search.space={prune.ratio: [0.5]}", "search.trials=1", "sparse.lambda=0.001")
    with pytest.raises(
        SlimnetError, match=r"factors of this network are of residual streams, .* turn on streams"
    ):
        look(model, *space)
    assert look(model, *space, "prune.streams=true").network.scaling_factors == 16


def test_constant_images_and_a_class_that_is_not_tested(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    images[::3] = 7
    labels = np.arange(60, dtype=np.uint8) % 2
    path = tmp_path / "own.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[:9], y_test=np.zeros(9, np.uint8))
    overrides = [f"data={{name: npz, path: {path}}}", "model.blocks=[1]"]
    found = look(*overrides)
    assert found.data.constant == pytest.approx(16, abs=4)  # some are held out
    assert found.data.test == (9, 0)
    said = " ".join(warnings_about(load_config("smoke", overrides), found))
    for part in (
        "are of one colour",
        "the test split has no image of class 1",
        "batch_size is 128, more than",
    ):
        assert part in said
    assert list(tmp_path.iterdir()) == [path]
