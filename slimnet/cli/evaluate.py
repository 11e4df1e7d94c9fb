"""slimnet evaluate: how good and how large a network is."""

from __future__ import annotations

from slimnet.cli import options as opt
from slimnet.cli import show


def evaluate_command(
    file: opt.File,
    model: opt.OwnModel = None,
    args: opt.OwnArgs = None,
    data: opt.OtherData = None,
    image_size: opt.ImageSize = None,
    data_dir: opt.DataDir = None,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
) -> None:
    """Measure a network's accuracy, parameters and MACs.

    Accuracy is that on the validation and the test split; a MAC is a multiply-accumulate for one image.
    """
    from slimnet.cli.steps import open_with_data
    from slimnet.evaluation import measure

    network, _, settings, splits = open_with_data(file, model, args, data, image_size, data_dir, device)
    metrics = measure(network, splits)
    if as_json:
        show.print_json({"file": str(file), "data": settings.name, **metrics})
    else:
        print(f"{file}: {show.describe(metrics)}")
