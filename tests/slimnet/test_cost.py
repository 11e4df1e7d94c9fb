import torch
from torch import nn

from slimnet import count_macs, count_params


def test_shared_parameters_count_once() -> None:
    linear = nn.Linear(4, 4)
    assert count_params(nn.Sequential(linear, nn.ReLU(), linear)) == 20


def test_macs_of_convs_and_linear_layers_per_image() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 16x16 positions
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),
        nn.ConvTranspose2d(8, 4, 2, stride=2),  # every one of 16x16 inputs meets 4 * 2 * 2 weights
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    expected = 256 * 8 * 3 * 9 + 256 * 8 * 2 * 9 + 256 * 8 * 4 * 4 + 16 * 10
    for batch in (1, 3):
        assert count_macs(network, torch.zeros(batch, 3, 32, 32)) == expected


def test_macs_of_one_dimensional_networks_and_sequences() -> None:
    assert count_macs(nn.Conv1d(2, 4, 5), torch.zeros(1, 2, 12)) == 8 * 4 * 2 * 5
    assert count_macs(nn.Linear(6, 2), torch.zeros(3, 7, 6)) == 7 * 6 * 2


def test_counting_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout())
    network[2].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count_macs(network, torch.randn(2, 1, 4, 4))
    assert network.training
    assert network[1].training
    assert not network[2].training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network[0]._forward_hooks
