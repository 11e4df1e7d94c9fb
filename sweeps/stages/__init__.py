"""Stages: their kinds, the chain of them that a trial is, and the folders that hold their results.

A stage is a pure function of its spec. Each kind of stage has a module here: its spec and its computation.
"""

from typing import Any

from sweeps.stages.chain import Stage, chain, control, curve_stage, dense_stage, latency_stage
from sweeps.stages.contents import DamagedStageError
from sweeps.stages.curve import CurveSpec
from sweeps.stages.finetune import FinetuneSpec
from sweeps.stages.folder import StageFolder
from sweeps.stages.latency import LatencySpec
from sweeps.stages.prune import PruneSpec
from sweeps.stages.sparse import EarlySpec, SparseSpec
from sweeps.stages.spec import Spec
from sweeps.stages.store import Store

__all__ = [
    "KINDS",
    "DamagedStageError",
    "Spec",
    "Stage",
    "StageFolder",
    "Store",
    "chain",
    "control",
    "curve_stage",
    "dense_stage",
    "latency_stage",
    "parse_spec",
]

KINDS: dict[str, type[Spec]] = {
    "sparse": SparseSpec,
    "early": EarlySpec,
    "prune": PruneSpec,
    "finetune": FinetuneSpec,
    "curve": CurveSpec,
    "latency": LatencySpec,
}
"""The kinds of stages: first those of a trial, in the order of its chain, then the others."""


def parse_spec(content: dict[str, Any]) -> Spec:
    """The spec in the content of a spec.json.

    Raises:
        KeyError: the kind is missing or unknown.
        pydantic.ValidationError: a field does not fit the kind.
    """
    fields = {name: value for name, value in content.items() if name != "format"}
    return KINDS[fields["kind"]].model_validate(fields)
