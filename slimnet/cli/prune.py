"""slimnet prune: the channels that are worth least go."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import slimnet
from slimnet.cli import options as opt
from slimnet.cli import show
from slimnet.cli.files import check_output
from slimnet.cli.steps import extend_record, open_with_data
from slimnet.evaluation import measure
from slimnet.pruning.calibrate import recalibrate_on
from slimnet.pruning.options import MIN_CHANNELS, Score, ThresholdOver
from slimnet.pruning.plan import PruningPlan
from slimnet.seeds import derive_seed


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
    network, saved, settings, splits = open_with_data(file, model, data, image_size, data_dir, device)
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
    if streams and score != "random" and _streams_unpenalised(saved.config.get("steps", [])):
        print(
            "note: training penalised no residual stream, so theirs are poor scores (slimnet train --streams)"
        )
    print(f"\nbefore  {show.describe(before)}\nafter   {show.describe(after)}\nwritten: {out}")


def _streams_unpenalised(steps: list[dict[str, Any]]) -> bool:
    penalised = [step for step in steps if step.get("lambda") or step.get("sparsity", {}).get("target")]
    return bool(penalised) and not any(step.get("streams") for step in penalised)


def _print_plan(plan: PruningPlan) -> None:
    """The layers that lose output channels, before and after."""
    changed = [(name, f"{before:,}", f"{after:,}") for name, before, after in plan.table() if after != before]
    if changed:
        print(show.table(("layer", "before", "after"), changed, "<>>"))
    print(f"{plan.removed_channels:,} of {plan.prunable_channels:,} prunable channels removed")
