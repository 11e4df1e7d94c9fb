from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from slimnet import ChannelGraph, PruningPlan, SlimnetError, count_params, mask, models, plan, prune, trace
from slimnet.models import ResNet

EXACT = 1e-10
Scatter = Callable[..., nn.Module]


def tensors(output: Any) -> list[Tensor]:
    if isinstance(output, dict):
        output = list(output.values())
    return [output] if isinstance(output, Tensor) else [t for item in output for t in tensors(item)]


def deviation(ours: nn.Module, theirs: nn.Module, x: Tensor) -> float:
    """The largest difference between the outputs of two networks in eval mode."""
    with torch.no_grad():
        pairs = list(zip(tensors(ours.eval()(x)), tensors(theirs.eval()(x)), strict=True))
    assert pairs
    assert all(a.shape == b.shape and a.isfinite().all() for a, b in pairs)
    return max(float((a - b).abs().max()) for a, b in pairs)


def check(network: nn.Module, x: Tensor, graph: ChannelGraph | None = None, **options: Any) -> float:
    """Masked and physical networks agree, with and without absorption; returns the larger deviation."""
    chosen = plan(graph or trace(network, x[:1]), **options)
    found = 0.0
    for absorb in (False, True):
        masked, physical = mask(network, chosen, absorb=absorb), prune(network, chosen, absorb=absorb)
        found = max(found, deviation(masked, physical, x))
    assert found <= EXACT
    return found


# A trained network of slimnet


@pytest.fixture(scope="module")
def trained() -> ResNet:
    torch.manual_seed(0)
    network = models.resnet([2, 2, 1], 8, stem="cifar-maxpool")
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    for _ in range(8):
        x, y = torch.randn(16, 3, 16, 16), torch.randint(10, (16,))
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.normal_(0, 1, generator=generator)
                norm.bias.normal_(0, 1, generator=generator)
    return network.double().eval()


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.9, 0.99])
def test_trained_network_masked_equals_physical(trained: ResNet, ratio: float, streams: bool) -> None:
    check(trained, torch.randn(4, 3, 16, 16, dtype=torch.float64), ratio=ratio, streams=streams)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_random_channels_masked_equals_physical(trained: ResNet, seed: int, streams: bool) -> None:
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    chosen = plan(trace(trained, x[:1]), ratio=0.5, streams=streams)
    shuffled = chosen.shuffled(seed)
    for absorb in (False, True):
        physical = prune(trained, shuffled, absorb=absorb)
        assert deviation(mask(trained, shuffled, absorb=absorb), physical, x) <= EXACT
        assert physical.widths == prune(trained, chosen, absorb=absorb).widths
    assert deviation(prune(trained, shuffled), prune(trained, chosen), x) > 1e-3


def test_minimum_widths_are_reached_and_exact(trained: ResNet) -> None:
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    for least in (1, 3):
        chosen = plan(trace(trained, x), ratio=0.999, min_channels=least, streams=True)
        smaller = prune(trained, chosen)
        assert set(smaller.widths) == {least}
        assert deviation(mask(trained, chosen, absorb=True), smaller, x) <= EXACT


def test_pruning_changes_no_shape_but_channels_and_not_the_original(trained: ResNet) -> None:
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    chosen = plan(trace(trained, torch.zeros(1, 3, 16, 16, dtype=torch.float64)), ratio=0.5)
    smaller = prune(trained, chosen)
    assert count_params(smaller) < count_params(trained)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    again = models.resnet([2, 2, 1], widths=smaller.widths, stem="cifar-maxpool").double()
    again.load_state_dict(smaller.state_dict())
    assert deviation(again, smaller, torch.randn(2, 3, 16, 16, dtype=torch.float64)) == 0


def test_weights_are_copied_by_the_kept_indices(trained: ResNet) -> None:
    chosen = plan(trace(trained, torch.zeros(1, 3, 16, 16, dtype=torch.float64)), ratio=0.5)
    cuts = chosen.cuts()
    smaller = prune(trained, chosen, absorb=False)
    block, pruned = trained.get_submodule("stages.1.0"), smaller.get_submodule("stages.1.0")
    inner = cuts["stages.1.0.bn1"].outputs
    outer = cuts["stages.1.0.bn2"].outputs
    assert torch.equal(pruned.conv2.weight, block.conv2.weight[outer][:, inner])
    for part in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(pruned.bn2, part), getattr(block.bn2, part)[outer])
    assert pruned.conv2.weight.is_contiguous() == block.conv2.weight.is_contiguous()


def test_pruned_network_trains_and_is_pruned_again(trained: ResNet) -> None:
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    once = prune(trained, plan(trace(trained, x), ratio=0.5, streams=True))
    once.train()(x).sum().backward()
    assert all(parameter.grad is not None for parameter in once.parameters())
    twice = plan(trace(once, x), ratio=0.5)
    assert deviation(mask(once, twice, absorb=True), prune(once, twice), x) <= EXACT


def test_flags_and_memory_layout_survive(trained: ResNet) -> None:
    network = models.resnet([1], 8).to(memory_format=torch.channels_last)
    network.conv1.weight.requires_grad_(False)
    chosen = plan(trace(network, torch.zeros(1, 3, 8, 8)), ratio=0.5, streams=True)
    smaller = prune(network, chosen)
    assert not smaller.conv1.weight.requires_grad
    assert smaller.stages[0][0].conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert smaller.training


def test_plan_of_another_network_names_the_layer(trained: ResNet) -> None:
    chosen = plan(trace(trained, torch.zeros(1, 3, 16, 16, dtype=torch.float64)), ratio=0.5)
    with pytest.raises(
        SlimnetError, match=r"another network: stages\.0\.1\.conv1 has|a layer stages\.0\.1\.conv1"
    ):
        prune(models.resnet([1, 2, 1], 8, stem="cifar-maxpool"), chosen)
    wider = models.resnet([2, 2, 1], 12, stem="cifar-maxpool")
    with pytest.raises(
        SlimnetError, match=r"conv1 has \(3, 12\) channels in and out here, \(3, 8\) in the plan"
    ):
        mask(wider, chosen)


# Networks of torchvision

QUICK = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x1_0", "regnet_y_400mf", "efficientnet_b0")
ALL = (
    *QUICK, "resnet50", "resnext50_32x4d", "vgg16_bn", "densenet121", "mobilenet_v2", "mnasnet1_0",
    "googlenet", "inception_v3", "fcn_resnet50",
)  # fmt: skip


def torchvision_network(name: str) -> nn.Module:
    if name == "fcn_resnet50":
        return torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network: nn.Module = getattr(torchvision.models, name)(weights=None, **options)
    if name == "vgg16_bn":  # as it is, 120 of its 138 million weights are in one linear layer
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.classifier = nn.Sequential(nn.Linear(512, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, 10))
    return network


@pytest.mark.parametrize("name", QUICK)
def test_torchvision_masked_equals_physical(name: str, scatter: Scatter) -> None:
    network = scatter(torchvision_network(name))
    check(network, torch.randn(2, 3, 64, 64, dtype=torch.float64), ratio=0.5, streams=True)


@pytest.mark.slow  # fourteen networks of up to 33 million parameters
@pytest.mark.parametrize("name", ALL)
def test_torchvision_at_every_ratio(name: str, scatter: Scatter) -> None:
    network = scatter(torchvision_network(name))
    size = 96 if name == "inception_v3" else 64
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    graph = trace(network, x[:1])
    # Quick ones at each ratio in each way, but for what the test above has checked; others at one in each.
    ratios = {False: (0.5, 0.9), True: (0.9,)} if name in QUICK else {False: (0.9,), True: (0.5,)}
    for streams, chosen in ratios.items():
        for ratio in chosen:
            check(network, x, graph, ratio=ratio, streams=streams)


@pytest.mark.parametrize("name", ["convnext_tiny", "squeezenet1_0"])
def test_networks_without_batchnorm_say_so(name: str) -> None:
    graph = trace(torchvision_network(name), torch.zeros(1, 3, 64, 64))
    with pytest.raises(SlimnetError, match=r"no channel of this network can be pruned: .*(norm|BatchNorm)"):
        plan(graph, ratio=0.5)


# Structures that torchvision does not have


class Shapes(nn.Module):
    """Flatten of a map, 1-d and transposed convs, norms without γ or statistics, a gate, a dict output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 6, 2, stride=2), nn.BatchNorm2d(6), nn.ReLU())
        self.plain = nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6, affine=False), nn.BatchNorm2d(6))
        self.free = nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6, track_running_stats=False), nn.ReLU())
        self.gate = nn.Sequential(nn.Conv2d(6, 1, 7, padding=3), nn.BatchNorm2d(1), nn.Sigmoid())
        self.line = nn.Sequential(nn.Conv1d(6, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ReLU())
        self.twos = nn.Sequential(nn.Conv1d(6, 8, 3, padding=1, groups=2), nn.BatchNorm1d(8), nn.GELU())
        self.hidden = nn.Sequential(nn.Linear(8 * 24 * 24 // 9, 12), nn.BatchNorm1d(12), nn.ReLU())
        self.classes = nn.Linear(12, 5)
        self.side = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        x = self.up(self.stem(x))
        x = self.free(self.plain(x))
        x = x * self.gate(x)
        n, c = x.shape[:2]
        y = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3)
        y = self.twos(self.line(y.view(n, c, -1)))
        y = torch.flatten(y, 1)
        return {"classes": self.classes(self.hidden(y)), "more": [self.side(x)]}


@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.95])
def test_shapes_masked_equals_physical(ratio: float, scatter: Scatter) -> None:
    x = torch.randn(3, 3, 13, 13, dtype=torch.float64)
    network = Shapes()
    network.hidden[0] = nn.Linear(8 * 64, 12)
    scatter(network)
    chosen = plan(trace(network, x), ratio=ratio, min_channels=1)
    layers = {name.split(".")[0] for name in chosen.cuts()}
    assert {"stem", "up", "plain", "free", "line", "twos", "hidden", "classes"} <= layers or ratio < 0.5
    check(network, x, ratio=ratio, min_channels=1)
    smaller = prune(network, chosen)
    assert smaller.plain[1].num_features == smaller.plain[0].out_channels
    twice = plan(trace(smaller, x), ratio=0.3, min_channels=1)
    assert deviation(mask(smaller, twice), prune(smaller, twice, absorb=False), x) <= EXACT


def test_last_conv_group_is_cut_further(scatter: Scatter) -> None:
    network = scatter(
        nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, groups=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 2, 1),
        )
    )  # fmt: skip
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    once = prune(network, plan(trace(network, x), ratio=0.6, min_channels=1))
    assert (once[3].groups, once[3].in_channels, once[3].out_channels) == (1, 4, 8)
    chosen = plan(trace(once, x), ratio=0.5)
    twice = prune(once, chosen)
    assert twice[3].out_channels < 8
    assert deviation(mask(once, chosen, absorb=True), twice, x) <= EXACT


def test_silencing_the_producers_alone_is_enough(scatter: Scatter) -> None:
    """A check of the graph itself: dead channels (γ = β = 0 before a ReLU) go without a trace."""
    network = scatter(torchvision.models.resnet18(weights=None))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    chosen = plan(trace(network, x), ratio=0.5, streams=True)
    with torch.no_grad():
        for name, cut in chosen.cuts().items():
            norm = network.get_submodule(name)
            if isinstance(norm, nn.BatchNorm2d):
                gone = torch.ones(norm.num_features, dtype=torch.bool)
                gone[torch.from_numpy(cut.outputs)] = False
                norm.weight[gone] = 0
                norm.bias[gone] = 0
    assert deviation(network, prune(network, chosen, absorb=False), x) <= EXACT


def test_plans_are_of_the_public_type(trained: ResNet) -> None:
    chosen = plan(trace(trained, torch.zeros(1, 3, 16, 16, dtype=torch.float64)), ratio=0.5)
    assert isinstance(chosen, PruningPlan)
    assert chosen.ratio == pytest.approx(0.5, abs=0.01)


def test_layers_that_only_run_in_training_still_fit(scatter: Scatter) -> None:
    network = scatter(torchvision.models.googlenet(weights=None, init_weights=False, num_classes=10))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    graph = trace(network, x)
    reason = "aux1.conv.conv, which only runs in training, reads it"
    assert graph["inception4a.branch1.conv"].reason == reason
    assert graph["inception4a.branch2.0.conv"].prunable
    smaller = prune(network, plan(graph, ratio=0.5))
    assert [t.shape for t in smaller.train()(x)] == [(2, 10)] * 3
