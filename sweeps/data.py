"""The data of a study as a stage needs them: loaded, split and on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from slimnet.data.catalogue import Source
from slimnet.data.hashes import OnProgress, silent

if TYPE_CHECKING:  # torch takes seconds to import, and only workers need it
    from slimnet.data import Splits
    from sweeps.config.data import Data
    from sweeps.stages.spec import DataSpec


def open_splits(
    data: Data | DataSpec,
    path: Path | None,
    data_dir: Path | None,
    *,
    seed: int,
    device: str = "cpu",
    fingerprint: str | None = None,
    on_progress: OnProgress = silent,
) -> Splits:
    """The three parts of the images.

    Args:
        data: which images, and how they are split.
        path: where the user's own data are.
        data_dir: the folder of the data sets; the user's cache if not given.
        seed: which images are held out for validation follows from it.
        device: that trains on them.
        fingerprint: of the data, where it is known.
        on_progress: told how far reading and decoding are.

    Raises:
        SlimnetError: something is wrong with the data.
    """
    from slimnet.data import load_dataset, split

    dataset = load_dataset(
        Source(data.name, path, data.factory, data.args),
        data_dir=data_dir,
        image_size=data.image_size,
        channels=data.channels,
        resize=data.resize,
        fingerprint=fingerprint,
        on_progress=on_progress,
    )
    return split(dataset, validation=data.validation, seed=seed, device=device, mean=data.mean, std=data.std)
