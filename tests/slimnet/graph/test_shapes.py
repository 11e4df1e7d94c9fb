"""The shape that is computed is the shape that a call gives; where it cannot be known, no shape is given."""

import pytest
import torch
from torch import nn

from slimnet.graph.shapes import result_shape


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(4, 6, 3), (2, 4, 9)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 9, 8)),
        (nn.Conv2d(4, 8, (3, 1), stride=(1, 3), padding=(2, 0), dilation=(2, 1), groups=2), (2, 4, 9, 8)),
        (nn.Conv3d(2, 3, 2, padding=1, padding_mode="replicate"), (1, 2, 4, 5, 6)),
        (nn.BatchNorm2d(4), (2, 4, 5, 5)),
    ],
)
def test_the_shape_is_that_of_a_call(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape)
    assert result_shape(layer, x) == tuple(layer.eval()(x).shape)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.ReLU(), torch.zeros(1, 4, 5, 5)),
        (nn.Conv2d(3, 4, 3), torch.zeros(1, 4, 5, 5)),  # another number of channels
        (nn.Conv2d(4, 4, 7), torch.zeros(1, 4, 5, 5)),  # the kernel is larger than the map
        (nn.Conv2d(4, 4, 3), torch.zeros(1, 4, 5, 5, dtype=torch.float64)),
        (nn.Conv2d(4, 4, 3), torch.zeros(4, 5, 5)),
        (nn.Conv2d(4, 4, 3, padding="same"), torch.zeros(1, 4, 5, 5)),
        (nn.BatchNorm2d(4, track_running_stats=False), torch.zeros(1, 4, 5, 5)),
    ],
)
def test_what_only_a_call_can_tell_has_no_shape(layer: nn.Module, x: torch.Tensor) -> None:
    assert result_shape(layer, x) is None


def test_a_hooked_layer_has_no_shape() -> None:
    layer = nn.Conv2d(4, 4, 3)
    layer.register_forward_hook(lambda *_: torch.zeros(1, 2))
    assert result_shape(layer, torch.zeros(1, 4, 5, 5)) is None
