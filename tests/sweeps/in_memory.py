"""A stage's long parts without a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sweeps.records import Histogram, Row


@dataclass
class InMemory:
    """The long parts of a stage, and how often they were read."""

    rows: list[Row] = field(default_factory=list)
    layers: dict[str, Histogram] = field(default_factory=dict)
    ended: list[float] = field(default_factory=list)
    checkpoint: Path = Path("none")
    reads: int = 0

    def network(self) -> Path | None:
        return self.checkpoint if self.checkpoint.is_file() else None

    def history(self) -> list[Row]:
        self.reads += 1
        return self.rows

    def times(self) -> list[float]:
        return self.ended

    def seconds(self) -> float:
        return float(len(self.rows))

    def gamma_layers(self) -> dict[str, Histogram]:
        self.reads += 1
        return self.layers
