from collections.abc import Callable

import pytest
import torch
import torchvision

from slimnet import SlimnetError, count_macs, count_params
from slimnet.models import ResNet, basic_resnet, resnet, resnet20, resnet50, resnet56, resnet110

SEED_WIDTHS = [
    64,
    *(64, 64, 256), *(64, 64, 256), *(64, 64, 256),
    *(114, 103, 512), *(96, 114, 512), *(44, 51, 512), *(10, 15, 512),
    *(14, 12, 1024), *(9, 20, 1024), *(3, 6, 1024), *(3, 3, 1024), *(3, 3, 1024), *(3, 4, 1024),
    *(13, 17, 2048), *(3, 9, 2048), *(3, 3, 2048),
]  # fmt: skip


def test_resnet50_has_the_parameters_of_the_seed() -> None:
    with torch.device("meta"):
        assert count_params(resnet50()) == 23_513_162


def test_resnet50_with_the_widths_of_the_seed_has_its_parameters() -> None:
    assert len(SEED_WIDTHS) == 49
    with torch.device("meta"):
        pruned = resnet50(widths=SEED_WIDTHS)
    assert count_params(pruned) == 3_665_475
    assert pruned.widths == SEED_WIDTHS


@pytest.mark.parametrize(("stem", "macs"), [("cifar-maxpool", 325_799_936), ("cifar", 1_297_829_888)])
def test_macs_tell_the_stems_apart(stem: str, macs: int) -> None:
    with torch.device("meta"):
        assert count_macs(resnet50(stem=stem), torch.zeros(2, 3, 32, 32)) == macs


def test_imagenet_stem_has_the_macs_of_the_paper() -> None:
    with torch.device("meta"):
        assert count_macs(resnet50(1000, stem="imagenet"), torch.zeros(1, 3, 224, 224)) == 4_089_184_256


def test_default_widths_are_the_published_layout() -> None:
    with torch.device("meta"):
        widths = resnet50().widths
    assert (
        widths == [64] + [64, 64, 256] * 3 + [128, 128, 512] * 4 + [256, 256, 1024] * 6 + [512, 512, 2048] * 3
    )


@pytest.mark.parametrize(
    ("network", "params", "macs"),
    [
        (resnet20, 272_474, 40_813_184),
        (resnet56, 855_770, 125_747_840),  # 0.86 M in the logs of DepGraph
        (resnet110, 1_730_714, 253_149_824),
    ],
)
def test_the_networks_for_cifar_have_the_published_size(
    network: Callable[[], ResNet], params: int, macs: int
) -> None:
    with torch.device("meta"):
        model = network()
        assert (count_params(model), count_macs(model, torch.zeros(1, 3, 32, 32))) == (params, macs)
    # As published with option A, without weights in the two shortcuts: 0.27 M, 0.85 M, 1.7 M.
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert params - projections in (269_722, 853_018, 1_727_962)


def test_basic_blocks_compute_what_those_of_torchvision_do() -> None:
    theirs = torchvision.models.resnet18(num_classes=7).double().eval()
    ours = basic_resnet([2, 2, 2, 2], 64, num_classes=7, stem="imagenet").double().eval()
    values = theirs.state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_default_widths_of_basic_blocks() -> None:
    with torch.device("meta"):
        assert resnet56().widths == [16] + [16, 16] * 9 + [32, 32] * 9 + [64, 64] * 9


@pytest.mark.parametrize(("family", "name"), [(resnet, "resnet"), (basic_resnet, "basic-resnet")])
def test_architecture_builds_the_same_network_again(family: Callable[..., ResNet], name: str) -> None:
    network = family([1, 2], 8, num_classes=7, in_channels=1, stem="imagenet")
    arguments = dict(network.architecture)
    assert arguments.pop("name") == name
    again = family(**arguments)
    again.load_state_dict(network.state_dict())
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(again.eval()(x), network.eval()(x))


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([8, 4, 4, 16], r"4 numbers, but blocks \[1, 1\] need 7"),
        ([8, 4, 4, 16, 4, 0, 16], r"widths\[5\] is 0"),
        ([8, 4, 4, 16, 4, 2.5, 16], r"widths\[5\] is 2\.5"),
        ([8, 4, 4, 16, 4, True, 16], r"widths\[5\] is True"),
    ],
)
def test_wrong_widths_are_refused(widths: list[int], message: str) -> None:
    with pytest.raises(SlimnetError, match=message):
        resnet([1, 1], widths=widths)


def test_widths_that_cannot_be_added_name_block_and_numbers() -> None:
    with pytest.raises(SlimnetError, match=r"stage 1, block 2 .* 16 channels .* conv3 of 12 \(widths\[6\]\)"):
        resnet([2], widths=[8, 4, 4, 16, 4, 4, 12])
    with pytest.raises(SlimnetError, match=r"stage 1, block 1 .* 8 channels .* conv2 of 7 \(widths\[2\]\)"):
        basic_resnet([1, 1], widths=[8, 4, 7, 5, 9])
    with pytest.raises(SlimnetError, match=r"need 5: the stem and two per block"):
        basic_resnet([1, 1], widths=[8, 4, 8])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"blocks": [1], "stem": "cifar10"},
            "stem is 'cifar10'; it is one of cifar-maxpool, cifar, imagenet",
        ),
        ({"blocks": []}, "at least one stage"),
        ({"blocks": [1, 0]}, r"\[1, 0\]"),
        ({"blocks": [1], "width": 0}, "width is 0"),
        ({"blocks": [1], "num_classes": 0}, "num_classes is 0"),
        ({"blocks": [1], "in_channels": 0}, "in_channels is 0"),
    ],
)
def test_impossible_networks_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SlimnetError, match=message):
        resnet(**arguments)
