"""What a look at a study warns about; all findings are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from found import DATA, FOUND, NETWORK

from sweeps.check import warnings_about
from sweeps.check.findings import Cut
from sweeps.config import load_config


def warned(*overrides: str, data: dict[str, Any] = {}, network: dict[str, Any] = {}) -> list[str]:  # noqa: B006
    found = replace(FOUND, data=replace(DATA, **data), network=replace(NETWORK, **network))
    return warnings_about(load_config("smoke", overrides), found)


def test_a_study_that_makes_sense_is_not_warned_of() -> None:
    assert warned() == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            {"classes": ("cat",), "train": (9,), "validation": (300,), "test": (9,)},
            "one class, cat: there is nothing to learn",
        ),
        ({"test": (50, 0)}, "the test split has no image of class dog"),
        ({"validation": (0, 300)}, "the validation split has no image of class cat"),
        ({"constant": 11}, "11 of the 1,000 training images that were looked at are of one colour"),
        (
            {"validation": (50, 50)},
            "only 100 images: two networks can be told apart where they differ",
        ),
    ],
)
def test_data_that_make_no_sense(data: dict[str, Any], said: str) -> None:
    assert said in " ".join(warned(data=data))


@pytest.mark.parametrize(
    ("init", "held_out", "told"),
    [("mine.pt", True, True), ("mine.pt", False, False), ("DEFAULT", True, False)],
)
def test_weights_that_may_have_seen_the_validation_images(init: str, held_out: bool, told: bool) -> None:
    model = f"model={{name: torchvision/resnet18, init: {init}}}"
    said = warned(model, data={"held_out": held_out})
    assert any("model.init has seen them if it was trained on those" in text for text in said) is told


def test_classes_are_named_up_to_three() -> None:
    many = tuple("abcdef")
    (text,) = warned(
        data={"classes": many, "train": (100,) * 6, "validation": (100,) * 6, "test": (9, 0, 0, 0, 0, 0)},
        network={"outputs": 6},
    )
    assert "the test split has no image of classes b, c, d and 2 more" in text


@pytest.mark.parametrize(
    ("overrides", "network", "said"),
    [
        ([], {"scaling_factors": 0}, "no channel that can be pruned has one; choose prune.score l2"),
        (
            ["search.space={prune.ratio: [0.5]}", "search.trials=1"],
            {},
            "prune.score gamma ranks channels by scaling factors, which no penalty sorts at sparse.lambda 0",
        ),
        (
            ["prune.min_channels=64"],
            {},
            "min_channels is 64, and no layer that can be pruned has more than 64",
        ),
        (["prune.round_to=128"], {}, "prune.round_to is 128, and no layer"),
        (
            [],
            {"cuts": (Cut("prune.macs 9", None, "no network is so small"),)},
            "at prune.macs 9 would fail: no",
        ),
        (
            [],
            {"cuts": (Cut("prune.params 20,000", 10_000),)},
            "prune.params 20,000 removes nothing",
        ),
        (["sparse.batch_size=2000"], {}, "sparse.batch_size is 2000, more than the 1,000 training images"),
        (["finetune.batch_size=2000"], {}, "finetune.batch_size is 2000, more than"),
        ([], {"outputs": 1000}, "1,000 outputs for 2 classes, and the rest are never used"),
        (["sparse.epochs=2"], {"norm_momentum": 0.01}, "by 0.01 at a step, so that"),
        (["precision=bfloat16"], {}, "precision is bfloat16, which a processor only emulates"),
        (["data.crop=16"], {}, "data.crop 16 pads images of 32 pixels"),
    ],
)
def test_settings_that_make_no_sense(overrides: list[str], network: dict[str, Any], said: str) -> None:
    (text,) = warned(*overrides, network=network)
    assert said in text


def by_score(sparse: str, finetune: str) -> str:
    """A search of two ways with epochs of their own, beside 2 and 1 for lamp."""
    epochs = f"sparse.epochs: {{by: prune.score, gamma: {sparse}}}"
    epochs += f", finetune.epochs: {{by: prune.score, gamma: {finetune}}}"
    return f"search.space={{sparse.lambda: [0.1, 0.2], prune.score: [lamp, gamma], {epochs}}}"


def test_ways_with_epochs_of_their_own_have_as_many() -> None:
    assert warned(by_score("[1]", "[2]")) == []
    (text,) = warned(by_score("[4]", "[10]"))
    assert text.startswith("trials have from 3 epochs to 14, by their prune.score, so that one")
    assert text.endswith("; where search.space has sparse.epochs and finetune.epochs, change those too")
    assert warned(by_score("[4]", "[8, 10]")) == [], "epochs are what is searched"


def test_a_ratio_of_zero_is_meant_to_remove_nothing() -> None:
    assert warned(network={"cuts": (Cut("prune.ratio 0", 10_000), Cut("prune.ratio 0.5", 5000))}) == []


def test_a_penalty_that_is_searched_or_steered_sorts_scaling_factors() -> None:
    space = "search.space={prune.ratio: [0.5]}"
    assert warned(space, "search.trials=1", "sparse.target=0.5") == []
    assert warned(space, "search.trials=1", "sparse.lambda=0.01") == []
