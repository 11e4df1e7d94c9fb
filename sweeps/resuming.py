"""What a run of a sweep starts from: a new study, or one that was interrupted, as its folder has it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from sweeps.config import Config
from sweeps.stages import Store
from sweeps.state import State
from sweeps.study import Study
from sweeps.study.mirror import Mirroring, mirrored
from sweeps.study.sampling import Sampling
from sweeps.study.storage import Storage, chosen_storage
from sweeps.telling import ended_entry, open_entry, tell


def resume(
    study: Study, config: Config, runs: Path, storage: Storage | None = None
) -> tuple[State, Sampling, Mirroring]:
    """What a driver starts from: the study's state, its sampler, and the mirror of its record.

    Damaged files of stages are set aside; `State.damage` tells of them.

    Args:
        study: its record.
        config: its config.
        runs: the folder of the studies.
        storage: where the Optuna study is kept; the one that the config means if not given.
    """
    store = Store(runs, config.stages)
    store.note_user()
    state = State(config, study, store, mend=True)
    sampling, entries = Sampling(config.search, config.seed), []
    told = state.ended_in_order()
    for number, point in enumerate(study.points):
        trial = state.trial(number)
        sampling.add(point)
        if number < told:
            tell(trial, study, sampling)
            entries.append(ended_entry(trial, point))
        else:
            entries.append(open_entry(trial, point))
    facts = json.loads(json.dumps(asdict(study.facts)))  # as databases give them back
    storage = storage or chosen_storage(config, study.folder)
    return state, sampling, mirrored(storage, config, facts, entries)
