"""Every step of an experiment on an NVIDIA or AMD GPU: as on the processor, and the same bits each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import slimnet
from slimnet import models, steps
from slimnet.data import Splits, split, train_batches
from slimnet.data.augmentation import Augmentation
from slimnet.data.sets import Dataset
from slimnet.devices import choose_device, device_name, peak_memory
from slimnet.evaluation import evaluate
from slimnet.precision import Precision, native_precision
from slimnet.pruning.planning import scaling_factors
from slimnet.training.determinism import make_deterministic
from slimnet.training.loop import Row, train
from slimnet.training.recipe import Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

RECIPE = Recipe(3, 0.002, batch_size=32, optimizer="adam", augmentation=Augmentation(crop=2, flip=True))


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    make_deterministic("cuda")
    yield
    torch.use_deterministic_algorithms(False)


def brightness(device: str = "cuda", size: int = 16) -> Splits:
    """Pictures whose class is how bright they are."""
    random = np.random.default_rng(0)
    y = np.arange(320) % 4
    x = (random.integers(0, 64, (320, size, size, 3)) + 64 * y[:, None, None, None]).astype(np.uint8)
    return split(Dataset("brightness", x, y, x[:80], y[:80], 4), validation=0.2, seed=0, device=device)


def network(name: str = "resnet") -> nn.Module:
    torch.manual_seed(0)
    built = {
        "resnet": lambda: models.resnet([1, 1], 8, num_classes=4),
        "maxpool": lambda: models.resnet50(num_classes=4, stem="cifar-maxpool"),
        "vgg": lambda: models.vgg16(num_classes=4),
        "mobilenet": lambda: models.mobilenet_v2(num_classes=4),
    }[name]()
    return built.cuda()


def trained(model: nn.Module, recipe: Recipe = RECIPE, **options: Any) -> list[Row]:
    splits = brightness()
    gammas = scaling_factors(slimnet.trace(model, splits.example))
    return train(model, splits, recipe, **{"seed": 7, "gammas": gammas, "strength": 0.001, **options})


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.cpu() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """The names of tensors that differ."""
    return [name for name in one if not torch.equal(one[name], other[name])]


def test_auto_is_the_gpu_and_bfloat16_where_it_has_it() -> None:
    assert choose_device("auto").type == "cuda"
    assert device_name("cuda")
    if torch.cuda.get_device_capability() >= (8, 0):
        assert native_precision("cuda") == "bfloat16"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["resnet", "maxpool", "vgg", "mobilenet"])
def test_training_twice_and_in_two_parts_gives_the_same_bits(
    name: str, precision: Precision, tmp_path: Path
) -> None:
    found: list[tuple[dict[str, torch.Tensor], list[Row]]] = []
    for parts in ((3,), (3,), (1, 2, 3)):
        checkpoint = tmp_path / f"{len(found)}.pt"
        for until in parts:
            model = network(name)
            history = trained(model, precision=precision, checkpoint=checkpoint, until=until)
        found.append((bits(model), history))
    for state, history in found[1:]:
        assert same(found[0][0], state) == []
        assert history == found[0][1]


@pytest.mark.parametrize("more", [{}, {"distill": 0.5}, {"optimizer": "sgd"}, {"mixup": 0.2}, {"drop": True}])
def test_replayed_steps_give_the_bits_of_launched_ones(
    more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dict(more)
    dropout, mixup = options.pop("drop", False), options.pop("mixup", 0.0)
    augmentation = Augmentation(crop=2, flip=True, mixup=mixup)
    recipe = replace(
        RECIPE, batch_size=24, augmentation=augmentation, **options
    )  # 256 images: a last batch of 16
    found = []
    for replayed in (True, False):
        if not replayed:
            monkeypatch.setattr("slimnet.training.loop.can_replay", lambda *networks: False)
        model, teacher = network(), network("vgg")
        if dropout:
            model.fc = nn.Sequential(nn.Dropout(0.5), model.fc)
        history = trained(model, recipe, precision="bfloat16", teacher=teacher)
        found.append((bits(model), history))
    assert same(found[0][0], found[1][0]) == []
    assert found[0][1] == found[1][1]


def test_a_layer_of_the_users_own_is_computed_at_every_step() -> None:
    class Counting(nn.ReLU):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Counting.calls += 1
            return super().forward(x)

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Counting(), nn.Flatten(), nn.LazyLinear(4)
    ).cuda()
    model(torch.zeros(2, 3, 16, 16, device="cuda"))
    Counting.calls = 0
    train(model, brightness(), replace(RECIPE, epochs=2, evaluate_every=2), seed=0, gammas={})
    assert Counting.calls >= 2 * 8


def test_compiled_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    found = []
    for parts in ((2,), (1, 2)):
        for until in parts:
            model = network()
            trained(
                model,
                replace(RECIPE, epochs=2),
                compiled=True,
                precision="bfloat16",
                checkpoint=tmp_path / f"{len(parts)}.pt",
                until=until,
            )
        found.append(bits(model))
    assert same(*found) == []


@pytest.mark.parametrize("name", ["resnet", "maxpool", "vgg", "mobilenet"])
def test_a_trained_network_is_pruned_exactly(name: str) -> None:
    model = network(name)
    trained(model)
    splits = brightness()
    model = model.double()
    example = splits.example.double()
    plan = slimnet.plan(slimnet.trace(model, example), ratio=0.5)
    physical, masked = slimnet.prune(model, plan), slimnet.mask(model, plan, absorb=True)
    x = torch.rand(16, *example.shape[1:], dtype=torch.float64, device="cuda")
    with torch.inference_mode():
        assert (physical.eval()(x) - masked.eval()(x)).abs().max() < 1e-10
    assert slimnet.count_params(physical) < slimnet.count_params(model)
    assert {parameter.device.type for parameter in physical.parameters()} == {"cuda"}


def test_an_experiment_ends_where_the_processor_does() -> None:
    found: dict[str, dict[str, Any]] = {}
    for device in ("cpu", "cuda"):
        splits = brightness(device)
        model = network().to(device)
        sparse = steps.sparse_train(model, splits, RECIPE, seed=0, strength=1e-3)
        assert sparse is not None
        pruned = steps.prune(sparse.model, splits, seed=0, ratio=0.5, streams=True, recalibrate=2)
        recipe = replace(RECIPE, epochs=1, optimizer="adamw", distill=0.5)
        tuned = steps.finetune(pruned.model, splits, recipe, seed=0, teacher=sparse.model)
        assert tuned is not None
        found[device] = {
            "sparse": sparse.metrics["loss"],
            "params": pruned.metrics["params"],
            "loss": tuned.metrics["loss"],
            "uniform": slimnet.count_params(steps.narrow(sparse.model, splits, params=3000, seed=0)),
        }
    for name, value in found["cpu"].items():
        assert found["cuda"][name] == pytest.approx(value, rel=0.1), name


def test_a_file_of_a_gpu_loads_on_the_processor(tmp_path: Path) -> None:
    model = network()
    splits = brightness()
    trained(model)
    slimnet.save(tmp_path / "network.pt", model)
    loaded = slimnet.load(tmp_path / "network.pt")
    assert {parameter.device.type for parameter in loaded.parameters()} == {"cpu"}
    assert same(bits(model), bits(loaded)) == []
    on_cpu = brightness("cpu")
    assert evaluate(loaded, on_cpu, on_cpu.test) == pytest.approx(
        evaluate(model, splits, splits.test), abs=0.02
    )


def test_latency_and_memory_are_those_of_the_gpu() -> None:
    model = network()
    latency = slimnet.measure_latency(model, torch.zeros(4, 3, 16, 16, device="cuda"), seconds=0.05)
    assert 0 < latency.low_ms <= latency.median_ms <= latency.high_ms
    assert (peak_memory("cuda") or 0) > slimnet.count_params(model) * 4


@pytest.mark.parametrize("whole", [True, False])
def test_mapped_images_give_the_same_batches_whole_and_streamed(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not whole:
        monkeypatch.setattr("slimnet.data.streaming.WHOLE", 0.0)
    random = np.random.default_rng(0)
    x, y = random.integers(0, 255, (200, 16, 16, 3), dtype=np.uint8), np.arange(200) % 4
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    batches = []
    for images in (x, mapped):
        data = Dataset("noise", images, y, images[:40], y[:40], 4)
        parts = split(data, validation=0.1, seed=0, device="cuda")
        batches.append(
            list(
                train_batches(
                    parts.train, parts, 32, seed=0, epoch=1, augmentation=Augmentation(crop=2, flip=True)
                )
            )
        )
    for (here, labels), (there, others) in zip(*batches, strict=True):
        assert here.device.type == there.device.type == "cuda"
        assert torch.equal(here, there)
        assert torch.equal(labels, others)


def test_training_on_streamed_images_is_that_on_images_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads pin batches while steps are recorded."""
    monkeypatch.setattr("slimnet.data.streaming.WHOLE", 0.0)
    random = np.random.default_rng(0)
    x, y = random.integers(0, 255, (320, 16, 16, 3), dtype=np.uint8), np.arange(320) % 4
    np.save(tmp_path / "x.npy", x)
    found = []
    for images in (x, np.load(tmp_path / "x.npy", mmap_mode="r")):
        splits = split(
            Dataset("noise", images, y, images[:40], y[:40], 4), validation=0.1, seed=0, device="cuda"
        )
        model = network()
        train(model, splits, RECIPE, seed=7, gammas={})
        found.append(bits(model))
    assert same(*found) == []


def test_a_patched_forward_is_computed_at_every_step() -> None:
    model, calls = network(), []
    forward = model.forward

    def counted(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return forward(x)

    model.forward = counted
    trained(model)
    assert calls.count(32) >= 3 * 8
