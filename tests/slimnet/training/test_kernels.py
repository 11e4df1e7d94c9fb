from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimnet.training import kernels
from slimnet.training.kernels import quick_layers

# channels in and out, kernel, stride, padding, height and width: of layers that are swapped
PRODUCTS: list[tuple[int, int, Any, Any, Any, int, int]] = [
    (8, 4, 1, 2, 0, 5, 7),
    (5, 6, 1, 2, 1, 4, 4),
    (4, 9, 1, 3, 0, 8, 8),
    (4, 9, 1, (1, 2), (1, 0), 3, 6),
    (24, 20, 1, 1, 0, 3, 3),
    (64, 64, 3, 1, 1, 2, 2),
    (64, 64, 3, 1, 1, 1, 1),
    (64, 96, 3, 2, 1, 5, 3),
    (64, 70, (1, 3), (2, 1), (0, 1), 4, 5),
    (64, 70, (3, 2), (1, 3), (2, 1), 3, 5),
]
SHAPES = ("incoming", "outgoing", "kernel", "stride", "padding", "height", "width")


def network(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).double().to(memory_format=torch.channels_last)


def image(channels: int, height: int, width: int, batch: int = 3) -> Tensor:
    x = torch.randn(batch, channels, height, width, dtype=torch.float64)
    return x.to(memory_format=torch.channels_last).requires_grad_()


def differentiate(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradients of the input and of all parameters."""
    y = model(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)
    wanted = [tensor for tensor in (x, *model.parameters()) if tensor.requires_grad]
    return y, list(torch.autograd.grad((y.double() * weights).sum(), wanted))


def is_product(y: Tensor) -> bool:
    return "Product" in type(y.grad_fn).__name__


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products in float64 too, where they can be told from torch's own to the last digits."""
    monkeypatch.setattr(kernels, "_is_bfloat16", lambda x: True)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(SHAPES, PRODUCTS)
def test_a_convolution_as_a_product_is_the_same(
    incoming: int, outgoing: int, kernel: Any, stride: Any, padding: Any, height: int, width: int, batch: int
) -> None:
    model = network(nn.Conv2d(incoming, outgoing, kernel, stride, padding, bias=False))
    x = image(incoming, height, width, batch)
    y, gradients = differentiate(model, x)
    with quick_layers(model):
        quick, found = differentiate(model, x)
    assert is_product(quick)
    for ours, torchs in zip([quick, *found], [y, *gradients], strict=True):
        assert torch.allclose(ours, torchs, rtol=0, atol=1e-12)
        assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("frozen", ["weight", "input"])
def test_what_is_frozen_has_no_gradient(frozen: str) -> None:
    model = network(nn.Conv2d(8, 8, 1, stride=2, bias=False))
    x = image(8, 4, 4)
    (model[0].weight if frozen == "weight" else x).requires_grad_(False)
    _, gradients = differentiate(model, x)
    with quick_layers(model):
        quick, found = differentiate(model, x)
    assert is_product(quick)
    assert len(found) == 1
    assert torch.allclose(found[0], gradients[0], rtol=0, atol=1e-12)


@pytest.mark.usefixtures("exact")
def test_outputs_may_be_changed_in_place() -> None:
    class Preactivated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 1, stride=2, bias=False)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            y += x[:, :, ::2, ::2]
            return self.relu(y)

    model, x = network(Preactivated()), image(8, 4, 4)
    y, gradients = differentiate(model, x)
    with quick_layers(model):
        quick, found = differentiate(model, x)
    assert torch.allclose(quick, y, rtol=0, atol=1e-12)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(found, gradients, strict=True))


@pytest.mark.usefixtures("exact")
def test_second_derivatives_are_refused_and_never_wrong() -> None:
    model, x = network(nn.Conv2d(8, 8, 1, stride=2, bias=False)), image(8, 4, 4)
    with quick_layers(model):
        (first,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.square().sum().backward()


def test_a_global_average_has_a_channels_last_gradient() -> None:
    model, x = network(nn.AdaptiveAvgPool2d(1)), image(6, 4, 5)
    y, (gradient,) = differentiate(model, x)
    with quick_layers(model):
        quick, (found,) = differentiate(model, x)
    assert torch.equal(quick, y)
    assert torch.allclose(found, gradient, rtol=0, atol=1e-15)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert not gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(64, 64, 1, stride=2, groups=2, bias=False),
        nn.Conv2d(64, 64, 1, stride=2),
        nn.Conv2d(64, 64, 3, dilation=2, padding="same", bias=False),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect", bias=False),
        nn.Conv2d(64, 64, 7, padding=3, bias=False),
        nn.AdaptiveAvgPool2d(2),
    ],
)
def test_layers_without_a_quicker_way_compute_as_ever(layer: nn.Module) -> None:
    model, x = network(layer), image(64, 4, 4)
    with quick_layers(model):
        quick = model(x)
    assert torch.equal(quick, model(x))
    assert not is_product(quick)
    assert "Average" not in type(quick.grad_fn).__name__ or isinstance(layer, nn.AdaptiveAvgPool2d)


def test_subclasses_keep_what_they_compute() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = network(Doubled(8, 8, 1, stride=2, bias=False))
    with quick_layers(model):
        assert type(model[0]) is Doubled


@pytest.mark.usefixtures("exact")
def test_the_other_memory_format_many_pixels_and_no_image_are_left_to_torch() -> None:
    model = network(nn.Conv2d(8, 8, 1, stride=2, bias=False), nn.Conv2d(8, 8, 3, bias=False))
    strided, large = model.children()
    with quick_layers(model):
        assert not is_product(strided(image(8, 9, 9).detach().contiguous()))
        assert not is_product(large(image(8, 9, 9)))
        assert strided(image(8, 4, 4, batch=0)).shape == (0, 8, 2, 2)


def test_float32_is_left_to_torch_which_is_quicker_there() -> None:
    model = nn.Conv2d(16, 8, 1, stride=2, bias=False).to(memory_format=torch.channels_last)
    x = torch.randn(2, 16, 4, 4).to(memory_format=torch.channels_last)
    with quick_layers(model):
        assert not is_product(model(x))
        with torch.autocast("cpu", torch.float16):
            assert not is_product(model(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert is_product(model(x))


@pytest.mark.parametrize("layer", [nn.Conv2d(64, 64, 1, stride=2), nn.Conv2d(64, 64, 3, padding=1)])
def test_bfloat16_is_as_near_to_the_truth_as_torch_s(layer: nn.Conv2d) -> None:
    layer.bias = None
    model = layer.to(memory_format=torch.channels_last)
    x = torch.randn(4, 64, 2, 2).to(memory_format=torch.channels_last).requires_grad_()
    truth = differentiate(copy.deepcopy(model).double(), x.detach().double().requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        torchs = differentiate(model, x)
        with quick_layers(model):
            ours = differentiate(model, x)
    assert is_product(ours[0])
    assert ours[0].dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 for gradient in ours[1])
    for mine, theirs, true in zip(
        [ours[0], *ours[1]], [torchs[0], *torchs[1]], [truth[0], *truth[1]], strict=True
    ):
        assert (mine - true).norm() <= 1.3 * (theirs - true).norm()


def test_layers_are_as_before_afterwards_even_after_an_error() -> None:
    model = network(nn.Conv2d(8, 8, 1, stride=2, bias=False), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(RuntimeError, match="once"), quick_layers(model):
        raise RuntimeError("once")
    assert [type(layer) for layer in model.children()] == [nn.Conv2d, nn.AdaptiveAvgPool2d]


@pytest.mark.usefixtures("exact")
def test_a_copy_made_meanwhile_computes_with_its_own_weights(tmp_path: Path) -> None:
    model, x = network(nn.Conv2d(8, 8, 1, stride=2, bias=False)), image(8, 4, 4)
    with quick_layers(model):
        torch.save(model, tmp_path / "model.pt")
        copied = copy.deepcopy(model)
    with torch.no_grad():
        copied[0].weight.zero_()
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(copied(x), torch.zeros_like(copied(x)))
    assert torch.allclose(loaded(x), model(x), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("exact")
def test_a_network_that_its_owner_compiled_can_be_followed() -> None:
    model = network(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.AdaptiveAvgPool2d(1))
    x = image(64, 2, 2)
    y, gradients = differentiate(model, x)
    with quick_layers(model):
        compiled = torch.compile(model, backend="aot_eager")
        quick, found = differentiate(compiled, x)
    assert torch.allclose(quick, y, rtol=0, atol=1e-12)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(found, gradients, strict=True))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("channels", [2, 3, 7])
def test_a_strided_pointwise_convolution_of_few_channels_is_a_product_in_float32_too(
    channels: int, bias: bool
) -> None:
    """oneDNN writes past the end of its memory when it differentiates one."""
    model = network(nn.Conv2d(channels, 52, 1, stride=2, bias=bias))
    x = image(channels, 8, 8)
    y, gradients = differentiate(model, x)
    with quick_layers(model):
        quick, its_gradients = differentiate(model, x)
    torch.testing.assert_close(quick, y, rtol=1e-12, atol=1e-12)
    for own, other in zip(gradients, its_gradients, strict=True):
        torch.testing.assert_close(other, own, rtol=1e-12, atol=1e-12)

    model.float()
    with quick_layers(model):
        for _ in range(100):
            single = torch.randn(32, channels, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
            out = model(single)
            assert "Convolution" not in type(out.grad_fn).__name__
            out.square().mean().backward()
