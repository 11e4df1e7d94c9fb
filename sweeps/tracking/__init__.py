"""W&B as a projection of a study's stage folders, which can be deleted and rebuilt from them.

The only package that imports wandb, and only when it is needed.
"""

from sweeps.tracking.mode import Mode, decide_mode
from sweeps.tracking.offline import OfflineRun, read_offline_run
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.upload import SyncResult, sync

__all__ = ["Mode", "OfflineRun", "SyncResult", "Tracker", "decide_mode", "read_offline_run", "sync"]
