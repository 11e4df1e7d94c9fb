"""A trained network says how pictures become its input, through every step and in its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import slimnet
from slimnet import steps
from slimnet.data import Splits, eval_batches
from slimnet.preprocessing import attach, preprocessing_of
from slimnet.training.recipe import Recipe

RECIPE = Recipe(epochs=1, lr=0.05, batch_size=32)


def test_it_gives_the_batches_that_networks_are_measured_on(splits: Splits) -> None:
    made = splits.preprocessing
    assert (made.image_shape, len(made.classes)) == ((3, 8, 8), 4)
    pixels = splits.test.x.double() / 255
    mean, std = (torch.tensor(values).double().reshape(1, 3, 1, 1) for values in (made.mean, made.std))
    batch, _ = next(eval_batches(splits.test, splits, len(splits.test)))
    np.testing.assert_allclose((pixels - mean) / std, batch.double(), atol=1e-5)


def test_it_passes_through_training_pruning_and_files(splits: Splits, tmp_path: Path) -> None:
    model = slimnet.models.resnet([1], width=8, num_classes=4)
    assert preprocessing_of(model) is None
    steps.sparse_train(model, splits, RECIPE, seed=0, strength=0.01)
    pruned = steps.prune(model, splits, seed=0, ratio=0.5).model
    tuned = steps.finetune(pruned, splits, RECIPE, seed=0, weights="fresh").model
    narrow = steps.narrow(tuned, splits, params=700, seed=0)
    for index, network in enumerate((model, pruned, tuned, narrow)):
        slimnet.save(tmp_path / f"{index}.pt", network, metrics={"test_accuracy": 0.5})
        assert slimnet.load(tmp_path / f"{index}.pt").preprocessing == splits.preprocessing
        assert slimnet.read(tmp_path / f"{index}.pt").metrics == {"test_accuracy": 0.5}


def test_a_network_that_was_only_pruned_has_it_too(splits: Splits) -> None:
    model = slimnet.models.resnet([1], width=8, num_classes=4)
    assert preprocessing_of(steps.prune(model, splits, seed=0, ratio=0.5).model) == splits.preprocessing


def test_files_of_networks_without_it_load_as_before(tmp_path: Path) -> None:
    slimnet.save(tmp_path / "old.pt", slimnet.models.resnet([1], width=8))
    assert slimnet.read(tmp_path / "old.pt").preprocessing is None
    assert preprocessing_of(slimnet.load(tmp_path / "old.pt")) is None


class Scaled(nn.Module):
    """A network that has a part called preprocessing."""

    def __init__(self) -> None:
        super().__init__()
        self.preprocessing = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.preprocessing(x).mean((2, 3))


def test_a_part_of_the_same_name_stays(splits: Splits, tmp_path: Path) -> None:
    model = Scaled()
    attach(model, splits.preprocessing)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    slimnet.save(tmp_path / "own.pt", model)
    again = slimnet.load(tmp_path / "own.pt", model=Scaled())
    assert isinstance(again.preprocessing, nn.BatchNorm2d)
    assert preprocessing_of(again) == splits.preprocessing


def test_an_incomplete_record_is_refused() -> None:
    with pytest.raises(slimnet.SlimnetError, match="incomplete"):
        slimnet.Preprocessing.from_record({"size": [8, 8]})
