import pytest
import torch
from torch import nn

from slimnet.precision import autocast
from slimnet.training.penalties import L1, Penalty, Polarization, Proximal, histogram, near_zero


def gradients(strength: float, precision: str) -> tuple[nn.BatchNorm2d, torch.Tensor]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, -0.25, 0.0, 2.0]))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU())
    with autocast(torch.device("cpu"), precision):
        loss = network(torch.randn(2, 3, 6, 6)).float().square().mean()
    loss.backward()
    L1([norm.weight]).before_step(strength)
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
    L1([frozen, reached]).before_step(0.5)
    assert frozen.grad is None
    assert reached.grad.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("penalty", [Penalty, L1, Proximal, Polarization])
def test_no_penalty_minds_that_nothing_has_a_gradient(penalty: type[Penalty]) -> None:
    frozen = nn.Parameter(torch.full((3,), 2.0), requires_grad=False)
    for gammas in ([frozen], []):
        penalty(gammas).before_step(0.5)
        penalty(gammas).after_step(0.5, lr=0.1)
    assert frozen.tolist() == [2.0, 2.0, 2.0]


def factors(*values: float) -> nn.Parameter:
    gamma = nn.Parameter(torch.tensor(values))
    gamma.grad = torch.zeros_like(gamma)
    return gamma


def test_proximal_step_is_a_soft_threshold_with_exact_zeros() -> None:
    first, second = factors(1.0, -1.0, 0.1), factors(-0.2, 0.0, -0.3)
    Proximal([first, second], gain=10).after_step(0.5, lr=0.05)
    assert first.tolist() == [0.75, -0.75, 0.0]
    assert second.tolist() == [0.0, 0.0, pytest.approx(-0.05)]
    Proximal([first], gain=10).before_step(0.5)
    assert first.grad is not None
    assert first.grad.count_nonzero() == 0


def test_polarization_is_the_gradient_of_its_formula() -> None:
    gammas = [factors(0.9, 0.1, 0.4), factors(0.7, 0.05)]
    Polarization(gammas, t=1.2).before_step(0.5)
    copies = [gamma.detach().clone().requires_grad_() for gamma in gammas]
    every = torch.cat(copies)
    (0.5 * (1.2 * every.abs().sum() - (every - every.mean()).abs().sum())).backward()
    for gamma, copy in zip(gammas, copies, strict=True):
        torch.testing.assert_close(gamma.grad, copy.grad)


def test_polarization_keeps_factors_between_0_and_1() -> None:
    gamma = factors(1.5, -0.25, 0.5)
    Polarization([gamma]).after_step(0.0, lr=0.1)
    assert gamma.tolist() == [1.0, 0.0, 0.5]


def test_near_zero_is_a_fraction_of_magnitudes() -> None:
    assert near_zero([torch.tensor([0.0, -0.009, 0.011]), torch.tensor([-1.0])]) == 0.5
    assert near_zero([]) == 0.0


def test_histogram_counts_magnitudes_from_zero_to_at_least_one() -> None:
    found = histogram([torch.tensor([0.0, -0.5]), torch.tensor([0.99])], bins=4)
    assert found == {"counts": [1, 0, 1, 1], "edges": [0.0, 0.25, 0.5, 0.75, 1.0]}
    wide = histogram([torch.tensor([-3.0, 0.1])])
    assert wide["edges"][-1] == 3.0
    assert sum(wide["counts"]) == 2
