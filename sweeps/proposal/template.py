"""The text of a proposed config, with a comment wherever somebody may want to change something."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from slimnet.defaults import RECALIBRATE
from slimnet.wording import duration
from sweeps.config.yaml_source import parse_value

if TYPE_CHECKING:
    from sweeps.proposal.choices import Proposal

COMMENT_AT = 25  # column at which comments begin
TRIALS = 10


def render(proposal: Proposal) -> str:
    """The text of the config; `load_config` reads it."""
    p = proposal
    lines = [
        f"# A sweep over {p.about}.",
        f"# About {duration(p.seconds)} on the machine where it was written ({p.machine}).",
        "# Every key can be overridden: --set prune.layer_floor=0.5",
        "",
        f"study: {_text(p.given.study)}",
        "seed: 0",
        "",
        "data:",
        *_data(p),
        "",
        "model:",
        *_model(p),
        "",
        _noted("sparse:", "the network before the cut; one run serves every size"),
        _noted(f"  epochs: {p.epochs}", "more is better, as far as you can wait"),
        f"  lr: {p.lr:g}",
        f"  batch_size: {p.batch_size}",
        *([_noted("  penalty: l1", "lambda * |gamma| on the BatchNorm scaling factors")] if p.norms else ()),
        _noted(f"  evaluate_every: {p.epochs}", "epochs; the last one is always measured"),
        "",
        _noted("prune:", "remove the channels that are worth least"),
        *([] if p.norms else [_noted("  score: lamp", "by the weights, as there is no BatchNorm")]),
        _noted("  streams: true", "residual streams too, each as one group; false leaves them as they are"),
        _noted("  layer_floor: 0.8", "each layer keeps 0.8 of what a uniform cut would leave it"),
        _noted("  min_channels: 1", ""),
        _noted(f"  recalibrate: {RECALIBRATE}", "batches for new BatchNorm statistics"),
        "",
        "finetune:",
        f"  epochs: {p.epochs}",
        f"  lr: {p.lr:g}",
        f"  batch_size: {p.batch_size}",
        f"  evaluate_every: {max(1, p.epochs // 2)}",
        "",
        "search:",
        "  sampler: tpe",
        _noted(f"  trials: {min(TRIALS, p.points)}", _more_trials(p.points)),
        _noted("  stopping: 0.001", "a trial ends once it can add no more than this to the hypervolume"),
        "  space:",
        f"    # The most parameters to keep, of {p.params:,}.",
        f"    prune.params: {{log: [{p.fewest}, {p.most}], steps: {p.sizes.steps}}}",
        *(_two_ways(p) if p.norms else ()),
        "  objectives: {val_accuracy: maximize, params: minimize}",
        "",
        _noted("controls:", "what pruning has to beat, for points of the front"),
        _noted("  uniform: true", "the same network, uniformly narrower, from scratch, with as many epochs"),
        "",
        _noted("confirm:", "points of the front, their controls and the dense network with further seeds"),
        "  seeds: 3",
        "  points: 3",
        "",
        _noted("workers: auto", "one per GPU, or one per core"),
        _noted("device: auto", "a GPU if torch finds one (CUDA, Apple's, Intel's), else the processor"),
        _noted(
            "wandb: {project: slimnet, mode: auto}", "auto: online where there is a key, else kept on disk"
        ),
    ]
    return "\n".join(lines) + "\n"


def _more_trials(points: int) -> str:
    """What a run may go on to after the trials of the config."""
    return f"more later: --trials {points} goes on to all points" if points > TRIALS else "all points"


def _two_ways(p: Proposal) -> list[str]:
    """What is searched besides a size: which channels go, and what becomes of the weights."""
    return [
        "    # Two ways to cut. By the weights of a trained network, which are kept (lamp); or by scaling",
        "    # factors (gamma), after few epochs that bring half near zero: the widths get new weights.",
        f"    # Each way has {2 * p.epochs} epochs in all; to change that, change all four numbers.",
        "    prune.score: [lamp, gamma]",
        "    sparse.target: {by: prune.score, gamma: [0.5]}",
        f"    sparse.epochs: {{by: prune.score, gamma: [{p.few_epochs}]}}",
        f"    finetune.epochs: {{by: prune.score, gamma: [{2 * p.epochs - p.few_epochs}]}}",
        "    finetune.weights: {by: prune.score, gamma: [fresh]}",
    ]


def _data(p: Proposal) -> list[str]:
    data = p.given.data
    lines = [f"  factory: {data.factory}"] if data.factory else [f"  name: {data.name}"]
    if data.path and not data.factory:
        lines.append(
            _noted(f"  path: {json.dumps(_relative(data.path, p.given.folder))}", "from this file's folder")
        )
    if p.image_size:
        lines.append(_noted(f"  image_size: {p.image_size}", p.size_note))
    if p.validation:
        note = "fraction of train that trials are compared on; test is only reported"
        lines.append(_noted(f"  validation: {p.validation:g}", note))
    lines.append(_noted(f"  crop: {p.crop}", "pixels by which training images are shifted at random"))
    lines.append(
        _noted(
            f"  flip: {str(p.flip).lower()}",
            "mirror them at random; not where left and right differ, as in text",
        )
    )
    return lines


def _model(p: Proposal) -> list[str]:
    if p.given.model:
        key = "factory" if ":" in p.given.model else "name"
        return [f"  {key}: {p.given.model}"]
    lines = [
        _noted(
            "  name: resnet", "or yours: factory: package.module:function; or torchvision/NAME, timm/NAME"
        ),
        _noted(f"  blocks: [{', '.join(map(str, p.blocks))}]", "bottlenecks in each stage"),
        _noted(f"  width: {p.width}", "channels of the first stage; each further one doubles them"),
    ]
    if p.stem != "cifar":
        lines.append(_noted(f"  stem: {p.stem}", "first layers that make large images smaller at once"))
    return lines


def _noted(text: str, note: str) -> str:
    return f"{text:<{COMMENT_AT}} # {note}" if note else text


def _text(name: str) -> str:
    """A name as YAML, in quotes where it would be a number or a truth value without them, as 2024 would."""
    return name if isinstance(parse_value(name, name), str) else json.dumps(name)


def _relative(path: Path, folder: Path) -> str:
    """A path as a config in `folder` may write it: relative where it is below, else absolute."""
    return os.path.relpath(path, folder) if path.is_relative_to(folder) else str(path)
