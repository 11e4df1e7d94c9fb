"""A study of which only accuracies by seed are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from in_memory import InMemory

from sweeps.comparison import Comparison
from sweeps.config import load_config
from sweeps.records import ContenderKind, ContenderRecord, StageRecord, StudyRecord, TrialRecord

Values = Sequence[float | None]
"""Validation accuracies of seeds 0, 1, ...; None where a seed has none."""


def stage(kind: str, accuracy: float, params: int, images: int | None, epochs: int) -> StageRecord:
    facts: dict[str, Any] = {
        "params": params,
        "macs": 10 * params,
        "val_accuracy": accuracy,
        "test_accuracy": accuracy - 0.02,
    }
    if images:
        facts |= {"val_images": images, "test_images": 4 * images}
    spec = {"recipe": {"epochs": epochs}}
    return StageRecord(kind, kind, "key", spec, "done", epochs, {"metrics": facts}, None, InMemory())


@dataclass
class Made:
    """A study with these accuracies by seed.

    Attributes:
        trials: of trials 0, 1, ..., all on the front, which have 900, 800, ... parameters.
        controls: of (kind, trial).
    """

    dense: Values
    trials: Sequence[Values]
    controls: Mapping[tuple[ContenderKind, int], Values] = field(default_factory=dict)
    images: int | None = None

    def study(self) -> StudyRecord:
        config = load_config("smoke")
        contenders: list[ContenderRecord] = []
        records: list[TrialRecord] = []

        def chain(kind: str, accuracy: float, params: int) -> tuple[StageRecord, ...]:
            first, last = (stage(name, accuracy, params, self.images, 2) for name in ("sparse", "finetune"))
            return (first,) if kind in ("dense", "uniform") else (first, last)

        def add(kind: ContenderKind, number: int | None, values: Values, params: int, begin: int) -> None:
            for seed, accuracy in list(enumerate(values))[begin:]:
                done = chain(kind, accuracy or 0.0, params)
                state = "failed" if accuracy is None else "complete"
                contenders.append(ContenderRecord(kind, number, seed, state, None, done))  # type: ignore[arg-type]

        add("dense", None, self.dense, 1000, 1)
        for number, values in enumerate(self.trials):
            params = 900 - 100 * number
            record = chain("trial", values[0] or 0.0, params)
            records.append(TrialRecord(number, {}, config, "complete", None, record))
            add("trial", number, values, params, 1)
        for (kind, number), values in self.controls.items():
            add(kind, number, values, 890 - 100 * number, 0)
        dense = stage("sparse", self.dense[0] or 0.0, 1000, self.images, 4)
        if self.dense[0] is None:
            dense = replace(dense, state="failed", result=None, failure={"reason": "NaN", "detail": ""})
        numbers = [record.number for record in records]
        return StudyRecord("smoke", "u", config, len(records), dense, records, numbers, contenders)

    def compared(self) -> Comparison:
        return Comparison(self.study())
