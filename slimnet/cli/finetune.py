"""slimnet finetune: a pruned network trained further."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from slimnet.cli import options as opt
from slimnet.cli import show
from slimnet.defaults import FINETUNE_EPOCHS, FINETUNE_LR
from slimnet.errors import SlimnetError
from slimnet.training.recipe import Recipe, Weights

DISTILL = 0.5  # weight of a teacher where none is given


def finetune_command(
    file: opt.File,
    out: opt.Out,
    epochs: opt.Epochs = FINETUNE_EPOCHS,
    lr: opt.Lr = FINETUNE_LR,
    batch_size: opt.BatchSize = Recipe.batch_size,
    optimizer: opt.Optimiser = Recipe.optimizer,
    momentum: opt.Momentum = Recipe.momentum,
    weight_decay: opt.WeightDecay = Recipe.weight_decay,
    schedule: opt.Scheduled = Recipe.schedule,
    evaluate_every: opt.EvaluateEvery = Recipe.evaluate_every,
    precision: opt.Arithmetic = "auto",
    compiled: opt.Compiled = False,
    threads: opt.Threads = None,
    weights: Annotated[
        Weights,
        typer.Option(help="What training starts from: the weights in FILE, or new ones at its widths."),
    ] = "pruned",
    teacher: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The teacher of distillation: the network before pruning."),
    ] = None,
    distill: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Weight of the distillation loss; the labels have the rest.",
            show_default=str(DISTILL),
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            callback=opt.positive,
            help="Temperature of the distillation.",
            show_default=str(Recipe.temperature),
        ),
    ] = None,
    crop: opt.Crop = None,
    flip: opt.Flip = None,
    vertical_flip: opt.VerticalFlip = None,
    resized_crop: opt.ResizedCrop = None,
    jitter: opt.Jitter = None,
    randaugment: opt.RandAugment = None,
    cutout: opt.Cutout = None,
    mixup: opt.Mixup = None,
    model: opt.OwnModel = None,
    args: opt.OwnArgs = None,
    data: opt.OtherData = None,
    image_size: opt.ImageSize = None,
    data_dir: opt.DataDir = None,
    device: opt.Device = "auto",
    force: opt.Force = False,
) -> None:
    """Train a pruned network, without a penalty.

    After Ctrl-C or a kill, the same command resumes after the last complete epoch.
    """
    from slimnet import steps
    from slimnet.cli.files import check_output, partial_file
    from slimnet.cli.networks import open_network, parse_args
    from slimnet.cli.steps import extend_record, open_with_data, train_to
    from slimnet.files import content_hash
    from slimnet.networks import check_fit

    check_output(out, force)
    if teacher is None and (distill is not None or temperature is not None):
        raise SlimnetError("--distill and --temperature need a --teacher FILE to learn from")
    network, saved, settings, splits = open_with_data(file, model, args, data, image_size, data_dir, device)
    settings = settings.augmented(
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
    place = splits.device
    taught_by = None
    if teacher is not None:
        recipe = replace(
            recipe,
            distill=DISTILL if distill is None else distill,
            temperature=Recipe.temperature if temperature is None else temperature,
        )
        taught_by = open_network(teacher, model, parse_args(args or []))[0].to(place)
        check_fit(taught_by, splits.image_shape, splits.num_classes, str(teacher))
    step = {
        "kind": "finetune",
        "recipe": asdict(recipe),
        "lambda": 0.0,
        "streams": False,
        "precision": opt.choose_precision(precision, place),
        "compile": compiled,
        "teacher": content_hash(teacher) if teacher else None,
        **({"weights": weights} if weights != "pruned" else {}),
    }
    made_from = extend_record(saved.config, settings, splits, model, step)
    unfinished = partial_file(out, {**made_from, "parent": content_hash(file)}, force)
    run = partial(steps.finetune, seed=settings.seed, weights=weights, teacher=taught_by)
    metrics = train_to(out, unfinished, network, splits, recipe, made_from, run)
    show.print_written(metrics, out)
