import pytest
import torch
from torch import nn

from slimnet.precision import autocast
from slimnet.sparsity import L1Penalty, histogram, near_zero


def gradients(strength: float, precision: str) -> tuple[nn.BatchNorm2d, torch.Tensor]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, -0.25, 0.0, 2.0]))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU())
    with autocast(torch.device("cpu"), precision):  # type: ignore[arg-type]
        loss = network(torch.randn(2, 3, 6, 6)).float().square().mean()
    loss.backward()
    L1Penalty([norm.weight], strength).add_to_gradients()
    assert norm.weight.grad is not None
    return norm, norm.weight.grad


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_penalty_adds_lambda_times_the_sign(precision: str) -> None:
    _, plain = gradients(0.0, precision)
    norm, penalised = gradients(0.125, precision)
    assert penalised.dtype == torch.float32
    torch.testing.assert_close(
        penalised - plain, 0.125 * torch.tensor([1.0, -1.0, 0.0, 1.0]), rtol=0, atol=1e-7
    )
    assert norm.bias.grad is not None


def test_penalty_skips_what_has_no_gradient() -> None:
    reached, frozen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3), requires_grad=False)
    reached.grad = torch.zeros(2)
    L1Penalty([frozen, reached], 0.5).add_to_gradients()
    assert frozen.grad is None
    assert reached.grad.tolist() == [0.5, 0.5]
    L1Penalty([frozen], 0.5).add_to_gradients()
    L1Penalty([], 0.5).add_to_gradients()


def test_near_zero_is_a_share_of_magnitudes() -> None:
    assert near_zero([torch.tensor([0.0, -0.009, 0.011]), torch.tensor([-1.0])]) == 0.5
    assert near_zero([]) == 0.0


def test_histogram_counts_magnitudes_from_zero_to_at_least_one() -> None:
    found = histogram([torch.tensor([0.0, -0.5]), torch.tensor([0.99])], bins=4)
    assert found == {"counts": [1, 0, 1, 1], "edges": [0.0, 0.25, 0.5, 0.75, 1.0]}
    wide = histogram([torch.tensor([-3.0, 0.1])])
    assert wide["edges"][-1] == 3.0
    assert sum(wide["counts"]) == 2
