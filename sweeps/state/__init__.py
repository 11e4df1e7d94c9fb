"""The trials and stages of a study, kept up to date as stages are computed.

A stage's folder is read when its first trial is added, and again only on `State.reload`. The work for one
event does not grow with the number of trials that have ended.
"""

from sweeps.state.state import TRAINING_KINDS, State, count_states, read_study

__all__ = ["TRAINING_KINDS", "State", "count_states", "read_study"]
