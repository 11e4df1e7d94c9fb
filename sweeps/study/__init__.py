"""A study: its folder, its record, its lock, and its Optuna study.

What is exported here does not need Optuna; `sampling` and `database` do.
"""

from sweeps.study.config_file import check_config, keep_config, kept_config
from sweeps.study.lock import (
    EXIT_BUSY,
    Holder,
    StudyBusyError,
    check_free,
    hold,
    is_held,
    removal_lock,
)
from sweeps.study.opening import check_data, check_unchanged, is_begun, make_study, open_study
from sweeps.study.record import DATABASE, JOURNAL, Facts, Point, Study

__all__ = [
    "DATABASE",
    "EXIT_BUSY",
    "JOURNAL",
    "Facts",
    "Holder",
    "Point",
    "Study",
    "StudyBusyError",
    "check_config",
    "check_data",
    "check_free",
    "check_unchanged",
    "hold",
    "is_begun",
    "is_held",
    "keep_config",
    "kept_config",
    "make_study",
    "open_study",
    "removal_lock",
]
