"""Studies beside each other: their fronts, how much each covers, and what their configs differ in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from slimnet.wording import plural
from sweeps.comparison import Comparison, best_of_front
from sweeps.pareto import covered, reference
from sweeps.records import StudyRecord
from sweeps.report.blocks import Block, Cell, Column, Paragraph, Report, Row, Section, Table
from sweeps.report.figures.fronts import fronts
from sweeps.report.summary import headline, how_far, subject
from sweeps.report.verdicts import with_error
from sweeps.report.wording import METRICS, UNKNOWN, count, percent, times

_NO_MATTER = (  # where and under which name a study runs
    "study",
    "wandb",
    "workers",
    "threads",
    "retries",
    "stall_minutes",
    "device",
    "executor",
    "storage",
    "stages",
)
_MISSING = object()


@dataclass(frozen=True)
class Compared:
    """Some studies, and what can be said of them together.

    Attributes:
        studies: in the order that they were named.
        objectives: those that all of them have.
        volumes: the hypervolume of each front in these objectives, from one reference, as a fraction of what
            a perfect network without cost would cover; None if they have no common measure.
        why_not: why they have none, as a clause; None if they have.
        differences: by dotted path of the config, the value in each study; None where it has no such field.
        reservations: why the studies may not be comparable, as sentences.
    """

    studies: Sequence[StudyRecord]
    objectives: dict[str, Any]
    volumes: list[float] | None
    why_not: str | None
    differences: dict[str, list[Any]]
    reservations: list[str]


def compare(studies: Sequence[StudyRecord]) -> Compared:
    """Look at studies together."""
    first = studies[0].config.search.objectives
    objectives: dict[str, Any] = {
        str(name): direction
        for name, direction in first.items()
        if all(study.config.search.objectives.get(name) == direction for study in studies)
    }
    why_not = _incomparable(studies, objectives)
    volumes = None if why_not else _volumes(studies, objectives)
    return Compared(studies, objectives, volumes, why_not, _differences(studies), _reservations(studies))


def _incomparable(studies: Sequence[StudyRecord], objectives: Mapping[str, Any]) -> str | None:
    """Why hypervolumes in some objectives cannot be compared, as a clause; None if they can."""
    names = {name: METRICS.get(name, name) for name in objectives}
    if len(objectives) < 2:
        return (
            f"the only objective of all is {names[next(iter(names))]}" if names else "no objective is of all"
        )
    for study in studies:
        if not study.dense.metrics:
            return f"the dense network of {study.name} is not trained yet"
        if lacking := [name for name in objectives if study.dense.metrics.get(name) is None]:
            return f"{names[lacking[0]]} of the dense network of {study.name} is not known yet"
    timed = [name for name in objectives if name.startswith("latency")]
    if timed and _differ([_machines(study) for study in studies]):
        return f"{names[timed[0]]} is of different machines"
    return None


def _volumes(studies: Sequence[StudyRecord], objectives: Mapping[str, Any]) -> list[float]:
    bounds = [reference(study.dense.metrics, objectives) or {} for study in studies]
    bound = {name: max(one[name] for one in bounds) for name in objectives}  # the same for all
    return [
        covered([study.trials[number].metrics for number in study.front], objectives, bound)
        for study in studies
    ]


def _differences(studies: Sequence[StudyRecord]) -> dict[str, list[Any]]:
    flat = [_flat(study.config.model_dump(mode="json", by_alias=True)) for study in studies]
    paths = dict.fromkeys(path for one in flat for path in one)
    found = {path: [one.get(path, _MISSING) for one in flat] for path in paths}
    if not _differ([_data(study) for study in studies]):
        del found["data.path"]  # the same data, wherever they are
    return {
        path: [None if value is _MISSING else value for value in values]
        for path, values in found.items()
        if path.partition(".")[0] not in _NO_MATTER and any(value != values[0] for value in values)
    }


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config by dotted path; the entries of the search space are kept whole."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and not prefix.startswith("search.space."):
            found |= _flat(value, f"{path}.")
        else:
            found[path] = value
    return found


def _reservations(studies: Sequence[StudyRecord]) -> list[str]:
    said = []
    if _differ([_images(study) for study in studies]):
        said.append("Their data differ, so their accuracies are not of the same images.")
    if _differ([study.config.seed for study in studies]):
        said.append("Their seeds differ, and with them the validation splits.")
    devices, machines = [_devices(study) for study in studies], [_machines(study) for study in studies]
    if all(devices) and _differ(devices):
        said.append(
            f"Their networks were trained on different devices ({_each(studies, devices)}), where the same "
            "training ends differently."
        )
    if all(machines) and _differ(machines):
        said.append(f"Their latencies are of different machines ({_each(studies, machines)}).")
    if any(not study.ended for study in studies):
        said.append("Not all of them are finished.")
    return said


def _differ(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


def _each(studies: Sequence[StudyRecord], names: Sequence[Sequence[str]]) -> str:
    """Names by study: a: H100; b: H100, H200."""
    return "; ".join(f"{study.name}: {', '.join(own)}" for study, own in zip(studies, names, strict=True))


def _images(study: StudyRecord) -> dict[str, Any]:
    """What decides on which images accuracies are measured, and in what form networks see them."""
    shape = study.config.data.model_dump(include={"image_size", "channels", "resize", "validation"})
    return {"source": _data(study), **shape}


def _data(study: StudyRecord) -> Any:
    """The fingerprint of the data, or else where they are."""
    return study.dense.spec.get("data", {}).get("fingerprint") or study.config.data.source


def _devices(study: StudyRecord) -> list[str]:
    """What the networks of the trials and the dense one were trained on."""
    stages = [study.dense, *(stage for trial in study.trials for stage in trial.stages)]
    found = [(stage.result or {}).get("environment") or {} for stage in stages]
    return sorted({one.get("device_name") or one["device"] for one in found if "device" in one})


def _machines(study: StudyRecord) -> list[str]:
    """What the latencies were measured on."""
    found = (stage.metrics.get("machine") for stage in study.latencies.values())
    return sorted({machine for machine in found if machine})


def compare_page(compared: Compared) -> Report:
    """The page of a comparison."""
    names = [study.name for study in compared.studies]
    blocks: tuple[Block, ...] = (
        *map(Paragraph, compared.reservations),
        fronts(compared.studies),
        _table(compared),
    )
    each = tuple(
        block
        for study in compared.studies
        for block in (Paragraph(f"{study.name}: {subject(study)}."), Paragraph(headline(study)))
    )
    return Report(
        " and ".join(names),
        "a comparison of studies",
        verdict(compared),
        "; ".join(f"{study.name}: {how_far(study)}" for study in compared.studies),
        (
            Section("fronts", "The fronts", blocks),
            Section("configs", "What differs in their configs", (_config_table(compared),)),
            Section("each", "What each found", each),
        ),
        {},
    )


def verdict(compared: Compared) -> str:
    """Which front covers more, in a sentence."""
    if compared.volumes is None:
        return f"Their hypervolumes cannot be compared: {compared.why_not}."
    ordered = sorted(zip(compared.volumes, compared.studies, strict=True), key=lambda one: -one[0])
    (most, best), (next_most, second), *_ = ordered
    axes = " and ".join(METRICS.get(name, name) for name in compared.objectives)
    if most == next_most:
        return f"The fronts of {best.name} and {second.name} cover the same in {axes}."
    more = f"{percent(most / next_most - 1)} more" if next_most else "something, the other nothing"
    return (
        f"The front of {best.name} covers {more} in {axes} than that of {second.name}: a hypervolume of "
        f"{most:.4f} against {next_most:.4f}, a difference of {most - next_most:.4f}. Seeds are not "
        "accounted for."
    )


def _table(compared: Compared) -> Table:
    columns = (
        Column("study"),
        *map(Column, ("trials", "on the front", "hypervolume")),
        *(Column(name, "dense network") for name in ("parameters", "validation")),
        *(Column(name, "recommended") for name in ("parameters", "smaller", "validation", "test")),
    )
    rows = tuple(_row(compared, index) for index in range(len(compared.studies)))
    return Table(
        "The studies, and the network that each recommends; the hypervolumes are counted from one reference.",
        columns,
        rows,
    )


def _row(compared: Compared, index: int) -> Row:
    study = compared.studies[index]
    comparison = Comparison(study)
    dense, best = comparison.dense, best_of_front(study, comparison)
    chosen = comparison.of_trial(best) if best else None
    volume = compared.volumes[index] if compared.volumes else None
    smaller = dense.size("params") / chosen.size("params") if dense and chosen else None
    cells = (
        Cell(study.name),
        Cell(f"{len(study.complete)}"),
        Cell(f"{len(study.front)}"),
        Cell(UNKNOWN if volume is None else f"{volume:.4f}", volume),
        Cell(count(dense.size("params") if dense else None)),
        Cell(with_error(dense, "val_accuracy") if dense else UNKNOWN),
        Cell(count(chosen.size("params") if chosen else None)),
        Cell(UNKNOWN if smaller is None else times(smaller), smaller),
        *(
            Cell(with_error(chosen, metric) if chosen else UNKNOWN)
            for metric in ("val_accuracy", "test_accuracy")
        ),
    )
    return Row(cells)


def field_value(value: Any) -> str:
    """The value of a field as YAML has it: {log: [0.003, 0.04], steps: 4}."""
    if value is None:
        return UNKNOWN
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()


def _config_table(compared: Compared) -> Block:
    if not compared.differences:
        return Paragraph("Nothing but their names and where they run.")
    columns = (Column("field"), *(Column(study.name, text=True) for study in compared.studies))
    rows = tuple(
        Row((Cell(path), *(Cell(field_value(value)) for value in values)))
        for path, values in compared.differences.items()
    )
    return Table(f"{plural(len(rows), 'field')} of the configs differ.", columns, rows)
