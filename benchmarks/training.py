"""Training: slimnet's loop beside the plain loop that people write, on the same network, data and batches.

On a GPU where torch finds one, else on the processor. The two take turns, so that whatever else the machine
does meets both; on the processor each in a process of its own, as only ours holds memory in slimnet's way.
How close to the limit is told by a large matrix product that takes its turn too: forward and backward are
three times the multiply-accumulates of inference.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

import slimnet
from benchmarks.fashion import SEEDS, spread
from slimnet.data import Images, Splits, load_dataset, split
from slimnet.data.augmentation import Augmentation
from slimnet.devices import choose_device, device_name, synchronize
from slimnet.evaluation import evaluate
from slimnet.models.stems import Stem
from slimnet.precision import native_precision
from slimnet.pruning.planning import scaling_factors
from slimnet.training.loop import train
from slimnet.training.memory import keep_memory
from slimnet.training.penalties import Penalty, penalise
from slimnet.training.recipe import Recipe
from slimnet.training.sparsity import PenaltyName
from sweeps.config import load_config
from sweeps.machine import core_count

ROUNDS = 5
STRENGTH = 1e-3
COLUMNS = [
    "network",
    "batch x steps",
    "plain: images/s",
    "slimnet: images/s, ratio (range)",
    "of a product",
    "in float32",
    "with torch.compile",
    "seconds to compile",
]
DEVICE = choose_device("auto")
ON_CPU = DEVICE.type == "cpu"
PRODUCT = 2048 if ON_CPU else 8192  # rows and columns of the matrices that tell the limit
IMAGES = 1 if ON_CPU else 10  # times as many on a GPU, which does them in less time than it takes to begin
LOADERS = 0 if ON_CPU else 4  # processes of the plain loop, as most set them beside a GPU


@dataclass(frozen=True)
class Case:
    """A network and what it is trained on in one turn."""

    name: str
    build: Callable[[], nn.Module]
    splits: Splits
    recipe: Recipe


def main() -> None:
    """Print the tables: speed, and what is spent beside the steps."""
    print(
        f"λ = {STRENGTH:g}, SGD, crop and flip, {device_name(DEVICE)}, {core_count()} threads, "
        f"{native_precision(DEVICE)}; "
        f"medians of {ROUNDS} turns after one to warm up\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n" + "|---" * len(COLUMNS) + "|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # to see how long compiling takes the first time
        for number in range(len(_cases())):
            print(_speed(number), flush=True)
    for measure in (_costs, _penalties) if ON_CPU else ():
        with _process("slimnet") as process:
            print("\n" + process.submit(measure).result())


def accuracy() -> None:
    """Print the test accuracies that both loops end at, over three seeds."""
    keep_memory()
    torch.set_num_threads(core_count())
    print("Test accuracy in % on fashion-mini\n")
    print(
        "| network | epochs | loop | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean and spread |"
    )
    print("|---" * (len(SEEDS) + 4) + "|")
    for case in _accuracy_cases():
        for name in ("plain", "slimnet"):
            found = [_accuracy(case, name, seed) for seed in SEEDS]
            accuracies = [*(f"{100 * value:.1f}" for value in found), spread(found)]
            print(f"| {' | '.join([case.name, str(case.recipe.epochs), name, *accuracies])} |", flush=True)


# ------------------------------------------------------------------------------------------------------ loops


def train_plainly(model: nn.Module, splits: Splits, recipe: Recipe, seed: int) -> None:
    """What is found in most repositories: transforms per image, float32, NCHW, a loop over BatchNorms."""
    torch.manual_seed(seed)
    mean, std = ((value / 255).flatten().tolist() for value in (splits.mean, splits.std))
    transform = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.RandomCrop(splits.image_shape[1:], padding=recipe.augmentation.crop),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    loader = DataLoader(
        _Samples(splits.train, transform),
        batch_size=recipe.batch_size,
        shuffle=True,
        num_workers=LOADERS,
        pin_memory=not ON_CPU,
    )
    optimizer = torch.optim.SGD(
        model.parameters(),
        recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    model.train()
    for epoch in range(recipe.epochs):
        seen, total_loss, correct = 0, 0.0, 0
        for step, (x, y) in enumerate(loader):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr_at((epoch + step / len(loader)) / recipe.epochs)
            x, y = x.to(DEVICE, non_blocking=True), y.to(DEVICE, non_blocking=True)
            optimizer.zero_grad()
            logits = model(x)
            loss = F.cross_entropy(logits, y)
            loss.backward()  # type: ignore[no-untyped-call]
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    assert module.weight.grad is not None
                    module.weight.grad.add_(STRENGTH * torch.sign(module.weight.data))
            optimizer.step()
            seen += len(y)
            total_loss += loss.item() * len(y)
            correct += int((logits.argmax(1) == y).sum())


class _Samples(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Images one by one, as torchvision's data sets give them."""

    def __init__(self, images: Images, transform: Callable[[Any], Tensor]) -> None:
        self.x = images.x.permute(0, 2, 3, 1).cpu().numpy()
        self.y = images.y.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.x[index]), self.y[index]


def _train(model: nn.Module, splits: Splits, recipe: Recipe, seed: int, **more: Any) -> None:
    gammas = scaling_factors(slimnet.trace(model, splits.example))
    more = {"precision": native_precision(DEVICE), **more}
    train(model, splits, recipe, seed=seed, gammas=gammas, strength=STRENGTH, **more)


LOOPS: dict[str, Callable[..., None]] = {
    "plain": train_plainly,
    "slimnet": _train,
    "float32": partial(_train, precision="float32"),
    "compiled": partial(_train, compiled=True),
}


# --------------------------------------------------------------------------------------------------- measures


def _speed(number: int) -> str:
    """A row of the table, of the case of this number."""
    case, model = _prepared(number)
    turns = {name: partial(_turn, name, number) for name in (*LOOPS, "product")}
    with ExitStack() as stack:
        if ON_CPU:
            turns = {
                name: partial(_result, stack.enter_context(_process(name)), name, number) for name in turns
            }
        seconds = _take_turns(turns)
    warm_up = {name: values.pop(0) for name, values in seconds.items()}
    images = len(case.splits.train) * case.recipe.epochs
    steps = -(-len(case.splits.train) // case.recipe.batch_size) * case.recipe.epochs
    rates = {name: images / statistics.median(seconds[name]) for name in LOOPS}
    ours = {name: f"{rates[name]:,.0f}, {_ratio(seconds['plain'], seconds[name])}" for name in LOOPS}
    macs = 3 * slimnet.count_macs(model, case.splits.example)
    limit = PRODUCT**3 / statistics.median(seconds["product"])
    cells = [
        case.name,
        f"{case.recipe.batch_size} x {steps}",
        f"{rates['plain']:,.0f}",
        ours["slimnet"],
        f"{macs * rates['slimnet'] / limit:.0%} of {limit / 1e9:,.0f} GMAC/s",
        ours["float32"],
        ours["compiled"],
        f"{warm_up['compiled']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _process(name: str) -> ProcessPoolExecutor:
    """A process for the turns of one loop."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (name,))


def _begin(name: str) -> None:
    if name != "plain":
        keep_memory()
    torch.set_num_threads(core_count())


def _result(process: ProcessPoolExecutor, name: str, number: int) -> float:
    return process.submit(_turn, name, number).result()


def _turn(name: str, number: int) -> float:
    """Train, or multiply, once more; returns the seconds that it took."""
    if name == "product":
        left, right = (
            torch.randn(PRODUCT, PRODUCT, device=DEVICE).to(getattr(torch, native_precision(DEVICE)))
            for _ in "ab"
        )
        return _timed(lambda: torch.mm(left, right))
    case, model = _prepared(number)
    # No evaluation in either: ours has one image to look at.
    splits = replace(case.splits, validation=_first(case.splits, 1), test=_first(case.splits, 1))
    return _timed(lambda: LOOPS[name](model, splits, case.recipe, 0))


@cache
def _prepared(number: int) -> tuple[Case, nn.Module]:
    case = _cases()[number]
    return case, case.build().to(DEVICE)


def _timed(run: Callable[[], object]) -> float:
    synchronize(DEVICE)
    started = time.perf_counter()
    run()
    synchronize(DEVICE)
    return time.perf_counter() - started


def _ratio(plain: list[float], ours: list[float]) -> str:
    """How many times faster, turn by turn: the median and the range."""
    ratios = [theirs / own for theirs, own in zip(plain, ours, strict=True)]
    return f"{statistics.median(ratios):.1f}x ({min(ratios):.1f} to {max(ratios):.1f})"


def _take_turns(runs: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Seconds of each in every round, of which the first is for warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 1):
        for name, run in runs.items():
            seconds[name].append(run())
    return seconds


def _costs() -> str:
    """What the default sweep's sparse training spends beside its steps, on one thread as its workers do."""
    torch.set_num_threads(1)
    case, model = _prepared(0)
    sparse = load_config("fashion-mini").sparse
    every = sparse.evaluate_every
    recipe = replace(case.recipe, epochs=sparse.epochs, evaluate_every=every)
    watch = _Watch()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pt"
        _train(model, case.splits, recipe, 0, checkpoint=checkpoint, on_step=watch.step, on_epoch=watch.epoch)
    epochs, beside = watch.epochs[every:], watch.beside[every:]  # after as many to warm up
    measured = statistics.median(seconds for n, seconds in enumerate(beside, 1) if n % every == 0)
    return (
        f"An epoch of the default sweep ({len(case.splits.train):,} images) takes one thread "
        f"{statistics.mean(epochs):.2f} s. Evaluation of {len(case.splits.validation):,} and "
        f"{len(case.splits.test):,} images every {every} epochs, histograms and checkpoints are "
        f"{sum(beside) / sum(epochs):.1%} of it; an epoch that is measured takes {measured:.2f} s for them."
    )


def _penalties() -> str:
    """What each penalty takes of a step."""
    case, model = _prepared(0)
    gammas = list(scaling_factors(slimnet.trace(model, case.splits.example)).values())
    for gamma in gammas:
        gamma.grad = torch.zeros_like(gamma)
    splits = replace(case.splits, validation=_first(case.splits, 1), test=_first(case.splits, 1))
    steps = -(-len(splits.train) // case.recipe.batch_size)
    penalties = {name: penalise(name, gammas, case.recipe.gain) for name in get_args(PenaltyName)}
    calls = 1000

    def call(penalty: Penalty) -> None:
        for _ in range(calls):
            penalty.before_step(STRENGTH)
            penalty.after_step(STRENGTH, case.recipe.lr)

    runs: dict[str, Callable[[], object]] = {name: partial(call, some) for name, some in penalties.items()}
    runs["steps"] = lambda: _train(model, splits, case.recipe, 0)
    seconds = _take_turns({name: partial(_timed, run) for name, run in runs.items()})
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    step = medians["steps"] / steps
    shares = (f"{name} {medians[name] / calls / step:.2%}" for name in penalties)
    return f"A penalty takes of a step of {1000 * step:.1f} ms: {', '.join(shares)}."


class _Watch:
    """Times whole epochs, and what comes after their last step."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.beside: list[float] = []
        self._began = self._trained = time.perf_counter()

    def step(self, epoch: int, step: int, steps: int) -> None:
        if step == steps:
            self._trained = time.perf_counter()

    def epoch(self, history: Iterable[object]) -> None:
        now = time.perf_counter()
        self.epochs.append(now - self._began)
        self.beside.append(now - self._trained)
        self._began = now


def _accuracy(case: Case, loop: str, seed: int) -> float:
    splits = _fashion(case.splits.image_shape[1], seed)
    torch.manual_seed(seed)
    model = case.build().to(DEVICE)
    LOOPS[loop](model, splits, case.recipe, seed)
    return evaluate(model, splits, splits.test)


# ------------------------------------------------------------------------------------------------------ cases


_STEMS: tuple[tuple[Stem, int], ...] = (("cifar-maxpool", 400), ("cifar", 200))  # and images of an epoch


def _cases() -> list[Case]:
    return [
        Case(
            "the default sweep's, 126,458 parameters, 14x14",
            _default_network,
            _fashion(14, seed=0),
            Recipe(epochs=1, lr=0.1, augmentation=Augmentation(crop=1, flip=True)),
        ),
        Case(
            "ResNet [2, 2, 2], 866,474 parameters, 32x32",
            partial(slimnet.models.resnet, [2, 2, 2], 32),
            _synthetic(images=512),
            Recipe(epochs=1, lr=0.1, augmentation=Augmentation(crop=4, flip=True)),
        ),
        *(
            Case(
                f"ResNet-50, stem {stem}, 32x32",
                partial(slimnet.models.resnet50, stem=stem),
                _synthetic(images=count),
                Recipe(epochs=1, lr=0.01, batch_size=100, augmentation=Augmentation(crop=4, flip=True)),
            )
            for stem, count in _STEMS
        ),
    ]


def _accuracy_cases() -> list[Case]:
    """The same networks on images that they learn from, which have one channel."""
    small, large = _fashion(14, seed=0), _fashion(28, seed=0)
    resnet50 = partial(slimnet.models.resnet50, in_channels=1)
    wide = partial(slimnet.models.resnet, [2, 2, 2], 32, in_channels=1)
    recipe = Recipe(epochs=4, lr=0.1, augmentation=Augmentation(crop=2, flip=True))
    brief = replace(recipe, epochs=8, augmentation=Augmentation(crop=1, flip=True))
    low = replace(recipe, lr=0.01)  # at 0.1 both loops diverge
    return [
        Case(
            "the default sweep's, 14x14",
            _default_network,
            small,
            brief,
        ),
        Case("ResNet [2, 2, 2], 28x28", wide, large, recipe),
        Case("ResNet-50, stem cifar-maxpool, 28x28", partial(resnet50, stem="cifar-maxpool"), large, low),
        Case("ResNet-50, stem cifar, 28x28", partial(resnet50, stem="cifar"), large, replace(low, epochs=2)),
    ]


def _default_network() -> nn.Module:
    return slimnet.models.resnet([1, 1, 1], 16, in_channels=1)


def _fashion(image_size: int, seed: int) -> Splits:
    return split(
        load_dataset("fashion-mini", image_size=image_size), validation=0.2, seed=seed, device=DEVICE
    )


def _synthetic(images: int) -> Splits:
    """Noise of CIFAR's shape, for speed only."""
    generator = torch.Generator().manual_seed(0)
    images *= IMAGES
    x = torch.randint(256, (images, 32, 32, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
    noise = Images(x.to(DEVICE), torch.randint(10, (images,), generator=generator).to(DEVICE))
    mean, std = (torch.full((1, 3, 1, 1), value, device=DEVICE) for value in (127.5, 74.0))
    return Splits(noise, noise, noise, mean, std, num_classes=10)


def _first(splits: Splits, count: int) -> Images:
    return Images(splits.test.x[:count], splits.test.y[:count])
