"""Begins a study, or opens one to go on with it: by its record, or if that is lost, by the Optuna study."""

from __future__ import annotations

import uuid
from pathlib import Path

from slimnet.data.catalogue import fingerprint
from slimnet.errors import SlimnetError
from slimnet.precision import Precision
from sweeps.config import Config
from sweeps.networks import Networks, check_networks
from sweeps.study import record
from sweeps.study.record import DATABASE, FACTS, Facts, Study


def make_study(
    folder: Path,
    config: Config,
    precision: Precision | None,
    networks: Networks | None = None,
    machine: str = "",
) -> Study:
    """Open the study in `folder` to continue it, or begin it.

    Args:
        folder: runs/<study>.
        config: must agree with the study's config in all fields that affect results.
        precision: what the machine is best at, which a new study takes if its config says auto; not needed
            for one that has begun.
        networks: of a new study, from `sweeps.networks.make_networks`.
        machine: of a new study: the name of the device that latencies are measured on.

    Raises:
        SlimnetError: a file is damaged, or the study began with other data, another network or in another
            precision.
    """
    if is_begun(folder, config):
        study = open_study(folder, config)
        if config.precision not in ("auto", study.facts.precision):
            raise SlimnetError(
                f"precision is {config.precision}, but the study {config.study} began in "
                f"{study.facts.precision}; give this one another name (--set study=NAME)"
            )
        check_unchanged(study, config)
    else:
        fixed = precision if config.precision == "auto" else config.precision
        assert fixed is not None, "a new study needs a precision"
        data = fingerprint(config.data.source)
        facts = Facts(uuid.uuid4().hex, fixed, data, networks or {}, machine)
        study = Study(folder, facts, [])
    record.write(study)
    return study


def is_begun(folder: Path, config: Config) -> bool:
    """Whether there is a record of the study in its folder; the Optuna study holds it too."""
    return (folder / FACTS).exists() or _in_database(folder, config) is not None


def open_study(folder: Path, config: Config) -> Study:
    """Open the study in `folder`; changes nothing.

    Raises:
        SlimnetError: a file is missing or damaged.
    """
    if not (folder / FACTS).exists() and (study := _in_database(folder, config)) is not None:
        return study
    return record.read(folder, config)


def check_unchanged(study: Study, config: Config) -> None:
    """Check that the data and the networks are those that the study began with.

    Raises:
        SlimnetError: they have changed, or a file cannot be read.
    """
    check_data(study, config)
    check_networks(config, study.facts.networks)


def check_data(
    study: Study, config: Config, way_out: str = "give this one another name (--set study=NAME)"
) -> None:
    """Check that the data are those that the study began with.

    Args:
        study: what was fixed when it began.
        config: where the data are.
        way_out: what to do if they are others, for the message.

    Raises:
        SlimnetError: they have changed, or a file cannot be read.
    """
    if study.facts.data != fingerprint(config.data.source):
        raise SlimnetError(
            f"the data of {config.data.source} have changed since the study {config.study} began; {way_out}"
        )


def _in_database(folder: Path, config: Config) -> Study | None:
    """The record that the Optuna study holds; None if there is none that can be read."""
    if not (folder / "config.yaml").exists() and not (folder / DATABASE).exists():
        return None  # nothing was lost here
    # These import Optuna, which takes a while.
    from sweeps.study.database import read_database
    from sweeps.study.storage import known_storages

    for storage in known_storages(config, folder):
        try:
            facts, entries = read_database(storage, config)
            points = [entry.point for entry in entries]
            return Study(folder, record.facts_in(facts), points, record.read_ends(folder, len(points)))
        except (SlimnetError, TypeError, ValueError):
            continue
    return None
