from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimnet import ChannelGraph, SlimnetError, models, plan, prune, trace


class Net(nn.Module):
    """Layers by name, and a forward given as a function of them and the input."""

    def __init__(self, forward: Callable[..., object], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> object:
        return self.run(self, x)


def conv(inputs: int, outputs: int, kernel: int = 1, **options: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, **options), nn.BatchNorm2d(outputs), nn.ReLU())


def traced(
    forward: Callable[..., object], *, size: int = 4, **layers: nn.Module | nn.Parameter
) -> ChannelGraph:
    return trace(Net(forward, **layers), torch.randn(1, 3, size, size))


def tied(graph: ChannelGraph, *layers: str) -> bool:
    return set(layers) <= set(graph[layers[0]].producers)


# The seed's network


@pytest.fixture(scope="module")
def seed_graph() -> ChannelGraph:
    return trace(models.resnet50(), torch.zeros(1, 3, 32, 32))


def test_seed_network_has_its_prunable_channels(seed_graph: ChannelGraph) -> None:
    prunable = [group for group in seed_graph.groups if group.prunable]
    assert len(prunable) == 32
    assert sum(group.size * group.unit_channels for group in prunable) == 7_552
    assert {group.name.rpartition(".")[2] for group in prunable} == {"conv1", "conv2"}
    assert all(group.scales == (group.name.replace("conv", "bn"),) for group in prunable)


def test_seed_network_couples_stem_shortcuts_and_bn3(seed_graph: ChannelGraph) -> None:
    coupled = [group for group in seed_graph.groups if group.coupled]
    assert [group.size for group in coupled] == [64, 256, 512, 1024, 2048]
    assert coupled[0].producers == ("conv1",)
    assert coupled[1].producers == (
        "stages.0.0.conv3", "stages.0.0.shortcut", "stages.0.1.conv3", "stages.0.2.conv3",
    )  # fmt: skip
    assert coupled[1].scales == ("stages.0.0.bn3", "stages.0.1.bn3", "stages.0.2.bn3")
    assert coupled[1].readers[-2:] == ("stages.1.0.conv1", "stages.1.0.shortcut")
    assert {group.reason for group in coupled} == {"its channels meet in a residual add"}


def test_seed_network_keeps_its_classes(seed_graph: ChannelGraph) -> None:
    assert seed_graph["fc"].reason == "it is the network's output"
    assert seed_graph["fc"].size == 10


def test_groups_partition_the_produced_channels(seed_graph: ChannelGraph) -> None:
    names = [group.name for group in seed_graph.groups]
    assert len(set(names)) == len(names)
    made = sum(group.size * group.unit_channels for group in seed_graph.groups)
    convs = [m for m in seed_graph.model.modules() if isinstance(m, nn.Conv2d)]
    assert made == sum(m.out_channels for m in convs) + 10


def test_unknown_layer_has_no_group(seed_graph: ChannelGraph) -> None:
    with pytest.raises(KeyError):
        seed_graph["bn1"]


def test_tracing_leaves_model_and_input_as_they_were() -> None:
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    network[3].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(2, 3, 4, 4)
    kept = x.clone()
    trace(network, x)
    assert torch.equal(x, kept)
    assert network.training
    assert not network[3].training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# What is followed


def test_depthwise_conv_goes_with_its_input() -> None:
    graph = traced(
        lambda m, x: m.c(m.b(m.a(x))),
        a=conv(3, 8),
        b=conv(8, 8, 3, padding=1, groups=8),
        c=nn.Conv2d(8, 2, 1),
    )
    group = graph["a.0"]
    assert group.producers == ("a.0", "b.0")
    assert group.scales == ("a.1", "b.1")
    assert group.readers == ("b.0", "c")
    assert (group.size, group.unit_channels) == (8, 2)
    assert group.prunable


def test_grouped_conv_goes_by_whole_groups() -> None:
    graph = traced(
        lambda m, x: m.c(m.b(m.a(x))), a=conv(3, 8), b=conv(8, 12, groups=4), c=nn.Conv2d(12, 2, 1)
    )
    assert (graph["a.0"].size, graph["a.0"].unit_channels) == (4, 5)


def test_concatenation_keeps_its_parts_apart() -> None:
    graph = traced(
        lambda m, x: m.c(m.n(torch.cat([m.a(x), m.b(x)], dim=-3))),
        a=conv(3, 4), b=conv(3, 6), n=nn.BatchNorm2d(10), c=nn.Conv2d(10, 2, 1),
    )  # fmt: skip
    assert graph["a.0"].scales == ("a.1", "n")
    assert graph["b.0"].scales == ("b.1", "n")
    assert (graph["a.0"].size, graph["b.0"].size) == (4, 6)
    assert graph["a.0"].prunable
    assert graph["b.0"].prunable


def test_concatenation_along_another_dimension_ties() -> None:
    graph = traced(
        lambda m, x: m.c(torch.cat([m.a(x), m.b(x)], 3)), a=conv(3, 4), b=conv(3, 4), c=nn.Conv2d(4, 2, 1)
    )
    assert tied(graph, "a.0", "b.0")


def squeeze_and_excite(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x)
    b, c, _, _ = x.size()
    gate = m.up(m.down(m.pool(x).view(b, c))).view(b, c, 1, 1)
    return m.c(x * gate.expand_as(x))


def test_squeeze_and_excitation_ties_its_gate() -> None:
    graph = traced(
        squeeze_and_excite, a=conv(3, 8), pool=nn.AdaptiveAvgPool2d(1), c=nn.Conv2d(8, 2, 1),
        down=nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.ReLU()),
        up=nn.Sequential(nn.Linear(4, 8), nn.Sigmoid()),
    )  # fmt: skip
    assert tied(graph, "a.0", "up.0")
    assert graph["a.0"].prunable
    assert graph["down.0"].prunable


def shuffle(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x)
    n, c, h, w = x.shape
    x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
    left, right = x.chunk(2, dim=1)
    return m.c(torch.cat([left, m.b(right)], 1))


def test_shuffle_and_chunk_keep_the_same_positions() -> None:
    graph = traced(shuffle, a=conv(3, 8), b=conv(4, 4), c=nn.Conv2d(8, 2, 1))
    assert graph["a.0"].prunable
    # Rows of the shuffle and halves of the chunk: (0, 4, 2, 6) and (1, 5, 3, 7) each go as one.
    assert (graph["a.0"].size, graph["a.0"].unit_channels) == (2, 4)


def test_channel_shuffle_module() -> None:
    graph = traced(lambda m, x: m.c(m.s(m.a(x))), a=conv(3, 6), s=nn.ChannelShuffle(3), c=nn.Conv2d(6, 2, 1))
    assert (graph["a.0"].size, graph["a.0"].unit_channels) == (2, 3)


def test_flatten_of_a_map_gives_a_reader_several_inputs_per_channel() -> None:
    graph = traced(lambda m, x: m.fc(torch.flatten(m.a(x), 1)), a=conv(3, 4), fc=nn.Linear(64, 2))
    assert graph["a.0"].prunable
    assert len(graph.layers["fc"].inputs) == 64
    assert sorted(set(graph.layers["fc"].inputs.tolist())) == sorted(graph["a.0"].units.tolist())


def test_one_channel_gate_spreads_over_channels_that_stay_prunable() -> None:
    def attend(m: nn.Module, x: Tensor) -> Tensor:
        x = m.a(x)
        return m.c(x * torch.sigmoid(m.gate(x)))

    graph = traced(attend, a=conv(3, 8), gate=conv(8, 1, 3, padding=1), c=nn.Conv2d(8, 2, 1))
    assert graph["a.0"].prunable
    assert "spreads it over other channels" in graph["gate.0"].reason


def test_operations_that_do_nothing_in_eval_mode_are_followed() -> None:
    torchvision = pytest.importorskip("torchvision")
    graph = traced(
        lambda m, x: m.c(m.drop(m.a(x))),
        a=conv(3, 4),
        drop=torchvision.ops.StochasticDepth(0.5, "row"),
        c=nn.Conv2d(4, 2, 1),
    )
    assert graph["a.0"].prunable


@pytest.mark.parametrize(
    "add",
    [
        lambda x, y: x + y,
        lambda x, y: torch.add(x, other=y),
        lambda x, y: x.add(other=y),
        lambda x, y: x.add_(y),
        lambda x, y: torch.sub(x, y, alpha=2),
    ],
)
def test_every_way_to_add_ties_and_couples(add: Callable[[Tensor, Tensor], Tensor]) -> None:
    graph = traced(lambda m, x: m.c(add(m.a(x), m.b(x))), a=conv(3, 4), b=conv(3, 4), c=nn.Conv2d(4, 2, 1))
    assert tied(graph, "a.0", "b.0")
    assert graph["a.0"].coupled


@pytest.mark.parametrize(
    "act",
    [
        F.relu_,
        torch.relu_,
        F.leaky_relu_,
        F.elu_,
        F.selu,
        F.celu,
        F.softsign,
        lambda x: torch.clamp_min(x, 0),
    ],
)
def test_functional_activations_are_followed(act: Callable[[Tensor], Tensor]) -> None:
    graph = traced(lambda m, x: m.c(act(m.a(x))), a=conv(3, 4), c=nn.Conv2d(4, 2, 1))
    assert graph["a.0"].prunable


def test_functional_pooling_in_three_dimensions_is_followed() -> None:
    def pool(m: nn.Module, x: Tensor) -> Tensor:
        x = F.avg_pool3d(F.max_pool3d(m.norm(m.a(x)), 2), 2)
        return m.c(F.adaptive_avg_pool3d(x, 1))

    network = Net(pool, a=nn.Conv3d(1, 4, 1), norm=nn.BatchNorm3d(4), c=nn.Conv3d(4, 2, 1))
    assert trace(network, torch.zeros(1, 1, 8, 8, 8))["a"].prunable


class PaddedConv(nn.Conv2d):
    """As many have one: padding that keeps the size."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)


class ScaledConv(nn.Conv2d):
    """It computes something of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("layer", [PaddedConv(3, 4, 3), ScaledConv(3, 4, 3, padding=1)])
def test_layers_of_a_users_own_class_are_followed(layer: nn.Conv2d) -> None:
    after = {"norm": nn.BatchNorm2d(4), "c": nn.Conv2d(4, 2, 1)}
    assert traced(lambda m, x: m.c(m.norm(m.a(x))), a=layer, **after)["a"].prunable


def test_what_a_forward_keeps_on_its_module_is_put_back() -> None:
    def remember(m: nn.Module, x: Tensor) -> Tensor:
        m.features = m.a(x)
        return m.c(m.features)

    network = Net(remember, a=conv(3, 4), c=nn.Conv2d(4, 2, 1))
    network.features = torch.ones(2)
    trace(network, torch.zeros(1, 3, 8, 8))
    assert torch.equal(network.features, torch.ones(2))


def test_lists_that_a_forward_adds_to_are_put_back() -> None:
    def collect(m: nn.Module, x: Tensor) -> Tensor:
        m.kept.append(m.a(x))
        return m.c(m.kept[-1])

    network = Net(collect, a=conv(3, 4), c=nn.Conv2d(4, 2, 1))
    network.kept = ["before"]
    assert trace(network, torch.zeros(1, 3, 8, 8))["a.0"].prunable
    assert network.kept == ["before"]


def test_a_compiled_model_is_traced_as_what_it_was_made_of() -> None:
    network = Net(lambda m, x: m.c(m.a(x)), a=conv(3, 4), c=nn.Conv2d(4, 2, 1))
    graph = trace(torch.compile(network), torch.zeros(1, 3, 8, 8))
    assert graph.model is network
    assert graph["a.0"].prunable


def residual_block(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x)
    return m.c(m.b2(m.b1(x)) + m.short(x))


def test_what_enters_a_residual_block_is_coupled() -> None:
    graph = traced(
        residual_block, a=conv(3, 4), b1=conv(4, 5), b2=conv(5, 6), short=conv(4, 6), c=nn.Conv2d(6, 2, 1),
    )  # fmt: skip
    assert graph["a.0"].coupled
    assert graph["b2.0"].coupled
    assert graph["b1.0"].prunable


def test_one_and_three_dimensional_and_transposed_convs() -> None:
    line = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(4, 2, 1)
    )
    assert trace(line, torch.randn(1, 2, 12))["0"].prunable
    cube = nn.Sequential(nn.Conv3d(1, 4, 2), nn.BatchNorm3d(4), nn.AvgPool3d(2), nn.ConvTranspose3d(4, 2, 2))
    assert trace(cube, torch.randn(1, 1, 6, 6, 6))["0"].prunable
    up = nn.Sequential(
        nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(4), nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 1)
    )
    assert trace(up, torch.randn(1, 3, 4, 4))["0"].prunable


def test_several_outputs_of_any_structure_are_kept() -> None:
    graph = traced(
        lambda m, x: {"main": m.b(m.a(x)), "more": [m.side(m.a2(x))]},
        a=conv(3, 4), a2=conv(3, 4), b=conv(4, 5), side=conv(4, 6),
    )  # fmt: skip
    assert graph["b.0"].reason == graph["side.0"].reason == "it is the network's output"
    assert graph["a.0"].prunable
    assert graph["a2.0"].prunable


# What is not followed stays whole, and says why


def alone(work: Callable[[nn.Module, Tensor], Tensor], **more: nn.Module | nn.Parameter) -> str:
    """The reason for which the 8 channels of a conv stay, given what happens to them afterwards."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        return work(m, m.a(x))

    layers = more if "fc" in more else {"c": nn.Conv2d(8, 2, 1), **more}
    return traced(forward, a=conv(3, 8), **layers)["a.0"].reason


def test_reshape_by_a_written_number_of_channels() -> None:
    assert "view" in alone(lambda m, x: m.c(x.view(-1, 8, 4, 4)))
    assert "fixes the number of channels" in alone(lambda m, x: m.c(torch.reshape(x, (x.size(0), 8, 4, 4))))
    assert "fixes the number of channels" in alone(lambda m, x: m.c(x.view(size=(1, 8, 4, 4))))


def test_reshape_by_the_channels_of_something_else() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        c = m.b(x).size(1)
        return m.c(m.a(x).view(1, c, -1, 4))

    graph = traced(forward, a=conv(3, 8), b=conv(3, 8), c=nn.Conv2d(8, 2, 1))
    assert "takes the number of channels from elsewhere" in graph["a.0"].reason
    assert "takes the number of channels from elsewhere" in graph["b.0"].reason


@pytest.mark.parametrize(
    "scale",
    [
        lambda x: x / x.size(1),
        lambda x: x * (1 / x.shape[1]),
        lambda x: x + x.shape[-3],
        lambda x: x / x.numel(),
    ],
)
def test_arithmetic_with_the_number_of_channels(scale: Callable[[Tensor], Tensor]) -> None:
    assert alone(lambda m, x: m.c(scale(x))) != ""


@pytest.mark.parametrize(
    "scale",
    [
        lambda m, x: x * m.c.in_channels**-0.5,
        lambda m, x: x * m.c.weight.shape[1] ** -0.5,
        lambda m, x: x * m.a[0].weight.size(0) ** -0.5,
        lambda m, x: x * torch.arange(x.shape[1]).sum(),
        lambda m, x: x * torch.arange(100.0)[x.shape[1]],
        lambda m, x: x * torch.arange(100.0)[: x.shape[1]].sum(),
        lambda m, x: x * torch.tensor(x.shape).sum(),
    ],
)
def test_numbers_that_layers_and_tensors_keep_of_their_channels(
    scale: Callable[[Any, Tensor], Tensor],
) -> None:
    assert "computes with" in alone(lambda m, x: m.c(scale(m, x)))


def test_a_branch_on_sizes_that_differ_keeps_both() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.a(x)
        y = m.b(x)
        return m.c((m.short(x) if y.shape != x.shape else x) + y)

    graph = traced(forward, a=conv(3, 8), b=conv(8, 16), short=nn.Conv2d(8, 16, 1), c=nn.Conv2d(16, 2, 1))
    assert "computes with the number of channels" in graph["a.0"].reason
    assert "computes with the number of channels" in graph["b.0"].reason


def test_a_branch_on_sizes_that_are_the_same_keeps_neither() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.a(x)
        assert y.shape[1] == y.tanh().shape[1] == m.c.in_channels
        return m.c(y)

    assert traced(forward, a=conv(3, 8), c=nn.Conv2d(8, 2, 1))["a.0"].prunable


@pytest.mark.parametrize(
    "pick",
    [
        lambda x: x[:, :8:1][:, [7, 6, 5, 4, 3, 2, 1, 0]],
        lambda x: x[:, torch.arange(8)],
        lambda x: torch.cat([x[:, :4], x[:, 4:]], 1),
        lambda x: x.flip(1),
        lambda x: x.roll(1, 1),
        lambda x: F.pad(x, (0, 0, 0, 0, 1, -1)),
    ],
)
def test_channels_picked_by_position(pick: Callable[[Tensor], Tensor]) -> None:
    assert alone(lambda m, x: m.c(pick(x))) != ""


def test_positions_picked_within_a_map_are_followed() -> None:
    assert alone(lambda m, x: m.c(x[:, :, 1:, ::2])) == ""
    assert alone(lambda m, x: m.c(x[..., :2])) == ""
    assert alone(lambda m, x: m.c(F.pad(x, (1, 1)))) == ""


def test_flattened_maps_picked_by_position() -> None:
    """Every other element is of the same positions whichever channels stay; the first 40 are not."""
    assert alone(lambda m, x: m.fc(x.flatten(1)[:, ::2]), fc=nn.Linear(64, 2)) == ""
    reason = alone(lambda m, x: m.fc(x.flatten(1)[:, :40]), fc=nn.Linear(40, 2))
    assert "picks channels by position" in reason


@pytest.mark.parametrize(
    ("mix", "word"),
    [
        (lambda x: x - x.mean(1, keepdim=True), "mean"),
        (lambda x: x.softmax(1), "softmax"),
        (lambda x: F.normalize(x), "normalize"),
        (lambda x: x * x.sum(), "sum"),
        (lambda x: torch.einsum("nchw,ndhw->nchw", x, x), "einsum"),
        (lambda x: x.permute(0, 2, 1, 3).relu().cumsum(2).permute(0, 2, 1, 3), "cumsum"),
    ],
)
def test_operations_over_channels(mix: Callable[[Tensor], Tensor], word: str) -> None:
    assert word in alone(lambda m, x: m.c(mix(x)))


def test_means_over_positions_are_followed() -> None:
    assert alone(lambda m, x: m.fc(x.mean((2, 3))), fc=nn.Linear(8, 2)) == ""
    assert alone(lambda m, x: m.fc(x.mean(dim=[-1, -2])), fc=nn.Linear(8, 2)) == ""
    assert alone(lambda m, x: m.c(x - x.mean((2, 3), keepdim=True))) == "its channels meet in a residual add"


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (nn.LayerNorm([8, 4, 4]), "LayerNorm layer averages over all channels"),
        (nn.GroupNorm(1, 8), "GroupNorm layer averages over all channels"),
        (nn.Softmax2d(), "Softmax2d layer mixes channels"),
        (nn.LocalResponseNorm(2), "LocalResponseNorm layer"),
    ],
)
def test_modules_that_mix_channels_are_named(layer: nn.Module, word: str) -> None:
    assert alone(lambda m, x: m.c(m.layer(x)), layer=layer).startswith(word)


@pytest.mark.parametrize(
    "layer",
    [nn.PReLU(), nn.PReLU(8), nn.PixelShuffle(1), nn.InstanceNorm2d(8, affine=True), nn.LPPool2d(2, 1)],
)
def test_modules_that_keep_channels_apart_are_followed(layer: nn.Module) -> None:
    assert alone(lambda m, x: m.c(m.layer(x)), layer=layer) == ""


def test_channels_that_are_normalised_together_go_together() -> None:
    graph = traced(lambda m, x: m.c(m.n(m.a(x))), a=conv(3, 8), n=nn.GroupNorm(2, 8), c=nn.Conv2d(8, 2, 1))
    assert (graph["a.0"].size, graph["a.0"].unit_channels) == (2, 4)


@pytest.mark.parametrize("meet", [lambda x, p: x * p, lambda x, p: p + x, lambda x, p: x.clamp(min=p)])
def test_parameters_of_a_channel_each_go_with_them(meet: Callable[[Tensor, Tensor], Tensor]) -> None:
    graph = traced(
        lambda m, x: m.c(meet(m.a(x), m.p)),
        a=conv(3, 8),
        c=nn.Conv2d(8, 2, 1),
        p=nn.Parameter(torch.rand(8, 1, 1)),
    )
    assert graph["a.0"].prunable
    assert graph.vectors["p"].tolist() == graph["a.0"].units.tolist()


def test_parameters_of_a_written_shape_keep_their_channels() -> None:
    p = nn.Parameter(torch.rand(8, 1, 1))
    assert alone(lambda m, x: m.c(torch.cat([x, m.p.expand(1, 8, 4, 4)], 0)), p=p) != ""
    assert alone(lambda m, x: m.c(x + m.p), p=nn.Parameter(torch.rand(8, 4, 4))) != ""


def test_a_single_parameter_is_followed() -> None:
    assert alone(lambda m, x: m.c(x * m.p), p=nn.Parameter(torch.rand(1))) == ""


def test_a_number_made_of_channels_keeps_them() -> None:
    assert "computes with the number of channels" in alone(lambda m, x: m.c(x * torch.numel(x)))
    assert alone(lambda m, x: m.c(x) * x.view(-1)[0].item()) != ""


def test_a_layer_used_twice_ties_what_it_reads() -> None:
    graph = traced(
        lambda m, x: m.c(m.shared(m.shared(m.a(x)))), a=conv(3, 8), shared=conv(8, 8), c=nn.Conv2d(8, 2, 1)
    )
    assert tied(graph, "a.0", "shared.0")
    assert graph["a.0"].prunable


def test_a_norm_used_twice_ties_what_it_reads() -> None:
    graph = traced(
        lambda m, x: m.c(m.n(m.a(x))) + m.d(m.n(m.b(x))),
        a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 4, 1), n=nn.BatchNorm2d(4),
        c=nn.Conv2d(4, 2, 1), d=nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    assert tied(graph, "a", "b")
    assert graph["a"].prunable


def test_layers_that_share_a_parameter_keep_their_channels() -> None:
    first, second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
    second.weight = first.weight
    graph = traced(
        lambda m, x: m.c(m.n2(m.second(m.n1(m.first(m.a(x)))))),
        a=conv(3, 8), c=nn.Conv2d(8, 2, 1),
        first=first, n1=nn.BatchNorm2d(8), second=second, n2=nn.BatchNorm2d(8),
    )  # fmt: skip
    assert graph["a.0"].reason == graph["second"].reason == "first and second share a parameter"


def test_layer_whose_weight_is_read_elsewhere_keeps_its_channels() -> None:
    graph = traced(
        lambda m, x: m.c(m.n(m.b(m.a(x)))) * m.b.weight.norm(),
        a=conv(3, 8), b=nn.Conv2d(8, 8, 1), n=nn.BatchNorm2d(8), c=nn.Conv2d(8, 2, 1),
    )  # fmt: skip
    assert graph["b"].reason == graph["a.0"].reason == "its tensors are used outside of it"


def test_parametrized_layer_keeps_its_channels() -> None:
    b = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
    graph = traced(
        lambda m, x: m.c(m.n(m.b(m.a(x)))), a=conv(3, 8), b=b, n=nn.BatchNorm2d(8), c=nn.Conv2d(8, 2, 1)
    )
    assert graph["a.0"].reason != ""


def test_channels_without_a_norm_are_not_ranked() -> None:
    graph = traced(lambda m, x: m.b(m.a(x).relu()), a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 2, 1))
    assert graph["a"].reason == "no BatchNorm follows it to go by"
    graph = traced(
        lambda m, x: m.b(m.n(m.a(x))),
        a=nn.Conv2d(3, 8, 1),
        n=nn.BatchNorm2d(8, affine=False),
        b=nn.Conv2d(8, 2, 1),
    )
    assert graph["a"].reason == "no BatchNorm follows it to go by"


# What forwards are written like


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else -x


def test_a_branch_on_numbers_keeps_what_they_are_made_of() -> None:
    network = nn.Sequential(*conv(3, 4), Branching(), nn.Conv2d(4, 2, 1))
    assert trace(network, torch.zeros(1, 3, 4, 4))["0"].reason != ""


def branch_on_shapes(m: nn.Module, x: Tensor) -> Tensor:
    assert x.shape[1] >= 1
    if x.shape[-1] < 8:
        x = F.pad(x, (2, 2, 2, 2))
    for _ in range(x.dim() - 2):
        x = m.a(x)
    return m.c(x)


def lists(m: nn.Module, x: Tensor) -> Tensor:
    parts = list(m.a(x).chunk(2, 1))
    parts.extend(block(parts[-1]) for block in (m.b, m.b2))
    return m.c(torch.cat(parts, 1))


def constants(m: nn.Module, x: Tensor) -> Tensor:
    y = m.a(x) * torch.tensor(0.5)
    return m.c(torch.cat(y.double().float().chunk(2, 1), 1))


def slices(m: nn.Module, x: Tensor) -> Tensor:
    y = m.a(x)
    half = y.shape[1] // 2
    return m.c(torch.cat([y[:, half:], y[:, :half]], 1)[:, ::2])


def shuffle_by_slices(m: nn.Module, x: Tensor) -> Tensor:
    y = m.a(x)
    return m.c(torch.cat([y[:, ::2], y[:, 1::2]], 1))


def filled(m: nn.Module, x: Tensor) -> Tensor:
    y = m.a(x)
    return m.c(y + torch.zeros(1, y.shape[1], 1, 1) + torch.zeros_like(y))


@pytest.mark.parametrize(
    ("forward", "layers"),
    [
        (branch_on_shapes, {"a": conv(3, 3), "c": nn.Conv2d(3, 2, 1)}),
        (lists, {"a": conv(3, 8), "b": conv(4, 4), "b2": conv(4, 4), "c": nn.Conv2d(16, 2, 1)}),
        (constants, {"a": conv(3, 8), "c": nn.Conv2d(8, 2, 1)}),
        (slices, {"a": conv(3, 8), "c": nn.Conv2d(4, 2, 1)}),
        (shuffle_by_slices, {"a": conv(3, 8), "c": nn.Conv2d(8, 2, 1)}),
        (filled, {"a": conv(3, 8), "c": nn.Conv2d(8, 2, 1)}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_real_code_is_followed(
    forward: Callable[[nn.Module, Tensor], Tensor], layers: dict[str, nn.Module]
) -> None:
    assert traced(forward, **layers)["a.0"].reason in ("", "it is the network's input") or forward is filled


def test_written_slices_keep_what_they_pick_and_leave_the_rest() -> None:
    graph = traced(
        lambda m, x: m.c(torch.cat([m.a(x)[:, 3:], m.a(x)[:, :3]], 1)), a=conv(3, 8), c=nn.Conv2d(8, 2, 1)
    )
    assert [(g.size, g.prunable) for g in graph.groups if "a.0" in g.producers] == [(3, False), (5, True)]


def test_a_dict_or_a_tuple_of_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = conv(3, 4), conv(1, 4), nn.Conv2d(8, 2, 1)

        def forward(self, image: Tensor, depth: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
            return {"out": self.c(torch.cat([self.a(image), scale * self.b(depth)], 1))}

    image, depth = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    for example in ((image, depth), {"depth": depth, "image": image, "scale": 2.0}):
        graph = trace(Two(), example)
        assert graph["a.0"].prunable
        assert graph["b.0"].prunable


# What does not run is refused


class Batch(NamedTuple):
    image: Tensor
    depth: Tensor


def test_named_tuples_within_an_example_stay_named() -> None:
    def forward(m: nn.Module, batch: Any) -> Tensor:
        return m.out(m.a(batch.image) + m.b(batch.depth))  # type: ignore[operator, no-any-return]

    model = Net(forward, a=conv(3, 8), b=conv(1, 8), out=nn.Conv2d(8, 2, 1))
    graph = trace(model, (Batch(torch.rand(1, 3, 4, 4), torch.rand(1, 1, 4, 4)),))
    assert tied(graph, "a.0", "b.0")
    prune(model, plan(graph, ratio=0.5, score="l2", streams=True))


def test_failing_example_names_the_layer() -> None:
    with pytest.raises(SlimnetError, match=r"the example input fails at 0: .*channels"):
        trace(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.zeros(1, 1, 4, 4))


def test_example_without_a_batch_is_refused() -> None:
    with pytest.raises(SlimnetError, match="fails at 0: it gets 3 dimensions where a batch has 4"):
        trace(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.zeros(3, 4, 4))


def test_example_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(SlimnetError, match="is a str; it is a tensor"):
        trace(nn.Sequential(nn.Conv2d(3, 4, 1)), "x")


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def test_a_missing_input_is_named() -> None:
    with pytest.raises(SlimnetError, match=r"the example input fails: .*missing 1 required .*'y'"):
        trace(TwoInputs(), torch.zeros(1, 3, 4, 4))


def test_network_without_layers_is_refused() -> None:
    with pytest.raises(SlimnetError, match="no convolution or linear layer"):
        trace(nn.Sequential(nn.ReLU()), torch.zeros(1, 3, 4, 4))


# Layers that do not run


class Routed(nn.Module):
    """An expert chosen by what is computed; on an example of zeros it is the first."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 12)
        self.first, self.second, self.out = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        expert = self.first if x.sum() >= 0 else self.second
        return self.out(self.b(expert(y)))  # type: ignore[no-any-return]


def test_what_a_layer_that_did_not_run_could_read_or_write_is_kept() -> None:
    with pytest.warns(UserWarning, match="second did not run on the example") as warned:
        graph = trace(Routed(), torch.zeros(1, 3, 4, 4))
    assert [warning.filename for warning in warned] == [__file__]
    assert "second, which did not run on the example" in graph["a.0"].reason
    assert "second, which did not run on the example" in graph["first"].reason
    assert graph["b.0"].prunable


def test_layers_that_run_as_functions_or_in_training_are_no_idle_ones(
    recwarn: pytest.WarningsRecorder,
) -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.a(x)
        if m.training:
            m.aux(y)
        return F.conv2d(m.c(y), m.d.weight)  # type: ignore[arg-type, union-attr]

    layers = {"c": nn.Conv2d(8, 2, 1), "d": nn.Conv2d(2, 2, 1), "aux": nn.Conv2d(8, 2, 1)}
    traced(forward, a=conv(3, 8), **layers)
    assert not recwarn.list


def test_a_layer_that_did_not_run_keeps_only_what_fits_it() -> None:
    with pytest.warns(UserWarning, match="fc did not run"):
        graph = traced(lambda m, x: m.c(m.a(x)), a=conv(3, 8), c=nn.Conv2d(8, 2, 1), fc=nn.Linear(8, 3))
    assert graph["a.0"].prunable  # of maps, which no linear layer takes


# Modes of torch, and weights that are not a layer's own


def test_autocast_within_a_forward_is_followed() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = m.fc(m.c(m.a(x)).relu().mean((2, 3)))
        return y.float()

    graph = traced(forward, a=conv(3, 8), c=nn.Conv2d(8, 6, 1), fc=nn.Linear(6, 2))
    assert graph["a.0"].prunable
    assert not graph["c"].blocked


def test_inference_mode_within_a_forward_is_followed() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        with torch.inference_mode():
            y = m.c(x)
        with torch.enable_grad():
            return m.d(m.a(x) + y)

    graph = traced(forward, a=conv(3, 8), c=nn.Conv2d(3, 8, 1), d=nn.Conv2d(8, 2, 1))
    assert tied(graph, "a.0", "c")
    assert not graph["a.0"].blocked


def test_tracing_leaves_the_vectors_of_spectral_norm_as_they_were() -> None:
    layer = nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    graph = traced(lambda m, x: m.d(m.c(m.a(x))), a=conv(3, 8), c=layer, d=nn.Conv2d(8, 2, 1))
    assert "parametrization" in graph["a.0"].reason
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_a_decoder_of_the_encoders_weights_keeps_it_whole() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        return F.conv_transpose2d(m.a(m.e(x)), m.e.weight)  # type: ignore[arg-type, union-attr]

    graph = traced(forward, e=nn.Conv2d(3, 8, 1), a=nn.BatchNorm2d(8))
    assert graph["e"].reason == "conv_transpose2d takes weights that are not a layer's own"


def test_a_forward_may_assert_things_of_its_activations() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        assert bool((m.gate(x).sigmoid() > 0).all())
        return m.c(m.a(x))

    assert traced(forward, a=conv(3, 8), c=nn.Conv2d(8, 2, 1), gate=nn.Conv2d(3, 1, 1))["a.0"].prunable
