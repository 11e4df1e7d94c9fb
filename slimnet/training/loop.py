"""The training loop: one epoch after another, each followed by a checkpoint that it can go on from.

Nothing random is carried from one epoch to the next: batches are a function of (seed, epoch), the learning
rate of the step. So model, optimiser state and history are all there is to save, and a training that is
killed and resumed ends bit for bit where it would have ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimnet.checkpoint import Checkpoint
from slimnet.data import Splits, train_batch_count, train_batches
from slimnet.data.augmentation import NONE
from slimnet.errors import SlimnetError
from slimnet.evaluation import evaluate
from slimnet.precision import Precision, autocast
from slimnet.preprocessing import attach
from slimnet.seeds import derive_seed
from slimnet.training.kernels import quick_layers
from slimnet.training.losses import distillation
from slimnet.training.penalties import Penalty, histogram, near_zero, penalise
from slimnet.training.recipe import Recipe
from slimnet.training.recovery import keep, recover
from slimnet.training.replay import Pass, Replayed, can_replay
from slimnet.training.sparsity import PLAIN_L1, Sparsity
from slimnet.training.steering import steer
from slimnet.wording import first_line

Row = dict[str, Any]
OnEpoch = Callable[[list[Row]], None]
OnStep = Callable[[int, int, int], None]

logger = logging.getLogger(__name__)


class Diverged(SlimnetError):  # noqa: N818 - an outcome of training, not a mistake
    """The loss is no longer a number."""


def train(
    model: nn.Module,
    splits: Splits,
    recipe: Recipe,
    *,
    seed: int,
    gammas: Mapping[str, nn.Parameter],
    strength: float = 0.0,
    sparsity: Sparsity = PLAIN_L1,
    teacher: nn.Module | None = None,
    precision: Precision = "float32",
    compiled: bool = False,
    checkpoint: Path | None = None,
    before_save: Callable[[], None] = lambda: None,
    on_resume: OnEpoch = lambda history: None,
    on_epoch: OnEpoch = lambda history: None,
    on_step: OnStep = lambda epoch, step, steps: None,
    on_warning: Callable[[str], None] = logger.warning,
    stop: Callable[[], bool] = lambda: False,
    until: int | None = None,
) -> list[Row]:
    """Train `model` in place, going on from `checkpoint` if it is there.

    Args:
        model: on the device of `splits`; it keeps their `preprocessing`.
        splits: batches come from its train part; validation and test are what is measured.
        recipe: see `Recipe`.
        seed: of the batches.
        gammas: the prunable scaling factors, which are watched and, with `strength`, penalised.
        strength: λ; 0 trains without penalty. Not used where `sparsity` has a target.
        sparsity: the penalty, and the schedule or the target of λ.
        teacher: needed with `recipe.distill`: a network on the same device, which is put in evaluation mode.
        precision: of convolutions and products.
        compiled: train with torch.compile: faster steps after up to a minute of compiling, which pays on a
            GPU, or for long trainings; the results differ in the last bits. On a CPU without it, some layers
            are computed by quicker ways (`slimnet.training.kernels`), and
            `slimnet.training.memory.keep_memory` at the start of the process makes steps quicker still.
        checkpoint: written after every epoch; a training found there is continued, or in the checkpoint
            before it (`slimnet.training.recovery`) where this one is damaged.
        before_save: called before each checkpoint is written; what it raises ends the training.
        on_resume: called once with the history that a checkpoint holds, where the training goes on from one.
        on_epoch: called with the whole history after each epoch, once it is saved.
        on_step: called with (epoch, steps done, steps) while an epoch runs.
        on_warning: told of checkpoints that are damaged, and what follows.
        stop: asked after each epoch; True ends the call early.
        until: the epoch to end after, the schedule unfinished; None trains all of `recipe.epochs`.

    Returns:
        The history so far, a row per epoch: epoch (from 1), epochs, lr and lambda of its last step,
        loss, train_accuracy, near_zero, gamma (a histogram) and, where it was measured, val_accuracy and
        test_accuracy. Shorter than `recipe.epochs` if `stop` said so.

    Raises:
        Diverged: the loss became NaN or infinite; names the epoch, step and learning rate.
        SlimnetError: the checkpoint cannot be written, or is of another network or recipe; or `compiled` and
            torch cannot compile the network here.
    """
    if recipe.distill and teacher is None:
        raise SlimnetError(f"distill is {recipe.distill:g}, which needs a teacher")
    attach(model, splits.preprocessing)
    model.to(memory_format=torch.channels_last)
    optimizer = _optimizer(model, recipe)
    factors = list(gammas.values())
    penalised = bool(strength) or sparsity.target is not None
    penalty = penalise(sparsity.penalty, factors, recipe.gain) if penalised else Penalty(factors)
    teach = teacher.eval() if teacher is not None and recipe.distill else None
    mode = "reduce-overhead" if splits.device.type == "cuda" else "default"
    forward = torch.compile(model, dynamic=False, mode=mode) if compiled else model
    run = _Run(model, forward, splits, recipe, optimizer, penalty, sparsity, teach, precision, seed, on_step)
    quick = splits.device.type == "cpu" and not compiled
    compute: Pass = partial(_pass, run)
    if not compiled and can_replay(model, *([teach] if teach is not None else [])):
        compute = Replayed(compute, list(model.parameters()))
    history: list[Row] = []
    settings = {**asdict(recipe), **asdict(sparsity), "seed": seed, "strength": strength}
    settings |= settings.pop("augmentation")
    del settings["evaluate_every"]  # which may change on the way, as it changes no weight
    if checkpoint is not None and (saved := recover(checkpoint, on_warning)):
        history = _continue(saved, checkpoint, model, optimizer, settings, until or recipe.epochs)
        on_resume(history)
    while len(history) < (until or recipe.epochs) and not (history and stop()):
        if sparsity.target is not None:
            steps = recipe.epochs * train_batch_count(len(splits.train), recipe.batch_size)
            strength = steer(sparsity.target, history, recipe.epochs, recipe.reach(steps))
        with _explain_compiler(), quick_layers(model) if quick else nullcontext():
            row = _train_epoch(run, compute, len(history) + 1, strength)
        if recipe.measures(row["epoch"]):
            row["val_accuracy"] = evaluate(model, splits, splits.validation, precision)
            row["test_accuracy"] = evaluate(model, splits, splits.test, precision)
        if factors:
            row["near_zero"] = near_zero(factors)
            row["gamma"] = histogram(factors)
        history.append(row)
        if checkpoint is not None:
            before_save()
            training = {"optimizer": optimizer.state_dict(), "history": history, "settings": settings}
            keep(checkpoint, model, training)
        on_epoch(history)
    return history


@dataclass(frozen=True)
class _Run:
    """What stays the same from the first epoch of a training to its last."""

    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    splits: Splits
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    penalty: Penalty
    sparsity: Sparsity
    teacher: nn.Module | None
    precision: Precision
    seed: int
    on_step: OnStep


@contextmanager
def _explain_compiler() -> Iterator[None]:
    """Say what to do where torch.compile finds no compiler, or a network that it cannot compile."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            reason = first_line(error)
            raise SlimnetError(
                f"torch.compile does not work here: {reason}. It needs a C++ compiler (g++ or clang) and a "
                f"network that it can follow; or train without compile"
            ) from error
        raise


def _train_epoch(run: _Run, compute: Pass, epoch: int, strength: float) -> Row:
    """One pass over the training images, λ at most `strength`; nothing waits for the device until the end."""
    model, splits, recipe, optimizer, penalty = run.model, run.splits, run.recipe, run.optimizer, run.penalty
    torch.manual_seed(derive_seed(run.seed, "epoch", str(epoch)))  # of dropout and the like
    model.train()
    device = splits.device
    steps = train_batch_count(len(splits.train), recipe.batch_size)
    batches = train_batches(
        splits.train,
        splits,
        recipe.batch_size,
        seed=run.seed,
        epoch=epoch,
        augmentation=recipe.augmentation,
    )
    losses: list[Tensor] = []
    sizes: list[int] = []
    correct = torch.zeros((), dtype=torch.int64, device=device)
    lr, applied = recipe.lr, strength
    for step, (x, y) in enumerate(batches):
        progress = (epoch - 1 + step / steps) / recipe.epochs
        lr, applied = recipe.lr_at(progress), strength * run.sparsity.fraction_at(progress)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        loss, logits = compute(x, y)
        penalty.before_step(applied)
        optimizer.step()
        penalty.after_step(applied, lr)
        losses.append(loss)
        sizes.append(len(y))
        labels = y if y.dim() == 1 else y.argmax(1)  # mixed images count as the one that they are most of
        correct += (logits.argmax(1) == labels).sum()
        run.on_step(epoch, step + 1, steps)
    per_step = torch.stack(losses).cpu().double()  # Apple's GPUs have no float64
    _check_finite(per_step, recipe, epoch, steps)
    weights = torch.tensor(sizes, dtype=torch.float64)
    return {
        "epoch": epoch,
        "epochs": recipe.epochs,
        "lr": lr,
        "lambda": applied,
        "loss": float(per_step @ weights / weights.sum()),
        "train_accuracy": float(correct) / sum(sizes),
    }


def _pass(run: _Run, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    with autocast(x.device, run.precision):
        logits = run.forward(x).float()
    loss = _loss(run, x, logits, y)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), logits.detach()


def _loss(run: _Run, x: Tensor, logits: Tensor, y: Tensor) -> Tensor:
    loss = F.cross_entropy(logits, y)
    if run.teacher is None:
        return loss
    with torch.no_grad(), autocast(x.device, run.precision):
        taught = run.teacher(x).float()
    return torch.lerp(loss, distillation(logits, taught, run.recipe.temperature), run.recipe.distill)


def _check_finite(losses: Tensor, recipe: Recipe, epoch: int, steps: int) -> None:
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad) == 0:
        return
    step = int(bad[0])
    lr = recipe.lr_at((epoch - 1 + step / steps) / recipe.epochs)
    raise Diverged(
        f"the loss became {float(losses[step])} in epoch {epoch}, step {step + 1} of {steps}, at a learning "
        f"rate of {lr:.3g}; a lower lr would do"
    )


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser, with weight decay on conv and linear weights only."""
    norms = {id(p) for m in model.modules() if isinstance(m, _BatchNorm) for p in m.parameters()}
    decayed = [p for p in model.parameters() if p.dim() > 1 and id(p) not in norms]
    others = [p for p in model.parameters() if p.dim() <= 1 or id(p) in norms]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    match recipe.optimizer:
        case "sgd":
            nesterov = recipe.momentum > 0
            return torch.optim.SGD(groups, recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=True)
        case "adam":
            return torch.optim.Adam(groups, recipe.lr, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, recipe.lr, fused=True)


def _continue(
    saved: Checkpoint,
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: dict[str, Any],
    wanted: int,
) -> list[Row]:
    """Put model and optimiser where `saved`, of `path`, left them; returns the history up to there.

    Of a training that has all `wanted` epochs the optimiser may be missing.
    """
    history: list[Row] = saved.training.get("history", [])
    try:
        model.load_state_dict(saved.state)
    except RuntimeError as error:
        raise SlimnetError(f"{path} is of another network; delete it to start again") from error
    if len(history) >= wanted:
        return history
    if "optimizer" not in saved.training:
        raise SlimnetError(f"{path} holds no training to continue; delete it to start again")
    for name, value in settings.items():
        found = saved.training["settings"].get(name, getattr(NONE, name, None))
        if found != value:
            raise SlimnetError(
                f"{path} was trained with {name} {found}, not {value}; delete it to start again"
            )
    optimizer.load_state_dict(saved.training["optimizer"])
    return history
