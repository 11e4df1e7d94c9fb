"""Data sets as uint8 arrays, their split, and batches augmented on the device."""

from slimnet.data.batches import Images, Splits, eval_batches, split, train_batch_count, train_batches
from slimnet.data.sets import NAMES, Dataset, default_data_dir, fingerprint, load_dataset

__all__ = [
    "NAMES",
    "Dataset",
    "Images",
    "Splits",
    "default_data_dir",
    "eval_batches",
    "fingerprint",
    "load_dataset",
    "split",
    "train_batch_count",
    "train_batches",
]
