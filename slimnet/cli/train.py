"""slimnet train: sparse training of a fresh network, whose scaling factors a penalty drives to zero."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from slimnet.cli import options as opt
from slimnet.cli import show
from slimnet.defaults import BLOCKS, SPARSE_EPOCHS, SPARSE_LR, STRENGTH, WIDTH
from slimnet.errors import SlimnetError
from slimnet.models.catalogue import SPELLINGS, WIDTHS, names_weights
from slimnet.models.stems import Stem
from slimnet.training.recipe import Recipe
from slimnet.training.sparsity import PLAIN_L1, LambdaSchedule, PenaltyName, Sparsity

FAMILIES = ", ".join(WIDTHS)


def train_command(
    out: opt.Out,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"{SPELLINGS}, or MODULE:FACTORY for your own network.",
        ),
    ] = "resnet",
    args: Annotated[
        list[str] | None,
        typer.Option(
            "--arg",
            metavar="NAME=VALUE",
            help="An argument of a factory or of a network of torchvision or timm; may be repeated.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Trained weights to start from: a file of slimnet, safetensors or a state_dict; or by name, "
            "such as DEFAULT for torchvision and pretrained for timm.",
        ),
    ] = None,
    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help=f"Blocks per stage of {FAMILIES}; convolutions for vgg.",
            show_default=",".join(map(str, BLOCKS)),
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Channels of the first layer of {FAMILIES}.",
            show_default=f"with --blocks {', '.join(map(str, WIDTHS.values()))}, without it {WIDTH}",
        ),
    ] = None,
    stem: Annotated[
        Stem | None,
        typer.Option(
            help="First layers of ResNets and MobileNets.", show_default="cifar; resnet50: cifar-maxpool"
        ),
    ] = None,
    data: opt.Data = "fashion-mini",
    data_args: Annotated[
        list[str] | None,
        typer.Option(
            "--data-arg",
            metavar="NAME=VALUE",
            help="An argument of the function that makes the data; may be repeated.",
        ),
    ] = None,
    image_size: opt.ImageSize = None,
    channels: opt.PictureChannels = None,
    resize: opt.Resizing = None,
    data_dir: opt.DataDir = None,
    validation: Annotated[float, typer.Option(help="Fraction of the training images to validate on.")] = 0.1,
    mean: opt.Mean = None,
    std: opt.Std = None,
    crop: opt.Crop = None,
    flip: opt.Flip = None,
    vertical_flip: opt.VerticalFlip = None,
    resized_crop: opt.ResizedCrop = None,
    jitter: opt.Jitter = None,
    randaugment: opt.RandAugment = None,
    cutout: opt.Cutout = None,
    mixup: opt.Mixup = None,
    epochs: Annotated[
        int,
        typer.Option(min=0, help="Passes over the training images; with --init, 0 measures what it holds."),
    ] = SPARSE_EPOCHS,
    lr: opt.Lr = SPARSE_LR,
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
            callback=opt.fraction,
            help="Instead: the fraction of channels to bring near zero; λ is adjusted to it.",
        ),
    ] = None,
    penalty: Annotated[
        PenaltyName, typer.Option(help="proximal leaves exact zeros; polarization spares large ones.")
    ] = PLAIN_L1.penalty,
    lambda_schedule: Annotated[
        LambdaSchedule,
        typer.Option(help="warmup-tail raises λ in the first fifth of the steps; it is 0 in the last."),
    ] = PLAIN_L1.lambda_schedule,
    streams: Annotated[bool, typer.Option(help="Penalise the residual streams too, to prune them.")] = False,
    batch_size: opt.BatchSize = Recipe.batch_size,
    optimizer: opt.Optimiser = Recipe.optimizer,
    momentum: opt.Momentum = Recipe.momentum,
    weight_decay: opt.WeightDecay = Recipe.weight_decay,
    schedule: opt.Scheduled = Recipe.schedule,
    evaluate_every: opt.EvaluateEvery = Recipe.evaluate_every,
    precision: opt.Arithmetic = "auto",
    compiled: opt.Compiled = False,
    threads: opt.Threads = None,
    seed: Annotated[int, typer.Option(min=0, help="All random draws depend on it.")] = 0,
    device: opt.Device = "auto",
    force: opt.Force = False,
) -> None:
    """Train a network with a penalty on its scaling factors.

    The penalty drives those of channels that matter little to zero.
    After Ctrl-C or a kill, the same command resumes after the last complete epoch.
    """
    from slimnet.cli.datasets import DataSettings
    from slimnet.cli.files import check_output, partial_file
    from slimnet.cli.networks import describe_network, parse_args
    from slimnet.cli.steps import train_to
    from slimnet.files import content_hash
    from slimnet.models.source import source_hash
    from slimnet.networks import new_network
    from slimnet.steps import sparse_train

    check_output(out, force)
    place = opt.place_for(device)
    settings = DataSettings("", validation=validation, seed=seed).named(data, image_size)
    if data_args and settings.factory is None:
        raise SlimnetError(f"--data-arg is for data that MODULE:FUNCTION makes, not for {data}")
    settings = replace(
        settings,
        args=parse_args(data_args or [], "--data-arg"),
        channels={None: None, "1": 1, "3": 3}[channels],
        resize=resize,
        mean=opt.parse_statistic("--mean", mean),
        std=opt.parse_statistic("--std", std),
    ).augmented(
        crop=crop,
        flip=flip,
        vertical_flip=vertical_flip,
        resized_crop=resized_crop,
        jitter=jitter,
        randaugment=randaugment,
        cutout=cutout,
        mixup=mixup,
    )
    recipe = Recipe(
        epochs,
        lr,
        batch_size,
        optimizer,
        momentum,
        weight_decay,
        schedule,
        settings.augmentation,
        evaluate_every=evaluate_every,
    )
    if target is not None and strength is not None:
        raise SlimnetError("--target finds λ by itself; leave out --lambda, or --target")
    sparsity = Sparsity(penalty, lambda_schedule, target)
    if target is not None:
        strength = 0.0
    elif strength is None:
        strength = STRENGTH
    stages = opt.parse_blocks(blocks) if blocks is not None else None
    description = describe_network(model, stages, width, stem, parse_args(args or []))
    weights = None
    if init is not None:
        weights = init if names_weights(model, init) else content_hash(Path(init))
    elif epochs == 0:
        raise SlimnetError("--epochs is 0, which needs a trained network to measure: --init FILE")
    step = {
        "kind": "train",
        "recipe": asdict(recipe),
        "lambda": strength,
        "sparsity": asdict(sparsity),
        "streams": streams,
        "precision": opt.choose_precision(precision, place),
        "compile": compiled,
    }
    made_from = {"seed": seed, "data": settings.record(), "model": model, "steps": [step]}
    if ":" in model:
        made_from["source"] = source_hash(model, Path.cwd())
    unfinished = partial_file(out, {**made_from, "network": description, "init": weights}, force)
    splits = settings.load(data_dir, place)
    network = new_network(
        description,
        splits.image_shape,
        splits.num_classes,
        seed=seed,
        folder=Path.cwd(),
        init=init,
        on_note=lambda text: print(f"note: {text}", file=sys.stderr),
    ).to(place)
    run = partial(sparse_train, seed=seed, strength=strength, sparsity=sparsity, streams=streams)
    metrics = train_to(out, unfinished, network, splits, recipe, made_from, run)
    if target is not None:
        fraction = f"{metrics['near_zero']:.1%} of the scaling factors"
        print(f"near zero: {fraction}, where the target is {target:.0%}")
    show.print_written(metrics, out)
