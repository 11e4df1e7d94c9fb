"""Data sets as uint8 arrays, their split, and batches augmented on the device."""

from typing import TYPE_CHECKING

from slimnet._lazy import lazy
from slimnet.data.augmentation import Augmentation
from slimnet.data.catalogue import IMAGE_SIDES, NAMES, Source, default_data_dir, fingerprint

if TYPE_CHECKING:
    from slimnet.data.batches import Images, Splits, eval_batches, split, train_batch_count, train_batches
    from slimnet.data.sets import Dataset, load_dataset
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "Dataset": "slimnet.data.sets",
            "Images": "slimnet.data.batches",
            "Splits": "slimnet.data.batches",
            "eval_batches": "slimnet.data.batches",
            "load_dataset": "slimnet.data.sets",
            "split": "slimnet.data.batches",
            "train_batch_count": "slimnet.data.batches",
            "train_batches": "slimnet.data.batches",
        },
    )

__all__ = [
    "IMAGE_SIDES",
    "NAMES",
    "Augmentation",
    "Dataset",
    "Images",
    "Source",
    "Splits",
    "default_data_dir",
    "eval_batches",
    "fingerprint",
    "load_dataset",
    "split",
    "train_batch_count",
    "train_batches",
]
