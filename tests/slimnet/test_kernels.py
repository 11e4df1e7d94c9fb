from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from slimnet.kernels import quick_layers

# kernel, stride, padding, channels in and out, height and width: of layers that are swapped
PRODUCTS = [
    (1, 2, 0, 8, 4, 5, 7),
    (1, 2, 1, 5, 6, 4, 4),
    (1, 3, 0, 4, 9, 8, 8),
    (1, 1, 0, 24, 20, 3, 3),
    (3, 1, 1, 64, 64, 2, 2),
    (3, 1, 1, 64, 64, 1, 1),
    (3, 2, 1, 64, 96, 5, 3),
    (5, 2, 2, 64, 64, 4, 6),
]


def network(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).double().to(memory_format=torch.channels_last)


def image(channels: int, height: int, width: int, batch: int = 3) -> Tensor:
    x = torch.randn(batch, channels, height, width, dtype=torch.float64)
    return x.to(memory_format=torch.channels_last).requires_grad_()


def differentiate(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradients of the input and of all parameters."""
    y = model(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    inputs = [x, *model.parameters()]
    return y, list(torch.autograd.grad((y * weights).sum(), inputs))


@pytest.mark.parametrize(("kernel", "stride", "padding", "incoming", "outgoing", "height", "width"), PRODUCTS)
def test_a_convolution_as_a_product_is_the_same(
    kernel: int, stride: int, padding: int, incoming: int, outgoing: int, height: int, width: int
) -> None:
    model = network(nn.Conv2d(incoming, outgoing, kernel, stride, padding, bias=False))
    x = image(incoming, height, width)
    y, gradients = differentiate(model, x)
    with quick_layers(model):
        quick, found = differentiate(model, x)
    assert "Product" in type(quick.grad_fn).__name__
    assert quick.is_contiguous(memory_format=torch.channels_last)
    for ours, torchs in zip([quick, *found], [y, *gradients], strict=True):
        assert torch.allclose(ours, torchs, rtol=0, atol=1e-12)
        assert ours.stride() == torchs.stride() or ours.is_contiguous(memory_format=torch.channels_last)


def test_a_global_average_has_a_channels_last_gradient() -> None:
    model = network(nn.AdaptiveAvgPool2d(1))
    x = image(6, 4, 5)
    y, (gradient,) = differentiate(model, x)
    with quick_layers(model):
        quick, (found,) = differentiate(model, x)
    assert torch.equal(quick, y)
    assert torch.allclose(found, gradient, rtol=0, atol=1e-15)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_what_has_no_quicker_way_is_left_alone() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = network(
        nn.Conv2d(64, 64, 1, stride=2, groups=2, bias=False),
        nn.Conv2d(64, 64, 1, stride=2),
        nn.Conv2d(64, 64, 3, dilation=2, padding="same", bias=False),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect", bias=False),
        Doubled(64, 64, 1, stride=2, bias=False),
        nn.AdaptiveAvgPool2d(2),
    )
    with quick_layers(model):
        assert not any("forward" in vars(module) for module in model.modules())


def test_the_other_memory_format_and_many_pixels_are_left_to_torch() -> None:
    model = network(nn.Conv2d(8, 8, 1, stride=2, bias=False), nn.Conv2d(8, 8, 3, bias=False))
    with quick_layers(model):
        nchw = model(image(8, 9, 9).detach().contiguous())
        channels_last = model[1](image(8, 9, 9))  # type: ignore[index]
    assert all("Convolution" in type(y.grad_fn).__name__ for y in (nchw, channels_last))


def test_layers_are_as_before_afterwards_even_after_an_error() -> None:
    model = network(nn.Conv2d(8, 8, 1, stride=2, bias=False), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(RuntimeError, match="once"), quick_layers(model):
        raise RuntimeError("once")
    assert not any("forward" in vars(module) for module in model.modules())


def test_autocast_holds_for_a_product() -> None:
    model = nn.Conv2d(64, 64, 1, stride=2, bias=False).to(memory_format=torch.channels_last)
    reference = copy.deepcopy(model)
    x = torch.randn(4, 64, 6, 6).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        y = reference(x)
        with quick_layers(model):
            quick = model(x)
    y.float().square().mean().backward()
    quick.float().square().mean().backward()
    assert quick.dtype == y.dtype == torch.bfloat16
    assert model.weight.grad is not None
    assert reference.weight.grad is not None
    assert model.weight.grad.dtype == torch.float32
    assert torch.allclose(quick.float(), y.float(), atol=0.02)
    assert torch.allclose(model.weight.grad, reference.weight.grad, atol=1e-3)
