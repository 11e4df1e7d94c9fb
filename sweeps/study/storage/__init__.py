"""Where the Optuna study of a sweep is kept: in a file of its folder, or in a PostgreSQL database."""

from sweeps.study.storage.base import LockedError, Storage, UnavailableError
from sweeps.study.storage.choice import (
    check_storage,
    chosen_storage,
    delete_from_database,
    held_storage,
    known_storages,
)

__all__ = [
    "LockedError",
    "Storage",
    "UnavailableError",
    "check_storage",
    "chosen_storage",
    "delete_from_database",
    "held_storage",
    "known_storages",
]
