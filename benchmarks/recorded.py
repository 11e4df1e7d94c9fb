"""Real fine-tuning curves of every point of a small search space, recorded once, and replayed in no time.

`python -m benchmarks.recorded RUNS` trains what RUNS lacks, with one thread, and writes curves.json.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from benchmarks import instant
from slimnet.precision import native_precision
from sweeps.config import Config, load_config
from sweeps.executors.inline import InlineExecutor
from sweeps.files import write_text
from sweeps.jobs import Job, Place, Watch
from sweeps.records import Row, StudyRecord
from sweeps.stages import Stage
from sweeps.stages.prune import PruneSpec
from sweeps.stages.sparse import SparseSpec

FILE = Path(__file__).with_name("curves.json")
SPARSE_EPOCHS = EPOCHS = 8
SPACE = {
    "sparse.lambda": {"log": [0.003, 0.04], "steps": 4},
    "prune.params": {"log": [900, 24000], "steps": 8},
    "finetune.weights": ["fresh", "pruned"],
}
SETTINGS = (
    "study=recorded",
    "model.width=8",
    f"sparse={{epochs: {SPARSE_EPOCHS}, lr: 0.1, batch_size: 64, evaluate_every: {SPARSE_EPOCHS}}}",
    f"finetune={{epochs: {EPOCHS}, lr: 0.1, batch_size: 64, evaluate_every: 1}}",
    f"search.space={json.dumps(SPACE)}",
    "search.stopping=null",
    "controls.uniform=false",
    "confirm.seeds=1",
    "curves=false",
    "latency=false",
)


@dataclass(frozen=True)
class Curve:
    """A point and the accuracies of its network on the validation split, all as they were measured.

    Attributes:
        strength, budget, weights: the point: λ, the most parameters, and with which weights it is fine-tuned.
        params, macs: of its network.
        pruned: right after pruning.
        tuned: after each epoch of fine-tuning.
    """

    strength: float
    budget: int
    weights: str
    params: int
    macs: int
    pruned: float
    tuned: list[float]

    @property
    def point(self) -> tuple[float, int, str]:
        """What tells the curve from the others."""
        return self.strength, self.budget, self.weights


@dataclass(frozen=True)
class Recorded:
    """All curves, and the size of the dense network."""

    dense: dict[str, Any]
    curves: list[Curve]

    @cached_property
    def of(self) -> dict[tuple[float, int, str], Curve]:
        """The curves by their point."""
        return {curve.point: curve for curve in self.curves}


def settings(*more: str) -> Config:
    """The config that was recorded, with changes that the curves do not depend on."""
    return load_config("fashion-mini", [*SETTINGS, *more])


@cache
def load() -> Recorded:
    """The recorded curves."""
    content = json.loads(FILE.read_bytes())
    return Recorded(content["dense"], [Curve(**curve) for curve in content["curves"]])


def compute(job: Job, place: Place, watch: Watch) -> bool:
    """A stand-in for `sweeps.worker.compute` with the accuracies and sizes that were recorded."""
    return instant.compute_by(job, place, watch, _metrics, _row)


def _metrics(stage: Stage) -> dict[str, Any]:
    if stage.kind == "sparse":
        return {**load().dense, "test_accuracy": 0.0}
    curve = load().of[_point(stage)]
    accuracy = curve.pruned if stage.kind == "prune" else curve.tuned[-1]
    shown = {"kept": curve.params, "prunable": load().dense["params"]}  # as a ratio, in displays alone
    sizes = {"params": curve.params, "macs": curve.macs}
    return {**sizes, **shown, "val_accuracy": accuracy, "test_accuracy": 0.0}


def _row(stage: Stage, epoch: int) -> Row:
    tuned = {} if stage.kind == "sparse" else {"val_accuracy": load().of[_point(stage)].tuned[epoch - 1]}
    return {"epoch": epoch, "epochs": stage.epochs, **tuned}


def _point(stage: Stage) -> tuple[float, int, str]:
    """The point of a pruning or a fine-tuning."""
    weights = stage.spec.dump().get("weights", "fresh")
    while not isinstance(stage.spec, PruneSpec):
        stage = stage.inputs["parent"]
    sparse = stage.inputs["parent"].spec
    assert isinstance(sparse, SparseSpec)
    return sparse.strength, int(str(stage.spec.prune.params)), weights


def record(runs: Path) -> None:
    """Train every point in `runs`, and write the curves."""
    from benchmarks.driver import run_in
    from sweeps.worker import compute

    config = settings("search.sampler=grid", "search.trials=64")
    study = run_in(runs, config, InlineExecutor(compute), native_precision("cpu"))
    assert study.ended
    write(study)


def write(study: StudyRecord) -> None:
    """Write the curves of a finished study."""
    metrics = study.dense.metrics
    curves = [
        Curve(
            strength=trial.config.sparse.lambda_,
            budget=int(str(trial.config.prune.params)),
            weights=trial.config.finetune.weights,
            params=trial.metrics["params"],
            macs=trial.metrics["macs"],
            pruned=trial.first("prune").metrics["val_accuracy"],
            tuned=[row["val_accuracy"] for row in trial.last("finetune").history],
        )
        for trial in study.complete
    ]
    dense = {name: metrics[name] for name in ("params", "macs", "val_accuracy")}
    lines = ",\n".join(json.dumps(asdict(curve)) for curve in curves)
    write_text(FILE, f'{{"dense": {json.dumps(dense)},\n"curves": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    record(Path(sys.argv[1]))
