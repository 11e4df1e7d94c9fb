"""The record of a study: what was fixed when it began, and the point of each of its trials.

Three small files in the study's folder, read without Optuna:

    study.json      uid, precision, what the data and the networks are; written once
    trials.jsonl    a line per trial: its point, and what the sampler noted on it; appended
    ends.jsonl      a line per trial that has ended: whether it was stopped early, and why; appended

The results of trials are in the stage folders. The Optuna study, in study.db or elsewhere, is made from both.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from slimnet.errors import SlimnetError
from slimnet.precision import Precision
from sweeps.config import Config
from sweeps.config.space import branch_of, contains
from sweeps.files import write_json
from sweeps.networks import Networks, networks_from
from sweeps.records import Stop

FACTS, TRIALS, ENDS = "study.json", "trials.jsonl", "ends.jsonl"
DATABASE, JOURNAL = "study.db", "study.journal"  # of the Optuna study


@dataclass(frozen=True)
class Point:
    """A trial's point in the search space.

    Attributes:
        params: values by the dotted paths of the space, in its order.
        attributes: what the sampler noted on the trial and needs again, such as NSGA-II's generation.
    """

    params: dict[str, Any]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What is fixed when a study begins.

    Attributes:
        uid: distinguishes the study from an earlier one of the same name.
        precision: of the forward pass; fixed, so that another machine does not change it.
        data: the fingerprint of the data set.
        networks: what its networks are made of, where they are not slimnet's own.
        machine: the device that latencies are measured on; "" in an older study, which measures none.
    """

    uid: str
    precision: Precision
    data: str
    networks: Networks = field(default_factory=dict)
    machine: str = ""


@dataclass
class Study:
    """The record of one study. Only the driver that holds the study's lock may add to it.

    Attributes:
        folder: runs/<study>.
        facts: what was fixed when it began.
        points: the points of the trials, by number.
        ends: of the trials for which it is settled, by number: when and why it was stopped early, or None if
            it goes to the end of its chain. What else is learnt afterwards changes that no more.
    """

    folder: Path
    facts: Facts
    points: list[Point]
    ends: dict[int, Stop | None] = field(default_factory=dict)

    def add(self, point: Point) -> int:
        """Record the point of the next trial; returns the trial's number.

        Raises:
            SlimnetError: it cannot be written; the trial is then not added.
        """
        _append(self.folder / TRIALS, _line(point))
        self.points.append(point)
        return len(self.points) - 1

    def settle(self, number: int, stop: Stop | None) -> None:
        """Record that a trial has ended, and whether it was stopped early.

        Raises:
            SlimnetError: it cannot be written.
        """
        if number not in self.ends:
            _append(self.folder / ENDS, _end_line(number, stop))
            self.ends[number] = stop


def read(folder: Path, config: Config) -> Study:
    """The record in a study's folder.

    Raises:
        SlimnetError: a file is missing or damaged.
    """
    facts = _read_facts(folder / FACTS)
    points = _read_points(folder / TRIALS, config)
    return Study(folder, facts, points, read_ends(folder, len(points)))


def write(study: Study) -> None:
    """Write the record of a new study, and what of the record an interrupted driver has not written whole."""
    # In this order: without study.json the lines of the others are ignored.
    _rewrite(study.folder / TRIALS, b"".join(map(_line, study.points)))
    _rewrite(study.folder / ENDS, b"".join(_end_line(number, stop) for number, stop in study.ends.items()))
    if not (study.folder / FACTS).exists():
        write_json(study.folder / FACTS, asdict(study.facts))


def _read_facts(path: Path) -> Facts:
    try:
        return facts_in(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise SlimnetError(f"{path} is missing; the next `run` rebuilds it from the stages") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _read_points(path: Path, config: Config) -> list[Point]:
    """The points in a file, without a last line that was not completely written."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _damaged(path, error) from error
    try:
        points = [_point(json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise _damaged(path, error) from error
    for number, point in enumerate(points):
        branch = branch_of(config.search.space, point.params)
        if branch is None or point.params.keys() != branch.keys():
            raise _damaged(path, f"trial {number} is not of this search space")
        for name, value in point.params.items():
            if not contains(branch[name], value):
                raise _damaged(path, f"trial {number} has {name} = {value!r}, which is not in search.space")
    return points


def _point(content: dict[str, Any]) -> Point:
    """A point from the content of a line."""
    found = dict(content)
    point = Point(found.pop("params", None), found.pop("attributes", {}))
    if found or not (isinstance(point.params, dict) and isinstance(point.attributes, dict)):
        raise TypeError("a line holds params and attributes, both mappings")
    return point


def facts_in(content: dict[str, Any]) -> Facts:
    """Facts from the content of study.json.

    Raises:
        TypeError, ValueError, AttributeError: they are none.
    """
    facts = Facts(**{**content, "networks": networks_from(content.get("networks", {}))})
    if facts.precision not in get_args(Precision):
        raise ValueError(f"precision is {facts.precision}")
    return facts


def read_ends(folder: Path, trials: int) -> dict[int, Stop | None]:
    """The ends in a study's folder; without any, as in an earlier version, every trial goes to its end."""
    path = folder / ENDS
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return dict.fromkeys(range(trials))
    except OSError as error:
        raise _damaged_end(path, error) from error
    ends: dict[int, Stop | None] = {}
    for line in lines:
        try:
            content = json.loads(line)
            ends[int(content["trial"])] = Stop(**content["stop"]) if content["stop"] else None
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged_end(path, error) from error
    return ends


def _damaged(path: Path, error: Exception | str) -> SlimnetError:
    return SlimnetError(
        f"{path} is damaged ({error}); move it away and the next `run` rebuilds it from the stages"
    )


def _damaged_end(path: Path, error: Exception | str) -> SlimnetError:
    return SlimnetError(
        f"{path} is damaged ({error}); move it away, and the next `run` trains all trials to their end"
    )


def _append(path: Path, line: bytes) -> None:
    try:
        with path.open("ab") as file:
            file.write(line)
    except OSError as error:
        raise SlimnetError(f"cannot write {path}: {error.strerror}; make room for it") from error


def _rewrite(path: Path, lines: bytes) -> None:
    """Write a file anew unless it has these lines: its last one may be incomplete."""
    if not path.exists() or path.read_bytes() != lines:
        path.write_bytes(lines)


def _end_line(number: int, stop: Stop | None) -> bytes:
    content = {"trial": number, "stop": None if stop is None else asdict(stop)}
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _line(point: Point) -> bytes:
    return json.dumps(asdict(point), ensure_ascii=False).encode() + b"\n"
