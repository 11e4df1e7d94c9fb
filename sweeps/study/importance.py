"""How much each searched field matters, by Optuna's PED-ANOVA."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import optuna

from sweeps.config.space import Space
from sweeps.study.optuna_space import OptunaSpace

Importance = dict[str, float]


def importances(
    space: Space,
    directions: Mapping[Any, Literal["maximize", "minimize"]],
    trials: Sequence[tuple[Mapping[str, Any], Sequence[float]]],
) -> dict[str | None, Importance]:
    """How important each field is for being among the best trials (PED-ANOVA, arXiv 2304.10255).

    Args:
        space: the searched fields.
        directions: "maximize" or "minimize" by objective.
        trials: the point of each finished trial, which is in the space, and its objectives in order.

    Returns:
        By objective, and by None for the front without preference for any, the importance of each field,
        which add up to 1; without fields that go by another.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fields = OptunaSpace(space)
    study = optuna.create_study(directions=list(directions.values()))
    for params, values in trials:
        encoded = fields.encode(params)
        study.add_trial(
            optuna.create_trial(
                params=encoded, distributions=fields.distributions_of(encoded), values=list(values)
            )
        )
    found: dict[str | None, Importance] = {None: _importance(study)}
    for index, (name, direction) in enumerate(directions.items()):
        found[name] = _importance(study, index, -1.0 if direction == "maximize" else 1.0)
    return found


def _importance(study: optuna.Study, index: int | None = None, sign: float = 1.0) -> Importance:
    def cost(trial: optuna.trial.FrozenTrial) -> float:
        return sign * float(trial.values[cast(int, index)])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it reminds of the direction
        return optuna.importance.get_param_importances(study, target=None if index is None else cost)
