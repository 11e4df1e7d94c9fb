"""slimnet prune: the channels with the lowest scores are removed."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimnet.cli import options as opt
from slimnet.cli import show
from slimnet.defaults import RECALIBRATE
from slimnet.errors import SlimnetError
from slimnet.pruning.options import MIN_CHANNELS, NORM_SCORES, CostAware, PlanOptions, Score, ThresholdOver

if TYPE_CHECKING:
    from slimnet.pruning.plan import PruningPlan


def prune_command(
    file: opt.File,
    out: opt.Out,
    ratio: Annotated[float | None, typer.Option(help="Fraction of channels to remove.")] = None,
    params: Annotated[
        str | None, typer.Option(help='Instead: the most parameters to keep, or "50%" of them.')
    ] = None,
    macs: Annotated[
        str | None,
        typer.Option(help='Instead: the most multiply-accumulates per image to keep, or "50%" of them.'),
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option(help="Instead: the longest time for one image here, in milliseconds.")
    ] = None,
    score: Annotated[
        Score,
        typer.Option(
            help="How channels are ranked: by scaling factors (gamma; gamma-weight includes the weights that "
            "read them), by the weights of their filters (l1, l2, fpgm, lamp), by their effect on the loss "
            "(taylor), at random."
        ),
    ] = "gamma",
    threshold_over: Annotated[
        ThresholdOver,
        typer.Option(help="all counts every BatchNorm channel; layer removes the fraction in each layer."),
    ] = "prunable",
    layer_floor: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Each layer keeps at least this fraction of what a uniform cut leaves."
        ),
    ] = 0.0,
    cost_aware: Annotated[
        CostAware | None, typer.Option(help="Rank channels by score per parameter or MAC freed.")
    ] = None,
    cost_power: Annotated[
        float, typer.Option(min=0, help="Exponent of that cost; 0.5 takes its square root.")
    ] = 1.0,
    min_channels: Annotated[int, typer.Option(min=1, help="Channels kept in every layer.")] = MIN_CHANNELS,
    max_ratio: Annotated[
        float, typer.Option(min=0, max=1, help="The largest fraction removed from any layer.")
    ] = 1.0,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="A layer that keeps all channels, by name or pattern; may be repeated."),
    ] = None,
    layer_ratio: Annotated[
        list[str] | None,
        typer.Option(help="LAYER=FRACTION removed from a layer, by name or pattern; may be repeated."),
    ] = None,
    round_to: Annotated[
        int, typer.Option(min=1, help="Widths are rounded up to multiples of this; 8 suits most hardware.")
    ] = 1,
    streams: Annotated[bool, typer.Option(help="Prune the residual streams too, each as one group.")] = False,
    drop_blocks: Annotated[
        bool,
        typer.Option("--drop-blocks", help="Drop residual blocks that would keep no channel."),
    ] = False,
    absorb: Annotated[
        bool,
        typer.Option(
            "--absorb/--no-absorb",
            help="Fold the constant outputs of removed channels into the following layers.",
        ),
    ] = True,
    recalibrate: Annotated[
        int, typer.Option(min=0, help="Training batches for new BatchNorm statistics; 0 keeps the old ones.")
    ] = RECALIBRATE,
    model: opt.OwnModel = None,
    args: opt.OwnArgs = None,
    data: opt.OtherData = None,
    image_size: opt.ImageSize = None,
    data_dir: opt.DataDir = None,
    device: opt.Device = "auto",
    force: opt.Force = False,
) -> None:
    """Remove the channels with the lowest scores.

    What is left is repaired without training.
    Give --ratio, or one or more of --params, --macs, --latency-ms.
    """
    from slimnet import steps
    from slimnet.checkpoint import save
    from slimnet.cli.files import check_output
    from slimnet.cli.steps import extend_record, open_with_data
    from slimnet.evaluation import measure

    check_output(out, force)
    network, saved, settings, splits = open_with_data(file, model, args, data, image_size, data_dir, device)
    choice: PlanOptions = {
        "ratio": ratio,
        "params": _budget(params),
        "macs": _budget(macs),
        "latency_ms": latency_ms,
        "score": score,
        "threshold_over": threshold_over,
        "layer_floor": layer_floor,
        "cost_aware": cost_aware,
        "cost_power": cost_power,
        "min_channels": min_channels,
        "max_ratio": max_ratio,
        "keep": keep or [],
        "layer_ratios": _layer_ratios(layer_ratio or []),
        "round_to": round_to,
        "streams": streams,
        "drop_blocks": drop_blocks,
    }
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UserWarning)
        pruned = steps.prune(
            network,
            splits,
            seed=settings.seed,
            absorb=absorb,
            recalibrate=recalibrate,
            augmentation=settings.augmentation,
            **choice,
        )
    for note in notes:
        print(f"note: {note.message}", file=sys.stderr)
    before = measure(network, splits)
    step = {"kind": "prune", **choice, "absorb": absorb, "recalibrate": recalibrate}
    config = extend_record(saved.config, settings, splits, model, step)
    save(out, pruned.model.cpu(), metrics=pruned.metrics, config=config)
    _print_plan(pruned.plan)
    if streams and score in NORM_SCORES and _streams_unpenalised(saved.config.get("steps", [])):
        print(
            "note: training penalised no residual stream, so theirs are poor scores (slimnet train --streams)"
        )
    print(f"\nbefore  {show.describe(before)}\nafter   {show.describe(pruned.metrics)}\nwritten: {out}")


def _budget(text: str | None) -> int | str | None:
    """A number of parameters or MACs where it is one; what is no budget is refused by the plan."""
    return int(text) if text is not None and text.isdecimal() else text


def _layer_ratios(texts: list[str]) -> dict[str, float]:
    found = {}
    for text in texts:
        layer, _, fraction = text.partition("=")
        try:
            found[layer] = float(fraction)
        except ValueError:
            raise SlimnetError(
                f"--layer-ratio {text}: write LAYER=FRACTION, such as 'layer1.*=0.3'"
            ) from None
    return found


def _streams_unpenalised(steps: list[dict[str, Any]]) -> bool:
    penalised = [step for step in steps if step.get("lambda") or step.get("sparsity", {}).get("target")]
    return bool(penalised) and not any(step.get("streams") for step in penalised)


def _print_plan(plan: PruningPlan) -> None:
    """The layers that lose output channels, before and after."""
    changed = [(name, f"{before:,}", f"{after:,}") for name, before, after in plan.table() if after != before]
    if changed:
        print(show.table(("layer", "before", "after"), changed, "<>>"))
    print(f"{plan.removed_channels:,} of {plan.prunable_channels:,} prunable channels removed")
