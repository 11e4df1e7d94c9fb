import pytest
import torch
import torchvision
from torch import nn

from slimnet import SlimnetError, count_macs, count_params
from slimnet.models import VGG, vgg, vgg16, vgg19


@pytest.mark.parametrize(
    ("network", "params", "macs"),
    [  # Network Slimming has 20.04 M and 7.97e8 FLOPs, two for each MAC, for VGG-19
        (vgg16, 14_724_042, 313_201_664),
        (vgg19, 20_035_018, 398_136_320),
    ],
)
def test_the_published_networks_have_their_size(network: type[VGG], params: int, macs: int) -> None:
    with torch.device("meta"):
        model = network()
        assert (count_params(model), count_macs(model, torch.zeros(1, 3, 32, 32))) == (params, macs)


def test_its_convs_are_those_of_torchvision() -> None:
    """But for their biases, which a BatchNorm behind makes idle, and the last max-pool."""
    theirs = torchvision.models.vgg16_bn(init_weights=False).features[:-1].double().eval()
    convs = [layer for layer in theirs if isinstance(layer, nn.Conv2d)]
    for conv in convs:
        conv.bias = None
    ours = vgg16().double().eval()
    assert ours.widths == [conv.out_channels for conv in convs]
    ours.features.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(ours.fc(theirs(x).mean((2, 3))), ours(x))


def test_architecture_builds_the_same_network_again() -> None:
    network = vgg([1, 2], widths=[5, 6, 7], num_classes=7, in_channels=1)
    arguments = dict(network.architecture)
    assert (arguments.pop("name"), arguments["widths"]) == ("vgg", [5, 6, 7])
    again = vgg(**arguments)
    again.load_state_dict(network.state_dict())
    x = torch.randn(2, 1, 9, 9)
    assert torch.equal(again.eval()(x), network.eval()(x))


@pytest.mark.parametrize("side", [1, 7, 14, 28, 33])
def test_images_of_any_size_pass(side: int) -> None:
    assert vgg([1, 1, 1, 1, 1], 2)(torch.randn(2, 3, side, side)).shape == (2, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": []}, "at least one stage"),
        ({"blocks": [1, 0]}, r"\[1, 0\]"),
        ({"blocks": [1], "width": 0}, "width is 0"),
        ({"blocks": [1], "num_classes": 0}, "num_classes is 0"),
        ({"blocks": [1], "in_channels": 0}, "in_channels is 0"),
        ({"blocks": [1, 2], "widths": [4, 4]}, r"2 numbers, but blocks \[1, 2\] need 3: one per conv"),
        ({"blocks": [1, 1], "widths": [4, 0]}, r"widths\[1\] is 0"),
    ],
)
def test_impossible_networks_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SlimnetError, match=message):
        vgg(**arguments)
