"""Small networks from a dense one against their control: uniform networks of the same size.

    python -m benchmarks.answer run TASK METHOD [METHOD ...] [--seeds 0 1 2] [--widths 2 3 4 5 6 8]
    python -m benchmarks.answer table TASK [METHOD ...] [--control METHOD]

TASK is fashion-mini (pooled to 14x14) or the path of an npz (see `slimnet.data.load_dataset`). METHOD is a
name of `METHODS`, with changes to its fields after it: "slimmed,layer_floor=0.7,batch_size=64". A width
stands for a budget: the parameters of the network that is so wide throughout. Each result is a line of
`--rows`; what is there is not trained again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import slimnet
from slimnet.data import Source, Splits, load_dataset, split, train_batch_count, train_batches
from slimnet.data.augmentation import Augmentation
from slimnet.evaluation import measure
from slimnet.models.blocks import Bottleneck
from slimnet.models.residual import ResNet
from slimnet.precision import native_precision
from slimnet.pruning.calibrate import recalibrate_on
from slimnet.pruning.options import Score
from slimnet.pruning.planning import scaling_factors
from slimnet.training.loop import train
from slimnet.training.memory import keep_memory
from slimnet.training.recipe import Recipe
from slimnet.training.sparsity import Sparsity

BLOCKS, DENSE_WIDTH, PLANES = [1, 1, 1], 16, 2.0
WIDTHS = (2, 3, 4, 5, 6, 8)
STEPS = 800  # of a whole training in batches of 128: 25 epochs of fashion-mini
BATCHES = 20  # for new BatchNorm statistics after pruning
ROWS = Path("runs/answer/rows.jsonl")
Row = dict[str, Any]


# ---------------------------------------------------------------------------------------------------- methods


@dataclass(frozen=True)
class Method:
    """How a network of a given size is found and trained.

    Attributes:
        share: of all epochs, for training the dense network sparse; 0 for a network that comes from no other.
        target: the fraction of scaling factors wanted near zero (see `Sparsity`); None for `strength`.
        strength: λ.
        score, layer_floor, cost_power: of `slimnet.plan`, the cost being parameters.
        weights: of the smaller network: "new", "kept", or "rewound" to those after `rewind` of the epochs.
        rewind: the share of all epochs after which weights are set aside.
        joined: one one-cycle from the first sparse epoch to the last, instead of one before and one after.
        extra: the sparse epochs come on top: the smaller network is trained as long as the control.
        stretch: this many times as many epochs in all.
        planes, expansion: of a network that comes from no other: the factor from one stage's planes to the
            next, and how much wider a block ends. 2 and 4 are the uniform control.
        lr, weight_decay, distill: of the final training; the teacher is the network that was cut, or for one
            that comes from no other the dense network, trained like the control.
        smoothing: of the labels, in the final training.
        average: the share of its last epochs whose weights are averaged in the end, with new statistics.
        batch_size: of every training.
    """

    share: float = 0.0
    target: float | None = None
    strength: float = 0.0
    score: Score = "gamma"
    layer_floor: float = 0.0
    cost_power: float = 0.0
    weights: Literal["new", "kept", "rewound"] = "new"
    rewind: float = 0.0
    joined: bool = False
    extra: bool = False
    stretch: float = 1.0
    planes: float = PLANES
    expansion: float = Bottleneck.EXPANSION
    lr: float = 0.1
    batch_size: int = 128
    weight_decay: float = 5e-4
    distill: float = 0.0
    smoothing: float = 0.0
    average: float = 0.0


METHODS = {
    "uniform": Method(),
    "slimmed": Method(share=0.12, target=0.7, layer_floor=0.5, cost_power=0.5),
    "global": Method(share=0.2, strength=0.03),
    "kept": Method(share=0.48, score="lamp", layer_floor=0.8, weights="kept", batch_size=32),
}


def parse(text: str) -> Method:
    """A name of `METHODS` and the fields that differ: "slimmed,layer_floor=0.7"."""
    name, *changes = text.split(",")
    kinds = {field.name: str(field.type) for field in fields(Method)}
    values: dict[str, Any] = {}
    for change in changes:
        key, _, value = change.partition("=")
        values[key] = json.loads(value) if kinds[key] in ("int", "float", "bool", "float | None") else value
    return replace(METHODS[name], **values)


# ------------------------------------------------------------------------------------------------------- task


@dataclass(frozen=True, eq=False)
class Task:
    """A split data set, how it is augmented, and how long a training is."""

    name: str
    splits: Splits
    seed: int

    @property
    def epochs(self) -> int:
        """Of the control: `STEPS` batches of 128, so that a small set is seen more often."""
        return round(STEPS / train_batch_count(len(self.splits.train), 128))

    def recipe(self, method: Method, **changes: Any) -> Recipe:
        """Of the control, and of the method's final training."""
        crop = self.splits.image_shape[1] // 8
        given: dict[str, Any] = {
            "epochs": self.epochs,
            "lr": method.lr,
            "weight_decay": method.weight_decay,
            "batch_size": method.batch_size,
            **changes,
        }
        return Recipe(**given, augmentation=Augmentation(crop=crop, flip=True), evaluate_every=10**6)

    def network(self, widths: Sequence[int] | None = None, width: int = DENSE_WIDTH) -> nn.Module:
        """A new network with weights drawn by the seed."""
        torch.manual_seed(self.seed)
        channels, classes = self.splits.image_shape[0], self.splits.num_classes
        return slimnet.models.resnet(BLOCKS, width, widths=widths, in_channels=channels, num_classes=classes)

    def budget(self, width: int) -> int:
        """The parameters of the uniform network."""
        return slimnet.count_params(self.network(width=width))


def open_task(name: str, seed: int) -> Task:
    """A data set by name or path, split by the seed."""
    path = Path(name)
    own = path.suffix == ".npz"
    dataset = load_dataset(Source("npz", path) if own else name, image_size=None if own else 14)
    return Task(path.stem, split(dataset, validation=0.2, seed=seed), seed)


@dataclass(frozen=True)
class Part(Recipe):
    """A training whose learning rate is that of a longer one from the share `begin` to the share `end`."""

    begin: float = 0.0
    end: float = 1.0

    def lr_at(self, progress: float) -> float:
        """As `Recipe.lr_at`, of the whole training."""
        return super().lr_at(self.begin + progress * (self.end - self.begin))


# --------------------------------------------------------------------------------------------------- training


def cached(
    folder: Path, what: dict[str, Any], model: nn.Module, make: Callable[[nn.Module], Any]
) -> nn.Module:
    """`model` after `make`, which trains it in place, or as it was saved after that."""
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{key}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    make(model)
    folder.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{time.time_ns()}")
    torch.save(model.state_dict(), scratch)
    scratch.rename(path)
    return model


class Undecided(nn.Module):
    """A teacher to whom all classes are alike; to learn from it at temperature 1 is label smoothing."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), self.classes)


def finish(
    task: Task, model: nn.Module, recipe: Recipe, teacher: nn.Module | None = None, average: float = 0.0
) -> None:
    """Train to the end without penalty."""
    last = recipe.epochs - round(average * recipe.epochs)
    averaged = AveragedModel(model) if last < recipe.epochs else None

    def on_epoch(history: list[Row]) -> None:
        if averaged is not None and len(history) > last:
            averaged.update_parameters(model)

    train(
        model,
        task.splits,
        recipe,
        seed=task.seed + 1000,
        gammas={},
        teacher=teacher,
        precision=native_precision("cpu"),
        on_epoch=on_epoch,
    )
    if averaged is not None:
        model.load_state_dict(averaged.module.state_dict())
        recalibrate_on(model, task.splits, BATCHES, seed=task.seed + 1000)


def teacher(task: Task, method: Method, folder: Path) -> nn.Module:
    """What the smaller network learns from besides the labels."""
    if method.smoothing:
        return Undecided(task.splits.num_classes)
    if method.share:
        return sparse(task, method, folder).eval()
    recipe = task.recipe(Method())
    what = {"task": task.name, "seed": task.seed, "dense": asdict(recipe)}
    return cached(folder, what, task.network(), lambda model: finish(task, model, recipe)).eval()


def sparse(task: Task, method: Method, folder: Path, until: float = 1.0) -> nn.Module:
    """The dense network after its sparse epochs, or after the share `until` of all; one for all budgets."""
    epochs = round(task.epochs * method.share)
    last = min(epochs, round(task.epochs * until))
    recipe = task.recipe(Method(batch_size=method.batch_size), epochs=epochs)
    if method.joined:
        recipe = Part(**vars(recipe), end=method.share)
    sparsity = Sparsity(target=method.target)
    what = {"task": task.name, "seed": task.seed, **asdict(recipe), **asdict(sparsity)}
    what |= {"strength": method.strength, "last": last}
    done: list[int] = []

    def make(model: nn.Module) -> None:
        train(
            model,
            task.splits,
            recipe,
            seed=task.seed,
            gammas=scaling_factors(slimnet.trace(model, task.splits.example), streams=True),
            strength=method.strength,
            sparsity=sparsity,
            precision=native_precision("cpu"),
            on_epoch=lambda history: done.append(len(history)),
            stop=lambda: len(done) >= last,
        )

    return cached(folder, what, task.network(), make)


def cut(task: Task, method: Method, budget: int, folder: Path) -> nn.Module:
    """The smaller network before its final training."""
    model = sparse(task, method, folder)
    plan = slimnet.plan(
        slimnet.trace(model, task.splits.example),
        params=budget,
        score=method.score,
        streams=True,
        min_channels=1,
        layer_floor=method.layer_floor,
        cost_aware="params",
        cost_power=method.cost_power,
        batches=islice(
            train_batches(task.splits.train, task.splits, method.batch_size, seed=task.seed, epoch=0), BATCHES
        ),
    )
    if method.weights == "rewound":
        early = sparse(task, method, folder, until=method.rewind)
        return slimnet.prune(early, replace(plan, graph=slimnet.trace(early, task.splits.example)))
    smaller = slimnet.prune(model, plan)
    if method.weights == "new":
        assert isinstance(smaller, ResNet)
        return task.network(smaller.widths)
    recalibrate_on(smaller, task.splits, BATCHES, seed=task.seed + 1000)
    return smaller


def shaped(task: Task, method: Method, budget: int) -> nn.Module:
    """The largest network within the budget whose stages have the method's shape."""
    best = None
    for tenths in range(10, 10 * DENSE_WIDTH):
        widths = [round(tenths / 10)]
        for stage in range(len(BLOCKS)):
            planes = tenths / 10 * method.planes**stage
            widths += [round(planes), round(planes), round(planes * method.expansion)]
        model = task.network(widths)
        if slimnet.count_params(model) <= budget:
            best = model
    assert best is not None
    return best


def result(task: Task, method: Method, width: int, folder: Path) -> Row:
    """Find and train one network, and measure it."""
    began = time.perf_counter()
    if method.share:
        model = cut(task, method, task.budget(width), folder)
    elif (method.planes, method.expansion) == (PLANES, Bottleneck.EXPANSION):
        model = task.network(width=width)
    else:
        model = shaped(task, method, task.budget(width))
    spent = round(task.epochs * method.share)
    left = round(task.epochs * method.stretch) - (0 if method.extra else spent)
    recipe = task.recipe(method, epochs=left, distill=method.distill)
    if method.smoothing:
        recipe = replace(recipe, distill=method.smoothing, temperature=1.0)
    if method.joined:
        begin = method.rewind if method.weights == "rewound" else method.share
        recipe = Part(**vars(recipe), begin=begin)
    finish(task, model, recipe, teacher(task, method, folder) if recipe.distill else None, method.average)
    found = measure(model.eval(), task.splits)
    return {
        "task": task.name,
        "method": asdict(method),
        "width": width,
        "seed": task.seed,
        "widths": model.widths,
        "params": found["params"],
        "macs": found["macs"],
        "epochs": left,
        "sparse_epochs": spent,
        "val": found["val_accuracy"],
        "test": found["test_accuracy"],
        "images": [len(task.splits.validation), len(task.splits.test)],
        "seconds": round(time.perf_counter() - began, 1),
    }


# ------------------------------------------------------------------------------------------------------- rows


def read(path: Path) -> list[Row]:
    """All results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def identity(row: Row) -> str:
    """What makes two results the same; fields that a later version added have their defaults."""
    method = {**asdict(Method()), **row["method"]}
    return json.dumps([row["task"], method, row["width"], row["seed"]], sort_keys=True)


def run(name: str, methods: Sequence[str], seeds: Iterable[int], widths: Sequence[int], path: Path) -> None:
    """Train what is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        task = open_task(name, seed)
        for text in methods:
            for width in widths:
                row = {"task": task.name, "method": asdict(parse(text)), "width": width, "seed": seed}
                if identity(row) in map(identity, read(path)):
                    continue
                row = result(task, parse(text), width, path.parent / "networks")
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                size = f"{row['params']:,} parameters, {row['macs']:,} MACs"
                print(f"{task.name} {text} seed {seed}: {size}, {accuracies([row])}", flush=True)


def spread(values: Sequence[float]) -> str:
    """Mean and standard error, in percent."""
    error = f" ± {100 * statistics.stdev(values) / math.sqrt(len(values)):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{error}"


def accuracies(rows: Sequence[Row]) -> str:
    """Validation / test."""
    return " / ".join(spread([row[part] for row in rows]) for part in ("val", "test"))


def pooled(row: Row) -> float:
    """The accuracy over validation and test images together."""
    validation, test = row["images"]
    return float((row["val"] * validation + row["test"] * test) / (validation + test))


def title(method: dict[str, Any]) -> str:
    """What distinguishes a method from the plain control."""
    plain = asdict(Method())
    changes = [f"{key} {method[key]}" for key in plain if method.get(key, plain[key]) != plain[key]]
    return ", ".join(changes) or "uniform"


def table(name: str, methods: Sequence[str], widths: Sequence[int], control: str, path: Path) -> None:
    """Print a row for each method and budget, with the gain over the control where a seed has both.

    The gain is that of the accuracy over validation and test images together.
    """
    task = Path(name).stem
    found = {identity(row): row for row in read(path) if row["task"] == task}.values()
    names = [title_of(text) for text in methods]
    names = names or list(dict.fromkeys(title(row["method"]) for row in found))
    base = {(row["width"], row["seed"]): row for row in found if title(row["method"]) == title_of(control)}
    print("| method | parameters | MACs | seeds | validation / test | gain |\n|---|---|---|---|---|---|")
    for width in widths:
        for method in names:
            rows = [row for row in found if (row["width"], title(row["method"])) == (width, method)]
            if not rows:
                continue
            size, macs = (statistics.mean(row[key] for row in rows) for key in ("params", "macs"))
            paired = [(row, base[width, row["seed"]]) for row in rows if (width, row["seed"]) in base]
            gains = [pooled(ours) - pooled(theirs) for ours, theirs in paired]
            gain = spread(gains) if gains and method != title_of(control) else "–"
            cells = [method, f"{size:,.0f}", f"{macs / 1000:,.0f} k", str(len(rows)), accuracies(rows), gain]
            print("| " + " | ".join(cells) + " |")


def title_of(text: str) -> str:
    """The title of a method given as on the command line."""
    return title(asdict(parse(text)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answer", description=__doc__)
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("task")
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--control", default="uniform", help="what gains are over")
    parser.add_argument("--rows", type=Path, default=ROWS)
    given = parser.parse_args()
    if given.command == "table":
        table(given.task, given.methods, given.widths, given.control, given.rows)
        return
    keep_memory()
    run(given.task, given.methods, given.seeds, given.widths, given.rows)


if __name__ == "__main__":
    main()
