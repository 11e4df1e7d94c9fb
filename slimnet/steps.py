"""The steps of an experiment, for the command line and for sweeps: sparse training, pruning, fine-tuning.

Every random draw follows from the seed and the name of the step, so both get the same numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from slimnet.cost import count_macs, count_params
from slimnet.data import Splits, train_batches
from slimnet.data.augmentation import NONE, Augmentation
from slimnet.errors import SlimnetError
from slimnet.evaluation import evaluate, measure
from slimnet.graph import ChannelGraph
from slimnet.graph.trace import trace
from slimnet.networks import redraw
from slimnet.precision import Precision
from slimnet.preprocessing import attach
from slimnet.pruning import planning, surgery
from slimnet.pruning.calibrate import recalibrate_on
from slimnet.pruning.options import CURVE_BATCHES, CURVE_RATIOS, PlanOptions, RankingOptions
from slimnet.pruning.plan import PruningPlan
from slimnet.pruning.weight_scores import Batch
from slimnet.seeds import derive_seed
from slimnet.training.loop import OnEpoch, OnStep, Row, train
from slimnet.training.penalties import histogram, near_zero
from slimnet.training.recipe import Recipe, Weights
from slimnet.training.sparsity import PLAIN_L1, Sparsity

SCORE_BATCHES = 10  # of training images, for score "taylor"
TARGET_TOLERANCE = 0.05  # by which the fraction near zero may miss its target without a warning

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A network that was trained to its last epoch.

    Attributes:
        model: the network that was given, trained in place; with fresh weights another of its widths.
        metrics: size, accuracies, loss and the fraction of scaling factors near zero, in primitives.
        history: a row per epoch, as `slimnet.training.loop.train` returns it.
    """

    model: nn.Module
    metrics: dict[str, Any]
    history: list[Row]


@dataclass(frozen=True)
class Pruned:
    """A network that was made smaller.

    Attributes:
        model: the smaller network; the one that was given is left as it was.
        plan: which channels it keeps.
        metrics: size, accuracies, and what the plan removed, in primitives.
    """

    model: nn.Module
    plan: PruningPlan
    metrics: dict[str, Any]


def narrow(
    model: nn.Module, splits: Splits, *, params: int, seed: int, weights: Weights = "fresh"
) -> nn.Module:
    """A uniformly narrower network: the control that pruning has to beat.

    Every group of channels that can be pruned, residual streams too, loses the same fraction of its channels.

    Args:
        model: whose widths are cut; left as it was.
        splits: whose images it takes.
        params: the most parameters that the narrower network may have.
        seed: of the experiment.
        weights: "fresh" draws new weights; "pruned" keeps those of the channels that have the largest filters
            (score "l1"), with the constants of the others absorbed, for a network that was trained.

    Raises:
        SlimnetError: as `slimnet.plan` with a budget, and as `redraw`.
    """
    place = next(model.parameters()).device  # on the CPU a seed draws the same weights on every machine
    graph = trace(model, torch.zeros_like(splits.example, device=place))
    chosen = planning.plan(
        graph, params=params, score="l1", threshold_over="layer", min_channels=1, streams=True
    )
    if weights == "fresh":
        return redraw(surgery.prune(model, chosen, absorb=False), seed=seed)
    return surgery.prune(model, chosen)


def sparse_train(
    model: nn.Module,
    splits: Splits,
    recipe: Recipe,
    *,
    seed: int,
    strength: float = 0.0,
    sparsity: Sparsity = PLAIN_L1,
    streams: bool = False,
    precision: Precision = "float32",
    compiled: bool = False,
    pass_number: int = 1,
    checkpoint: Path | None = None,
    before_save: Callable[[], None] = lambda: None,
    on_resume: OnEpoch = lambda history: None,
    on_epoch: OnEpoch = lambda history: None,
    on_step: OnStep = lambda epoch, step, steps: None,
    on_warning: Callable[[str], None] = logger.warning,
    stop: Callable[[], bool] = lambda: False,
    until: int | None = None,
) -> Trained | None:
    """Train a network while a penalty drives its scaling factors to zero.

    Args:
        model: trained in place; on the device of `splits`.
        splits: what it is trained and measured on.
        recipe: how it is trained; with 0 epochs it is only measured.
        seed: of the experiment.
        strength: λ; 0 trains densely. Not used where `sparsity` has a target.
        sparsity: the penalty, and the schedule or the target of λ.
        streams: penalise the residual streams too.
        precision: of convolutions and products.
        compiled: train with torch.compile.
        pass_number: of an experiment that takes its steps several times; each pass sees other batches.
        checkpoint: written after every epoch, and continued from where it is there.
        before_save: called before each checkpoint is written; what it raises ends the training.
        on_resume: called once with the history that a checkpoint holds.
        on_epoch: called with the history after each epoch.
        on_step: called with (epoch, steps done, steps).
        on_warning: told of damaged checkpoints, and of a target that was missed.
        stop: asked after each epoch; True ends the training early.
        until: the epoch to end after, the schedule unfinished: for weights of an early epoch.

    Returns:
        None if stopped before the last epoch. The metrics are params, macs, val_accuracy, test_accuracy,
        near_zero, gamma_layers (a histogram of |γ| for each layer) and, of the last epoch, loss and
        train_accuracy.

    Raises:
        SlimnetError: as `slimnet.training.loop.train`, or the network has nothing to penalise.
    """
    penalised = bool(strength) or sparsity.target is not None
    gammas = scaling_factors(trace(model, splits.example), streams=streams, needed=penalised)
    history = train(
        model,
        splits,
        recipe,
        seed=_seed(seed, "sparse", "batches", pass_number),
        gammas=gammas,
        strength=strength,
        sparsity=sparsity,
        precision=precision,
        compiled=compiled,
        checkpoint=checkpoint,
        before_save=before_save,
        on_resume=on_resume,
        on_epoch=on_epoch,
        on_step=on_step,
        on_warning=on_warning,
        stop=stop,
        until=until,
    )
    if len(history) < (until or recipe.epochs):
        return None
    metrics = _metrics(model, splits, history, gammas)
    finished, target = until is None, sparsity.target
    missed = finished and target is not None and abs(metrics["near_zero"] - target) > TARGET_TOLERANCE
    if missed:
        on_warning(
            f"{metrics['near_zero']:.0%} of the scaling factors ended near zero, where the target is "
            f"{sparsity.target:.0%}"
        )
    metrics["gamma_layers"] = {name: histogram([gamma]) for name, gamma in gammas.items()}
    return Trained(model, metrics, history)


def prune(
    model: nn.Module,
    splits: Splits,
    *,
    seed: int,
    absorb: bool = True,
    recalibrate: int = 0,
    batch_size: int = Recipe.batch_size,
    augmentation: Augmentation = NONE,
    pass_number: int = 1,
    shuffled: bool = False,
    weights_of: nn.Module | None = None,
    **options: Unpack[PlanOptions],
) -> Pruned:
    """Remove the channels that are worth least and repair the statistics; nothing is trained.

    Args:
        model: left as it was; on the device of `splits`.
        splits: what BatchNorm is recalibrated on, and the smaller network measured.
        seed: of the experiment.
        absorb: move the constants that removed channels still emit into what reads them.
        recalibrate: training batches for new BatchNorm statistics; 0 keeps the old ones.
        batch_size, augmentation: of these batches.
        pass_number: as in `sparse_train`.
        shuffled: keep random channels instead, as many in each layer: a control.
        weights_of: cut this network instead, by the scores of `model`: the same network at an early epoch
            (Frankle et al. 2019, arXiv 1903.01611).
        options: of `slimnet.plan`; one of ratio, params, macs and latency_ms is needed.

    Returns:
        The metrics are params, macs, val_accuracy, test_accuracy, threshold, kept and prunable (channels),
        widths (None for a network that has no such list), and layers: the output channels [before, after]
        of every layer that produces channels, by name.

    Raises:
        SlimnetError: as `slimnet.trace` and `slimnet.plan`.
    """
    batches = _score_batches(splits, batch_size, seed, pass_number)
    plan = planning.plan(trace(model, splits.example), **options, seed=seed, batches=batches)
    if shuffled:
        plan = plan.shuffled(derive_seed(seed, "prune", "shuffle"))
    smaller = surgery.prune(weights_of or model, plan, absorb=absorb)
    attach(smaller, splits.preprocessing)
    batches_seed = _seed(seed, "prune", "recalibrate", pass_number)
    recalibrate_on(
        smaller, splits, recalibrate, seed=batches_seed, batch_size=batch_size, augmentation=augmentation
    )
    metrics = {
        **measure(smaller, splits),
        "threshold": plan.threshold,
        "kept": plan.prunable_channels - plan.removed_channels,
        "prunable": plan.prunable_channels,
        "widths": getattr(smaller, "widths", None),
        "layers": {name: [before, after] for name, before, after in plan.table()},
    }
    return Pruned(smaller, plan, metrics)


def _score_batches(splits: Splits, batch_size: int, seed: int, pass_number: int) -> Iterator[Batch]:
    """The batches that score "taylor" is computed from; nothing is loaded for another score."""
    batches_seed = _seed(seed, "prune", "scores", pass_number)
    yield from islice(
        train_batches(splits.train, splits, batch_size, seed=batches_seed, epoch=0), SCORE_BATCHES
    )


def prune_curve(
    model: nn.Module,
    splits: Splits,
    *,
    ratios: Sequence[float] = CURVE_RATIOS,
    seed: int,
    recalibrate: int = CURVE_BATCHES,
    batch_size: int = Recipe.batch_size,
    augmentation: Augmentation = NONE,
    pass_number: int = 1,
    **options: Unpack[RankingOptions],
) -> list[dict[str, Any]]:
    """How accurate a network is right after pruning, over the ratio; nothing is trained.

    Args:
        ratios: of channels removed. Where `min_channels` leaves less to remove, that is removed.
        model, splits, seed, recalibrate, batch_size, augmentation, pass_number: as in `prune`.
        options: of `slimnet.plan`, without its targets.

    Returns:
        A row per ratio: ratio, params and macs of the smaller network, and its validation accuracy with the
        weights copied alone (copied), with the constants of removed channels absorbed as well (absorbed),
        and with new BatchNorm statistics besides (recalibrated), which is what `prune` with the same
        arguments leaves.

    Raises:
        SlimnetError: as `prune`.
    """
    graph = trace(model, splits.example)
    batches_seed = _seed(seed, "prune", "recalibrate", pass_number)

    def accuracy(network: nn.Module) -> float:
        return evaluate(network, splits, splits.validation)

    rows = []
    for ratio in ratios:
        batches = _score_batches(splits, batch_size, seed, pass_number)
        plan = planning.plan(graph, ratio=ratio, **options, seed=seed, batches=batches)
        smaller = surgery.prune(model, plan, absorb=True)
        row = {
            "ratio": ratio,
            "params": count_params(smaller),
            "macs": count_macs(smaller, splits.example),
            "copied": accuracy(surgery.prune(model, plan, absorb=False)),
            "absorbed": accuracy(smaller),
        }
        recalibrate_on(
            smaller, splits, recalibrate, seed=batches_seed, batch_size=batch_size, augmentation=augmentation
        )
        rows.append({**row, "recalibrated": accuracy(smaller)})
    return rows


def finetune(
    model: nn.Module,
    splits: Splits,
    recipe: Recipe,
    *,
    seed: int,
    weights: Weights = "pruned",
    teacher: nn.Module | None = None,
    precision: Precision = "float32",
    compiled: bool = False,
    pass_number: int = 1,
    checkpoint: Path | None = None,
    before_save: Callable[[], None] = lambda: None,
    on_resume: OnEpoch = lambda history: None,
    on_epoch: OnEpoch = lambda history: None,
    on_step: OnStep = lambda epoch, step, steps: None,
    on_warning: Callable[[str], None] = logger.warning,
    stop: Callable[[], bool] = lambda: False,
) -> Trained | None:
    """Train a pruned network, without penalty.

    Args:
        weights: "pruned" goes on from the network's own; "fresh" keeps its widths and draws new weights.
        teacher: needed with `recipe.distill`: the network to learn from, on the same device.
        model, splits, recipe, seed, precision, compiled, pass_number, checkpoint: as in `sparse_train`.
        before_save, on_resume, on_epoch, on_step, on_warning, stop: as in `sparse_train`.

    Returns:
        None if stopped before the last epoch. The metrics are params, macs, val_accuracy, test_accuracy,
        loss, train_accuracy and near_zero.

    Raises:
        SlimnetError: as `sparse_train`.
    """
    if weights == "fresh":
        model = redraw(model, seed=_seed(seed, "finetune", "weights", pass_number))
    gammas = scaling_factors(trace(model, splits.example))
    history = train(
        model,
        splits,
        recipe,
        seed=_seed(seed, "finetune", "batches", pass_number),
        gammas=gammas,
        teacher=teacher,
        precision=precision,
        compiled=compiled,
        checkpoint=checkpoint,
        before_save=before_save,
        on_resume=on_resume,
        on_epoch=on_epoch,
        on_step=on_step,
        on_warning=on_warning,
        stop=stop,
    )
    if len(history) < recipe.epochs:
        return None
    return Trained(model, _metrics(model, splits, history, gammas), history)


def _seed(seed: int, step: str, purpose: str, pass_number: int) -> int:
    """The seed of a purpose in a step; the first pass has the names of an experiment without passes."""
    later = [str(pass_number)] if pass_number > 1 else []
    return derive_seed(seed, step, purpose, *later)


def scaling_factors(
    graph: ChannelGraph, *, streams: bool = False, needed: bool = False
) -> dict[str, nn.Parameter]:
    """The scaling factors that are penalised or watched, by layer; empty for a network without BatchNorm.

    Args:
        graph: of the network.
        streams: those of residual streams too.
        needed: whether there is a penalty, which needs some.

    Raises:
        SlimnetError: they are needed, and there are none.
    """
    if any(group.scales and not group.blocked and (streams or not group.coupled) for group in graph.groups):
        return planning.scaling_factors(graph, streams=streams)
    if needed and any(group.scales and not group.blocked for group in graph.groups):
        raise SlimnetError(
            "all scaling factors of this network are of residual streams, where channels meet in adds; turn "
            "on streams (prune.streams or --streams) to train and prune them, or train without a penalty "
            "(sparse.lambda 0 and no target, or --lambda 0)"
        )
    if needed:
        raise SlimnetError(
            "the network has no BatchNorm whose scaling factors could be trained sparse; train it without a "
            "penalty (sparse.lambda 0 and no target, or --lambda 0) and prune it by its weights (score l1)"
        )
    return {}


def _metrics(
    model: nn.Module, splits: Splits, history: list[Row], gammas: dict[str, nn.Parameter]
) -> dict[str, Any]:
    """Size and accuracy of a trained network, with the last epoch's loss."""
    return {
        **measure(model, splits),
        **{name: history[-1][name] for name in ("loss", "train_accuracy") if history},
        "near_zero": near_zero(list(gammas.values())),
    }
