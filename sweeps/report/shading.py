"""The colour of a trial, the same throughout the report.

Trials are coloured by λ; if a study does not search λ, by the first field that varies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.records import TrialRecord
from sweeps.report.view import LAMBDA, StudyView, path_name
from sweeps.report.wording import searched_value

# From blue over purple to orange: distinguishable with any colour vision, and with a contrast of at least 3:1
# to both the white and the near-black page.
RAMP = ("#2f6fd0", "#7f63c4", "#b8569b", "#d75f5c", "#d5832a")
NEUTRAL = "#7b828c"  # the dense network and λ = 0

MOST_KEYS = 8  # with more values, a legend is a scale instead of a list
_STEPS = 32  # colours of a scale; points of one colour are drawn together


def ramp(position: float) -> str:
    """The colour at a position from 0 to 1 along the ramp, as #rrggbb."""
    index = min(int(position * (len(RAMP) - 1)), len(RAMP) - 2)
    part = position * (len(RAMP) - 1) - index
    mixed = (a + (b - a) * part for a, b in zip(rgb(RAMP[index]), rgb(RAMP[index + 1]), strict=True))
    return "#" + "".join(f"{round(channel):02x}" for channel in mixed)


def rgb(colour: str) -> tuple[int, int, int]:
    """#rrggbb as numbers from 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


@dataclass(frozen=True)
class Shade:
    """The trials of one colour; `label` is their name in the legend."""

    colour: str
    label: str
    trials: list[TrialRecord]


@dataclass(frozen=True)
class Shading:
    """One colour per value of the field at `path`, in ascending order of the values."""

    view: StudyView
    path: str
    colours: dict[Any, str]

    @classmethod
    def of(cls, view: StudyView) -> Shading:
        """Colours along the logarithm of the values, or by rank if they have none."""
        searched = [LAMBDA, *(path for path in view.paths if path != LAMBDA)]
        values = {path: {view.value(trial, path) for trial in view.study.trials} for path in searched}
        path = next((path for path in searched if len(values[path]) > 1), LAMBDA)
        ordered = sorted(
            values[path], key=lambda v: (0, v, "") if isinstance(v, int | float) else (1, 0, str(v))
        )
        positions = _positions(ordered)
        if len(ordered) > MOST_KEYS:
            positions = [round(_STEPS * position) / _STEPS for position in positions]
        colours = dict(zip(ordered, map(ramp, positions), strict=True))
        if path == LAMBDA and 0 in colours:
            colours[0] = NEUTRAL
        return cls(view, path, colours)

    def colour(self, trial: TrialRecord) -> str:
        """The colour of a trial."""
        return self.colours[self.view.value(trial, self.path)]

    def label(self, value: Any) -> str:
        """The name of a value in the legend: "λ 0.003"."""
        return f"{path_name(self.path)} {searched_value(value)}"

    @property
    def is_scale(self) -> bool:
        """Whether there are too many values for a list."""
        return len(self.colours) > MOST_KEYS

    @property
    def of_sparse_training(self) -> bool:
        """Whether trials that share a sparse training run have the same colour."""
        return self.path.partition(".")[0] not in ("prune", "finetune")

    def shades(self, trials: Iterable[TrialRecord]) -> list[Shade]:
        """The trials by value, or by colour if the legend is a scale, in the order of the legend."""
        shades: dict[Any, Shade] = {}
        for value, colour in self.colours.items():
            shades.setdefault(self._group(value), Shade(colour, self.label(value), []))
        for trial in trials:
            shades[self._group(self.view.value(trial, self.path))].trials.append(trial)
        return [shade for shade in shades.values() if shade.trials]

    def _group(self, value: Any) -> Any:
        return self.colours[value] if self.is_scale else value


def _positions(values: Sequence[Any]) -> list[float]:
    """Where ascending values lie between the lowest (0) and the highest (1)."""
    numbers = [value for value in values if isinstance(value, int | float) and value > 0]
    if len(numbers) < len([value for value in values if value != 0]):
        return [index / max(len(values) - 1, 1) for index in range(len(values))]
    span = math.log(numbers[-1] / numbers[0]) if numbers else 0
    return [math.log(value / numbers[0]) / span if value and span else 0.0 for value in values]
