"""slimnet inspect: what can be found out about a network."""

from __future__ import annotations

from slimnet.cli import options as opt
from slimnet.cli import show


def inspect_command(
    file: opt.File,
    model: opt.OwnModel = None,
    args: opt.OwnArgs = None,
    input_shape: opt.InputShape = None,
    as_json: opt.Json = False,
) -> None:
    """Show a network's channel groups and scaling factors.

    Also their widths, and the parameters and multiply-accumulates (MACs) of the network.
    """
    import torch

    from slimnet.cli.datasets import recorded_shape
    from slimnet.cli.inspection import inspect_network, print_inspection
    from slimnet.cli.networks import open_network, parse_args

    network, saved = open_network(file, model, parse_args(args or []))
    shape = recorded_shape(file, network, saved.config, input_shape)
    facts = inspect_network(network, torch.zeros(1, *shape))
    if as_json:
        show.print_json({"file": str(file), **facts, "metrics": saved.metrics, "config": saved.config})
    else:
        print_inspection(file, facts, saved)
