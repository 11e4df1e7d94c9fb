"""The commands of `slimnet`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

import slimnet
from slimnet.calibrate import recalibrate_on
from slimnet.checkpoint import Checkpoint
from slimnet.cli import options as opt
from slimnet.cli import show
from slimnet.cli.datasets import DataSettings, recorded_data, recorded_shape
from slimnet.cli.files import check_output, content_hash, partial_file
from slimnet.cli.inspection import inspect_network, print_inspection
from slimnet.cli.networks import check_fit, new_network, open_network
from slimnet.cli.steps import extend_record, train_to
from slimnet.data import Splits
from slimnet.errors import SlimnetError
from slimnet.evaluation import measure
from slimnet.export import export_onnx, export_program
from slimnet.models.resnet import Stem
from slimnet.plan import MIN_CHANNELS, PruningPlan, ThresholdOver
from slimnet.ranking import Score
from slimnet.seeds import derive_seed
from slimnet.sparsity import LambdaSchedule, PenaltyName, Sparsity
from slimnet.training import Recipe

EXIT_USAGE = 2
STRENGTH = 0.005  # λ of train where neither it nor a target is given

app = typer.Typer(
    name="slimnet",
    help="Train a network sparsely, prune it, fine-tune it: each step reads a file and writes one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command("train")
def train_command(
    out: opt.Out,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="resnet, resnet50, or MODULE:FACTORY for your own network.")
    ] = "resnet",
    blocks: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Bottlenecks per stage of resnet.", show_default="1,1,1"),
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Channels of resnet's stem.", show_default="16")
    ] = None,
    stem: Annotated[
        Stem | None, typer.Option(help="First layers.", show_default="cifar; resnet50: cifar-maxpool")
    ] = None,
    data: Annotated[str, typer.Option(metavar="NAME", help=f"{opt.SETS}, or an npz file.")] = "fashion-mini",
    image_size: opt.ImageSize = None,
    data_dir: opt.DataDir = None,
    validation: Annotated[float, typer.Option(help="Share of the training images to compare on.")] = 0.1,
    crop: Annotated[int, typer.Option(min=0, help="Pixels of padding before a random crop.")] = 0,
    flip: Annotated[bool, typer.Option(help="Mirror training images at random.")] = False,
    epochs: opt.Epochs = 16,
    lr: opt.Lr = 0.1,
    strength: Annotated[
        float | None,
        typer.Option(
            "--lambda",
            callback=opt.not_negative,
            help="Strength of the penalty on the scaling factors; 0 trains densely.",
            show_default=str(STRENGTH),
        ),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(
            callback=opt.share, help="Instead: the share of channels to bring near zero; λ is steered to it."
        ),
    ] = None,
    penalty: Annotated[
        PenaltyName, typer.Option(help="proximal leaves exact zeros; polarization spares the strong.")
    ] = "l1",
    lambda_schedule: Annotated[
        LambdaSchedule,
        typer.Option(help="warmup-tail raises λ for a fifth of the steps; the last fifth is at 0."),
    ] = "constant",
    streams: Annotated[bool, typer.Option(help="Penalise the residual streams too, to prune them.")] = False,
    batch_size: opt.BatchSize = 128,
    optimizer: opt.Optimiser = "sgd",
    momentum: opt.Momentum = 0.9,
    weight_decay: opt.WeightDecay = 5e-4,
    schedule: opt.Scheduled = "one-cycle",
    precision: opt.Arithmetic = "auto",
    compiled: opt.Compiled = False,
    seed: Annotated[int, typer.Option(min=0, help="Every random draw follows from it.")] = 0,
    device: opt.Device = "auto",
    force: opt.Force = False,
) -> None:
    """Train a network while a penalty draws its scaling factors to zero.

    Interrupted with Ctrl-C or killed, the same command goes on after the last complete epoch.
    """
    check_output(out, force)
    place = opt.choose_device(device)
    settings = DataSettings("", validation=validation, crop=crop, flip=flip, seed=seed).named(
        data, image_size
    )
    recipe = Recipe(epochs, lr, batch_size, optimizer, momentum, weight_decay, schedule, crop, flip)
    sparsity = _sparsity(penalty, lambda_schedule, target, strength)
    stages = opt.parse_blocks(blocks) if blocks is not None else None
    step = {
        "kind": "train",
        "recipe": asdict(recipe),
        "lambda": 0.0 if target else STRENGTH if strength is None else strength,
        "sparsity": asdict(sparsity),
        "streams": streams,
        "precision": opt.choose_precision(precision, place),
        "compile": compiled,
    }
    made_from = {"seed": seed, "data": settings.record(), "model": model, "steps": [step]}
    partial = partial_file(out, {**made_from, "blocks": stages, "width": width, "stem": stem}, force)
    splits = settings.load(data_dir, place)
    torch.manual_seed(derive_seed(seed, "sparse", "weights"))
    network = new_network(model, stages, width, stem, splits).to(place)
    check_fit(network, splits, model)
    print(f"{slimnet.count_params(network):,} parameters, {len(splits.train):,} images, {place}")
    train_to(out, partial, network, splits, recipe, made_from, "sparse", sparsity=sparsity)


@app.command("prune")
def prune_command(
    file: opt.File,
    out: opt.Out,
    ratio: Annotated[float | None, typer.Option(help="Share of channels to remove.")] = None,
    params: Annotated[int | None, typer.Option(help="Instead: the most parameters to keep.")] = None,
    macs: Annotated[
        int | None, typer.Option(help="Instead: the most multiply-accumulates per image.")
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option(help="Instead: the longest time for one image here, in milliseconds.")
    ] = None,
    score: Annotated[
        Score, typer.Option(help="What a channel is worth; gamma-weight counts the weights that read it too.")
    ] = "gamma",
    threshold_over: Annotated[
        ThresholdOver,
        typer.Option(
            help="Where the share is taken: all counts every BatchNorm channel; layer goes by layer."
        ),
    ] = "prunable",
    min_channels: Annotated[int, typer.Option(min=1, help="Kept in every layer.")] = MIN_CHANNELS,
    round_to: Annotated[
        int, typer.Option(min=1, help="Widths become multiples of this, upwards: 8 suits most hardware.")
    ] = 1,
    streams: Annotated[bool, typer.Option(help="Prune the residual streams too, each as one.")] = False,
    drop_blocks: Annotated[
        bool,
        typer.Option("--drop-blocks", help="Let residual blocks of which nothing is left go whole."),
    ] = False,
    absorb: Annotated[
        bool,
        typer.Option(
            "--absorb/--no-absorb", help="Move what removed channels still emit into what reads it."
        ),
    ] = True,
    recalibrate: Annotated[
        int, typer.Option(min=0, help="Training batches for new BatchNorm statistics; 0 keeps the old ones.")
    ] = 20,
    model: opt.OwnModel = None,
    data: opt.OtherData = None,
    image_size: opt.ImageSize = None,
    data_dir: opt.DataDir = None,
    device: opt.Device = "auto",
    force: opt.Force = False,
) -> None:
    """Remove the channels that are worth least, and repair what remains without training.

    Give one of --ratio, --params, --macs, --latency-ms.
    """
    check_output(out, force)
    network, saved, settings, splits = _open(file, model, data, image_size, data_dir, device)
    choice = {
        "ratio": ratio,
        "params": params,
        "macs": macs,
        "latency_ms": latency_ms,
        "score": score,
        "threshold_over": threshold_over,
        "min_channels": min_channels,
        "round_to": round_to,
        "streams": streams,
        "drop_blocks": drop_blocks,
    }
    plan = slimnet.plan(slimnet.trace(network, splits.example), **choice, seed=settings.seed)  # type: ignore[arg-type]
    smaller = slimnet.prune(network, plan, absorb=absorb)
    if recalibrate:
        recalibrate_on(
            smaller,
            splits,
            recalibrate,
            seed=derive_seed(settings.seed, "prune", "recalibrate"),
            crop=settings.crop,
            flip=settings.flip,
        )
    before, after = measure(network, splits), measure(smaller, splits)
    step = {"kind": "prune", **choice, "absorb": absorb, "recalibrate": recalibrate}
    chosen = {
        "threshold": plan.threshold,
        "kept": plan.prunable_channels - plan.removed_channels,
        "prunable": plan.prunable_channels,
        "widths": getattr(smaller, "widths", None),
    }
    config = extend_record(saved.config, settings, splits, model, step)
    slimnet.save(out, smaller.cpu(), metrics={**after, **chosen}, config=config)
    _print_plan(plan)
    print(f"\nbefore  {show.describe(before)}\nafter   {show.describe(after)}\nwritten: {out}")


@app.command("finetune")
def finetune_command(
    file: opt.File,
    out: opt.Out,
    epochs: opt.Epochs = 6,
    lr: opt.Lr = 0.05,
    batch_size: opt.BatchSize = 128,
    optimizer: opt.Optimiser = "sgd",
    momentum: opt.Momentum = 0.9,
    weight_decay: opt.WeightDecay = 5e-4,
    schedule: opt.Scheduled = "one-cycle",
    precision: opt.Arithmetic = "auto",
    compiled: opt.Compiled = False,
    teacher: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A network to learn from as well: the one before pruning."),
    ] = None,
    distill: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="The teacher's weight; the labels have the rest.", show_default="0.5"
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            callback=opt.positive,
            help="That softens both outputs for the teacher's part.",
            show_default="4.0",
        ),
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(min=0, help="Pixels of padding before a random crop.", show_default="as in FILE"),
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Mirror training images at random.", show_default="as in FILE"),
    ] = None,
    model: opt.OwnModel = None,
    data: opt.OtherData = None,
    image_size: opt.ImageSize = None,
    data_dir: opt.DataDir = None,
    device: opt.Device = "auto",
    force: opt.Force = False,
) -> None:
    """Train a pruned network further, without penalty.

    Interrupted with Ctrl-C or killed, the same command goes on after the last complete epoch.
    """
    check_output(out, force)
    network, saved, settings, splits = _open(file, model, data, image_size, data_dir, device)
    settings = replace(
        settings,
        crop=settings.crop if crop is None else crop,
        flip=settings.flip if flip is None else flip,
    )
    recipe = Recipe(
        epochs, lr, batch_size, optimizer, momentum, weight_decay, schedule, settings.crop, settings.flip
    )
    place = splits.train.x.device
    taught_by = None
    if teacher is None and (distill is not None or temperature is not None):
        raise SlimnetError("--distill and --temperature need a --teacher FILE to learn from")
    if teacher is not None:
        recipe = replace(
            recipe,
            distill=0.5 if distill is None else distill,
            temperature=4.0 if temperature is None else temperature,
        )
        taught_by = open_network(teacher, model)[0].to(place)
        check_fit(taught_by, splits, str(teacher))
    step = {
        "kind": "finetune",
        "recipe": asdict(recipe),
        "lambda": 0.0,
        "streams": False,
        "precision": opt.choose_precision(precision, place),
        "compile": compiled,
        "teacher": content_hash(teacher) if teacher else None,
    }
    made_from = extend_record(saved.config, settings, splits, model, step)
    partial = partial_file(out, {**made_from, "parent": content_hash(file)}, force)
    print(f"{slimnet.count_params(network):,} parameters, {len(splits.train):,} images, {place}")
    train_to(out, partial, network, splits, recipe, made_from, "finetune", teacher=taught_by)


@app.command("evaluate")
def evaluate_command(
    file: opt.File,
    model: opt.OwnModel = None,
    data: opt.OtherData = None,
    image_size: opt.ImageSize = None,
    data_dir: opt.DataDir = None,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
) -> None:
    """Measure a network: validation and test accuracy, parameters, multiply-accumulates."""
    network, _, settings, splits = _open(file, model, data, image_size, data_dir, device)
    metrics = measure(network, splits)
    if as_json:
        _print_json({"file": str(file), "data": settings.name, **metrics})
    else:
        print(f"{file}: {show.describe(metrics)}")


@app.command("inspect")
def inspect_command(
    file: opt.File, model: opt.OwnModel = None, input_shape: opt.InputShape = None, as_json: opt.Json = False
) -> None:
    """Show channel groups, their widths and scaling factors, parameters and multiply-accumulates."""
    network, saved = open_network(file, model)
    facts = inspect_network(network, torch.zeros(1, *recorded_shape(file, saved.config, input_shape)))
    if as_json:
        _print_json({"file": str(file), **facts, "metrics": saved.metrics, "config": saved.config})
    else:
        print_inspection(file, facts, saved)


@app.command("export")
def export_command(
    file: opt.File,
    onnx: Annotated[Path | None, typer.Option(metavar="FILE", help="The ONNX file to write.")] = None,
    program: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The torch.export program (.pt2) to write.")
    ] = None,
    model: opt.OwnModel = None,
    input_shape: opt.InputShape = None,
    force: opt.Force = False,
) -> None:
    """Write a network for use elsewhere, with a dynamic batch size; ONNX is checked against onnxruntime."""
    if onnx is None and program is None:
        raise SlimnetError("export needs a file to write: --onnx FILE or --program FILE")
    for path in filter(None, (onnx, program)):
        check_output(path, force)
    network, saved = open_network(file, model)
    example = torch.zeros(1, *recorded_shape(file, saved.config, input_shape))
    if onnx is not None:
        deviation = export_onnx(network, example, onnx)
        print(f"written: {onnx} (onnxruntime within {deviation:.0e} of torch)")
    if program is not None:
        export_program(network, example, program)
        print(f"written: {program}")


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit status 2, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # γ and bars, whatever the encoding
    try:
        app()
    except SlimnetError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)


def _open(
    file: Path,
    model: str | None,
    data: str | None,
    image_size: int | None,
    data_dir: Path | None,
    device: opt.Place,
) -> tuple[nn.Module, Checkpoint, DataSettings, Splits]:
    """A network on its device, what its file holds, and its data."""
    place = opt.choose_device(device)
    network, saved = open_network(file, model)
    settings = recorded_data(file, saved.config, data, image_size)
    splits = settings.load(data_dir, place)
    network.to(place)
    check_fit(network, splits, str(file))
    return network, saved, settings, splits


def _sparsity(
    penalty: PenaltyName, lambda_schedule: LambdaSchedule, target: float | None, strength: float | None
) -> Sparsity:
    """How train draws scaling factors to zero; a target finds λ, and so goes without one."""
    if target is not None and strength is not None:
        raise SlimnetError("--target finds λ by itself; leave out --lambda, or --target")
    if target is not None and lambda_schedule != "constant":
        raise SlimnetError("--target steers λ by itself; leave out --lambda-schedule, or --target")
    return Sparsity(penalty, lambda_schedule, target)


def _print_plan(plan: PruningPlan) -> None:
    """The layers that lose output channels, before and after."""
    changed = [(name, f"{before:,}", f"{after:,}") for name, before, after in plan.table() if after != before]
    if changed:
        print(show.table(("layer", "before", "after"), changed, "<>>"))
    print(f"{plan.removed_channels:,} of {plan.prunable_channels:,} prunable channels removed")


def _print_json(facts: Any) -> None:
    print(json.dumps(facts, indent=2, ensure_ascii=False))
