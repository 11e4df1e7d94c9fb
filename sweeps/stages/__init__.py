"""Stages: the kinds there are, what a trial makes of them, and the folders that hold their results.

A stage is a pure function of its spec. A kind of stage is one file here: its spec, and how it is computed.
"""

from typing import Any

from sweeps.stages.chain import Stage, chain, control, curve_stage, dense_stage
from sweeps.stages.curve import CurveSpec
from sweeps.stages.finetune import FinetuneSpec
from sweeps.stages.folder import StageFolder, Store
from sweeps.stages.prune import PruneSpec
from sweeps.stages.sparse import EarlySpec, SparseSpec
from sweeps.stages.spec import Spec

__all__ = [
    "KINDS",
    "Spec",
    "Stage",
    "StageFolder",
    "Store",
    "chain",
    "control",
    "curve_stage",
    "dense_stage",
    "parse_spec",
]

KINDS: dict[str, type[Spec]] = {
    "sparse": SparseSpec,
    "early": EarlySpec,
    "prune": PruneSpec,
    "finetune": FinetuneSpec,
    "curve": CurveSpec,
}
"""The kinds of stages: those of a trial in the order in which it meets them, then the others."""


def parse_spec(content: dict[str, Any]) -> Spec:
    """The spec in the content of a spec.json.

    Raises:
        KeyError: no such kind, or none is given.
        pydantic.ValidationError: a field does not fit the kind.
    """
    fields = {name: value for name, value in content.items() if name != "format"}
    return KINDS[fields["kind"]].model_validate(fields)
