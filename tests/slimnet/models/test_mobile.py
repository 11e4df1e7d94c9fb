import pytest
import torch
import torchvision

from slimnet import SlimnetError, count_macs, count_params
from slimnet.models import mobilenet, mobilenet_v2


@pytest.mark.parametrize(
    ("classes", "stem", "side", "params", "macs"),
    [  # the first as in torchvision and in the paper: 3.4 M, 300 M
        (1000, "imagenet", 224, 3_504_872, 300_774_272),
        (10, "cifar", 32, 2_236_682, 24_461_312),
    ],
)
def test_mobilenet_v2_has_its_size(classes: int, stem: str, side: int, params: int, macs: int) -> None:
    with torch.device("meta"):
        model = mobilenet_v2(classes, stem=stem)
        assert (count_params(model), count_macs(model, torch.zeros(1, 3, side, side))) == (params, macs)


def test_it_computes_what_torchvisions_does() -> None:
    theirs = torchvision.models.mobilenet_v2(num_classes=7).double().eval()
    ours = mobilenet_v2(7, stem="imagenet").double().eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)


def test_architecture_builds_the_same_network_again() -> None:
    network = mobilenet(
        [1, 2], widths=[5, 5, 3, 7, 4, 8, 4, 9], num_classes=7, in_channels=1, stem="cifar-maxpool"
    )
    arguments = dict(network.architecture)
    assert (arguments.pop("name"), arguments["widths"]) == ("mobilenet", [5, 5, 3, 7, 4, 8, 4, 9])
    again = mobilenet(**arguments)
    again.load_state_dict(network.state_dict())
    x = torch.randn(2, 1, 9, 9)
    assert torch.equal(again.eval()(x), network.eval()(x))


@pytest.mark.parametrize("side", [1, 7, 14, 33])
def test_images_of_any_size_pass(side: int) -> None:
    assert mobilenet([1] * 7, 4)(torch.randn(2, 3, side, side)).shape == (2, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": []}, "at least one stage"),
        ({"blocks": [1] * 8}, "a mobilenet has at most 7 stages"),
        ({"blocks": [1], "stem": "large"}, "stem is 'large'; it is one of"),
        ({"blocks": [1], "num_classes": 0}, "num_classes is 0"),
        ({"blocks": [1], "widths": [4, 4]}, r"2 numbers, but blocks \[1\] need 4: the stem, two per block"),
        (
            {"blocks": [1], "widths": [4, 3, 2, 8]},
            r"stage 1, block 1 expands nothing, .* 3 \(widths\[1\]\), must be",
        ),
        (
            {"blocks": [1, 2], "widths": [4, 4, 2, 9, 3, 9, 2, 8]},
            r"stage 2, block 2 adds its input of 3 channels",
        ),
    ],
)
def test_impossible_networks_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SlimnetError, match=message):
        mobilenet(**arguments)
