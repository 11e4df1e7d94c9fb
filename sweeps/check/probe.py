"""Loads the data of a study, builds its network, and tries each step of a trial on it for a moment."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch._dynamo  # which the first optimiser would import, within what is timed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimnet.cost import count_macs, count_params
from slimnet.data import Images, Splits, train_batches
from slimnet.devices import synchronize
from slimnet.errors import SlimnetError
from slimnet.evaluation import evaluate
from slimnet.graph import ChannelGraph, ChannelGroup
from slimnet.graph.trace import trace
from slimnet.modes import evaluating
from slimnet.networks import new_network
from slimnet.precision import Precision
from slimnet.progress import ProgressLine
from slimnet.pruning import planning, surgery
from slimnet.pruning.options import NORM_SCORES
from slimnet.steps import scaling_factors
from slimnet.training.determinism import make_deterministic
from slimnet.training.loop import train
from slimnet.training.recipe import Recipe
from sweeps.check.findings import Cut, DataFacts, Findings, GroupFacts, NetworkFacts, Times
from sweeps.config import Config, ConfigError, resolve
from sweeps.config.sections import Prune
from sweeps.config.sections import Recipe as Section
from sweeps.config.space import Choices, Entry, branches, entries_of
from sweeps.data import open_splits
from sweeps.machine import look, places
from sweeps.networks import make_networks

SECONDS = 0.3  # of steps that are timed, after the first
MOST = 30  # steps that are timed
SLOW = 5.0  # seconds; a first step that takes as long is the only one
BATCH = 64  # images for scores that need some
LOOKED_AT, MOST_PIXELS = 2000, 20_000_000  # training images that are looked at for being of one colour
EVALUATED = 500  # images
SIZES = ("prune.ratio", "prune.params", "prune.macs")
"""The fields that say how much is removed."""


def probe(config: Config, data_dir: Path | None) -> Findings:
    """See `sweeps.check.examine`."""
    machine = look(config.device)
    useful, share = config.search.ahead + 1, config.executor.gpu_share
    room = places(config.workers, config.threads, machine, useful, share)
    place = room[0]
    torch.set_num_threads(place.threads)
    make_deterministic(place.device)
    parts = branches(config.search.space)
    middle = _resolved(config, {path: _middle(entry) for path, entry in parts[len(parts) // 2].items()})
    precision: Precision = machine.precision if config.precision == "auto" else config.precision

    began = time.perf_counter()
    splits = open_splits(
        middle.data,
        middle.data.path,
        data_dir,
        seed=middle.seed,
        device=place.device,
        on_progress=ProgressLine(),
    )
    notes = list(splits.notes)
    networks = make_networks(config, splits.image_shape, splits.num_classes, notes.append)
    network = _network(middle, splits).to(place.device)
    graph = trace(network, splits.example)
    penalised = middle.sparse.epochs > 0 and bool(middle.sparse.lambda_ or middle.sparse.target)
    gammas = scaling_factors(graph, streams=middle.prune.streams, needed=penalised)
    start = time.perf_counter() - began
    facts = NetworkFacts(
        name=middle.model.label,
        params=count_params(network),
        macs=count_macs(network, splits.example),
        outputs=_outputs(network, splits),
        scaling_factors=sum(gamma.numel() for gamma in gammas.values()),
        groups=tuple(_group(group, middle.prune) for group in graph.groups),
        cuts=tuple(_cuts(graph, middle, splits)),
        norm_momentum=_norm_momentum(network),
    )
    began = time.perf_counter()
    smaller = _tried(graph, middle, splits, facts.cuts)
    pruning = time.perf_counter() - began
    pruned_params = count_params(smaller)
    recipe = _recipe(middle.finetune, middle, middle.finetune.distill, middle.finetune.temperature)
    teacher = copy.deepcopy(network) if recipe.distill else None
    image = _image_seconds(network, splits, precision)
    _, pruned_step = _step_seconds(copy.deepcopy(smaller), splits, recipe, precision, {}, teacher)
    whole = _recipe(middle.sparse if middle.sparse.epochs else middle.finetune, middle)
    first, step = _step_seconds(network, splits, whole, precision, gammas)
    return Findings(
        machine=machine,
        networks=networks,
        notes=tuple(dict.fromkeys(notes)),
        workers=len(room),
        threads=place.threads,
        data=_data(config, splits),
        network=facts,
        times=Times(step, pruned_step, pruned_params, image, start + max(0.0, first - step), pruning),
    )


def _norm_momentum(network: nn.Module) -> float:
    """The smallest momentum of a BatchNorm with running statistics; 1 without one."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    return min((norm.momentum for norm in norms if norm.momentum is not None), default=1.0)


def _network(config: Config, splits: Splits) -> nn.Module:
    """The network of a trial."""
    return new_network(
        config.model.description(),
        splits.image_shape,
        splits.num_classes,
        seed=config.seed,
        folder=config.model.path,
        init=config.model.init,
    )


def _recipe(section: Section, config: Config, distill: float = 0.0, temperature: float = 4.0) -> Recipe:
    """A training of one epoch, of which only a few steps are made."""
    fields = {name: getattr(section, name) for name in Section.model_fields}
    changes = config.data.augmentation
    return Recipe(**{**fields, "epochs": 1}, augmentation=changes, distill=distill, temperature=temperature)


def _image_seconds(network: nn.Module, splits: Splits, precision: Precision) -> float:
    """How long it takes to measure the accuracy on an image."""
    images = splits.validation.first(EVALUATED)
    evaluate(network, splits, images.first(1), precision)
    began = time.perf_counter()
    evaluate(network, splits, images, precision)
    return (time.perf_counter() - began) / len(images)


def _resolved(config: Config, point: dict[str, Any]) -> Config:
    """The config at a point; as it is where the point's values do not go together."""
    try:
        return resolve(config, point)
    except ConfigError:
        return config


def _middle(entry: Entry) -> Any:
    if (values := entry.values()) is not None:
        return values[len(values) // 2]
    assert not isinstance(entry, Choices), "which have values"
    between = (entry.low * entry.high) ** 0.5 if entry.low > 0 else (entry.low + entry.high) / 2
    return round(between) if isinstance(entry.low, int) else between


def _data(config: Config, splits: Splits) -> DataFacts:
    pixels = _pixels(splits.train)
    constant = (pixels.amax(1) == pixels.amin(1)).all(1)
    train, validation, test = (
        tuple(torch.bincount(part.y.cpu(), minlength=splits.num_classes).tolist())
        for part in (splits.train, splits.validation, splits.test)
    )
    return DataFacts(
        name=str(config.data.source),
        image_shape=splits.image_shape,
        classes=splits.classes,
        train=train,
        validation=validation,
        test=test,
        looked_at=len(pixels),
        constant=int(constant.sum()),
        held_out=splits.held_out,
    )


def _pixels(images: Images) -> Tensor:
    """The pixels of images from all over a part, which may be sorted by class: (images, pixels, C)."""
    count = min(len(images), LOOKED_AT, 1 + MOST_PIXELS // images.x[0, 0].numel())
    chosen = torch.linspace(0, len(images) - 1, count).long()
    if images.rows is not None:  # in files
        chosen = images.rows[chosen]
    return images.x.permute(0, 2, 3, 1)[chosen.to(images.x.device)].flatten(1, 2)


def _outputs(network: nn.Module, splits: Splits) -> int:
    with torch.inference_mode(), evaluating(network):
        output: Tensor = network(splits.example)
    return output.shape[-1]


def _group(group: ChannelGroup, prune: Prune) -> GroupFacts:
    reason = group.blocked
    if not reason and prune.score in NORM_SCORES and not group.scales:
        reason = "no BatchNorm follows it to go by"
    if not reason and group.coupled and not prune.streams:
        reason = "its channels meet in a residual add, and prune.streams is false"
    return GroupFacts(group.name, len(group.producers), group.size, reason)


def _cuts(graph: ChannelGraph, middle: Config, splits: Splits) -> Iterator[Cut]:
    """What pruning leaves at both ends of the search space, or at the only point of it."""
    searched = [(path, entry) for path in SIZES for entry in entries_of(middle.search.space, path)]
    points = list(dict.fromkeys((path, end) for path, entry in searched for end in _ends(entry)))
    if not points:
        name = middle.prune.budget or "ratio"
        points = [(f"prune.{name}", getattr(middle.prune, name))]
    for path, end in points:
        shown = end if isinstance(end, str) else format(end, "," if isinstance(end, int) else "g")
        at = f"{path} {shown}"
        try:
            smaller = _cut(graph, _resolved(middle, {path: end}).prune, splits)
        except SlimnetError as refusal:
            yield Cut(at, None, str(refusal))
        else:
            yield Cut(at, count_params(smaller))


def _tried(graph: ChannelGraph, middle: Config, splits: Splits, cuts: Sequence[Cut]) -> nn.Module:
    """The network pruned at the middle of the space, or as it is where that is refused.

    Raises:
        SlimnetError: pruning is refused at every point, so that all trials would fail.
    """
    if all(cut.params is None for cut in cuts):
        raise SlimnetError(f"no trial could prune this network: at {cuts[0].at}, {cuts[0].refusal}")
    try:
        return _cut(graph, middle.prune, splits)
    except SlimnetError:
        return graph.model


def _ends(entry: Entry) -> list[Any]:
    """The smallest and the largest value; all where some are percentages."""
    values = entry.values()
    if values is None:
        assert not isinstance(entry, Choices), "which have values"
        return [entry.low, entry.high]
    numbers = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in numbers):
        return list(dict.fromkeys(numbers))
    return sorted({min(numbers), max(numbers)}) if numbers else []


def _cut(graph: ChannelGraph, prune: Prune, splits: Splits) -> nn.Module:
    """The network, pruned by the weights that it has now."""
    options = prune.plan_options()
    del options["absorb"], options["recalibrate"]
    batches = islice(train_batches(splits.train, splits, BATCH, seed=0, epoch=0), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # new scaling factors are all alike; only how many go counts
        plan = planning.plan(graph, **options, seed=0, batches=batches)
    return surgery.prune(graph.model, plan, absorb=False)


class _TimedEnough(Exception):  # noqa: N818 - no error: a training cannot be ended within an epoch otherwise
    pass


def _step_seconds(
    network: nn.Module,
    splits: Splits,
    recipe: Recipe,
    precision: Precision,
    gammas: Mapping[str, nn.Parameter],
    teacher: nn.Module | None = None,
) -> tuple[float, float]:
    """How long the first step of a training takes, and each further one; changes the network."""
    moments = [time.perf_counter()]

    def note(epoch: int, step: int, steps: int) -> None:
        synchronize(splits.device)
        moments.append(time.perf_counter())
        timed, count = moments[-1] - moments[1], len(moments) - 2
        if count >= MOST or timed > SECONDS or moments[1] - moments[0] > SLOW:
            raise _TimedEnough

    with suppress(_TimedEnough):
        train(
            network, splits, recipe, seed=0, gammas=gammas, teacher=teacher, precision=precision, on_step=note
        )
    first = moments[1] - moments[0]
    further = [after - before for before, after in pairwise(moments[1:])]
    return first, median(further) if further else first
