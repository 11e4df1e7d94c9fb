import pytest
import torch
from torch import Tensor, nn

from slimnet import SlimnetError, recalibrate


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 2, 1),
        nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False),
    )  # fmt: skip


def batches(count: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(6, 3, 8, 8, generator=generator) * (1 + index) for index in range(count)]


def test_statistics_are_the_plain_mean_over_batches() -> None:
    model = network().eval()
    recalibrate(model, batches())
    with torch.no_grad():
        outputs = [model[0](batch) for batch in batches()]
    means = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    variances = torch.stack([output.var((0, 2, 3)) for output in outputs]).mean(0)
    torch.testing.assert_close(model[1].running_mean, means)
    torch.testing.assert_close(model[1].running_var, variances)


def test_same_batches_give_the_same_statistics_whatever_was_there() -> None:
    first, second = network(), network()
    second.load_state_dict(first.state_dict())
    second[1].running_mean.fill_(7)
    torch.manual_seed(1)
    recalibrate(first, batches())
    torch.manual_seed(2)  # dropout stays off
    recalibrate(second, batches())
    assert torch.equal(first[1].running_mean, second[1].running_mean)
    assert torch.equal(first[5].running_var, second[5].running_var)


def test_nothing_else_changes() -> None:
    model = network()
    model[3].eval()
    before = {name: value.clone() for name, value in model.named_parameters()}
    recalibrate(model, iter(batches(2)))
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert [module.training for module in model] == [True, True, True, False, True, True, True]
    assert (model[1].momentum, model[5].momentum) == (0.3, 0.1)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_without_batches_nothing_happens() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recalibrate(model, [])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_failing_batch_puts_modes_and_momenta_back() -> None:
    model = network().eval()
    with pytest.raises(RuntimeError):
        recalibrate(model, [batches()[0], torch.zeros(1, 5, 8, 8)])
    assert model[1].momentum == 0.3
    assert not any(module.training for module in model.modules())


def test_a_loaders_pairs_are_refused_and_statistics_stay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model(torch.randn(8, 3, 2, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(SlimnetError, match="images for images, labels in loader"):
        recalibrate(model, [(torch.randn(8, 3, 2, 2), torch.zeros(8))])  # type: ignore[list-item]
    with pytest.raises(RuntimeError):
        recalibrate(model, [torch.randn(8, 3, 2, 2), torch.randn(8, 5, 2, 2)])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
