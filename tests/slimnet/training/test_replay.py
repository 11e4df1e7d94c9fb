"""When passes are recorded; that replayed ones give the same bits is shown on a GPU, by test_cuda.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from slimnet import models
from slimnet.data import Splits
from slimnet.training.loop import train
from slimnet.training.recipe import Recipe
from slimnet.training.replay import WARM_UP, can_replay

RECIPE = Recipe(epochs=2, lr=0.05, batch_size=16)


def test_a_processor_records_nothing() -> None:
    assert not can_replay(models.resnet([1], 4))


def _patched(model: nn.Module) -> None:
    model.forward = lambda x: x


def _hooked(model: nn.Module) -> None:
    next(model.parameters()).register_hook(lambda gradient: gradient)


def _counting(model: nn.Module) -> None:
    model.bn1.momentum = None


def _replaced(model: nn.Module) -> None:
    class Own(nn.BatchNorm2d):
        pass

    model.bn1 = Own(4)


@pytest.mark.parametrize("change", [_patched, _hooked, _counting, _replaced])
def test_what_a_recording_would_not_repeat_is_not_recorded(
    change: Callable[[nn.Module], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if parameters were on a GPU, and changed: each alone is a reason."""
    monkeypatch.setattr("slimnet.training.replay.DEVICE", "cpu")
    model = models.resnet([1], 4)
    assert can_replay(model)
    change(model)
    assert not can_replay(model)
    assert not can_replay(models.resnet([1], 4), model)


def test_what_cannot_be_recorded_is_computed_and_not_tried_again(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def record(*given: object) -> None:
        tried.append(given)
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    def trained() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model: nn.Module = models.resnet([1], 4, num_classes=4)
        train(model, splits, replace(RECIPE, epochs=WARM_UP), seed=0, gammas={})
        return model.state_dict()

    plain = trained()
    monkeypatch.setattr("slimnet.training.loop.can_replay", lambda *networks: True)
    monkeypatch.setattr("slimnet.training.replay._record", record)
    after_failure = trained()
    assert len(tried) == 1
    assert all(torch.equal(value, after_failure[name]) for name, value in plain.items())
