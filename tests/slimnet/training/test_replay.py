"""When passes are recorded; that replayed ones give the same bits is shown on a GPU, by test_cuda.py."""

from __future__ import annotations

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
