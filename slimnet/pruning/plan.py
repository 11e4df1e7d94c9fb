"""A pruning plan: the channels that stay, what that means for every layer, and the plan as a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimnet.errors import SlimnetError
from slimnet.files import replacing
from slimnet.graph import ChannelGraph


@dataclass(frozen=True)
class LayerCut:
    """The input and output channels of one layer that stay, as sorted indices."""

    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]


@dataclass(frozen=True)
class PruningPlan:
    """The channels kept per group.

    Attributes:
        graph: what was traced.
        kept: group name -> (kept,) sorted positions in `group.units`; a group not named keeps all.
        threshold: the largest score removed (for threshold_over="all": the threshold itself).
        prunable_channels: channels that the plan could choose from.
        removed_channels: channels that it removes.
        dropped: identity blocks that are dropped, by the name of their module.

    Example:
        >>> model = slimnet.models.resnet([1], width=8)
        >>> plan = slimnet.plan(slimnet.trace(model, torch.zeros(1, 3, 8, 8)), ratio=0.5)
        >>> plan.removed_channels, plan.ratio
        (8, 0.5)
    """

    graph: ChannelGraph = field(repr=False)
    kept: dict[str, NDArray[np.int64]] = field(repr=False)
    threshold: float
    prunable_channels: int
    removed_channels: int
    dropped: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """The fraction of prunable channels that is removed."""
        return self.removed_channels / self.prunable_channels

    def shuffled(self, seed: int) -> PruningPlan:
        """Random channels instead, as many in each group: the control of what the scores are worth."""
        rng = np.random.default_rng(seed)
        sizes = {group.name: len(group.units) for group in self.graph.groups}
        kept = {
            name: np.sort(rng.permutation(sizes[name])[: len(chosen)]).astype(np.int64)
            for name, chosen in self.kept.items()
        }
        return replace(self, kept=kept)

    def check(self) -> None:
        """See that every group keeps channels that it has.

        Raises:
            SlimnetError: one keeps none, though no block is dropped, or others than its own; or a name is of
                no group.
        """
        groups = {group.name: group for group in self.graph.groups}
        for name, kept in self.kept.items():
            if name not in groups:
                raise SlimnetError(f"the plan names a group {name}, which the network does not have")
            size = groups[name].size
            chosen = np.asarray(kept)
            there = not len(chosen) or (chosen.dtype.kind == "i" and 0 <= chosen.min() <= chosen.max() < size)
            if not there or (len(chosen) and np.bincount(chosen).max() > 1):
                raise SlimnetError(
                    f"the plan keeps channels {list(kept)} of {name}; they are of 0 to {size - 1}, each once"
                )
            if not len(kept) and not self.dropped:
                raise SlimnetError(f"the plan keeps no channel of {name}; keep one at least")

    def cuts(self) -> dict[str, LayerCut]:
        """For every layer that loses channels, which of its channels stay."""
        stays = self._stays()
        cuts = {}
        for name, units in self.graph.layers.items():
            inputs, outputs = stays[units.inputs], stays[units.outputs]
            if not (inputs.all() and outputs.all()):
                cuts[name] = LayerCut(np.flatnonzero(inputs), np.flatnonzero(outputs))
        return cuts

    def vector_cuts(self) -> dict[str, NDArray[np.int64]]:
        """For every other parameter or buffer that loses entries, those that stay, as sorted indices."""
        stays = self._stays()
        return {
            name: np.flatnonzero(stays[units])
            for name, units in self.graph.vectors.items()
            if not stays[units].all()
        }

    def setting_cuts(self) -> dict[str, int]:
        """For every attribute that counts fewer than before, what it becomes."""
        stays = self._stays()
        return {
            name: int(stays[units].sum())
            for name, units in self.graph.settings.items()
            if not stays[units].all()
        }

    def _stays(self) -> NDArray[np.bool_]:
        """(units,) what remains."""
        stays = np.ones(self.graph.unit_count, dtype=bool)
        for group in self.graph.groups:
            if group.name in self.kept:
                stays[group.units] = False
                stays[group.units[self.kept[group.name]]] = True
        return stays

    def table(self) -> list[tuple[str, int, int]]:
        """(layer, output channels before, after) for every layer that produces channels."""
        cuts = self.cuts()
        return [
            (name, len(units.outputs), len(cuts[name].outputs) if name in cuts else len(units.outputs))
            for name, units in self.graph.layers.items()
            if units.positions  # not of norms
        ]

    def __str__(self) -> str:
        rows = self.table()
        width = max(len(name) for name, _, _ in rows)
        lines = [f"{name:{width}}  {before:6} -> {after:6}" for name, before, after in rows]
        lines += [f"{name} dropped" for name in self.dropped]
        lines.append(f"{self.ratio:.1%} of {self.prunable_channels:,} prunable channels removed")
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON; it applies to every network of the same structure."""
        content = {
            "format": "slimnet plan",
            "version": 1,
            "layers": {name: list(map(len, (u.inputs, u.outputs))) for name, u in self.graph.layers.items()},
            "kept": {name: kept.tolist() for name, kept in self.kept.items()},
            "threshold": self.threshold,
            "prunable_channels": self.prunable_channels,
            "removed_channels": self.removed_channels,
            "dropped": list(self.dropped),
        }
        path = Path(path)
        try:
            with replacing(path) as file:
                file.write((json.dumps(content) + "\n").encode())
        except OSError as error:
            raise SlimnetError(f"cannot write {path}: {error.strerror}") from error


def load_plan(path: str | Path, graph: ChannelGraph) -> PruningPlan:
    """Read a plan for the network that `graph` is of.

    Raises:
        SlimnetError: no such file, not a plan, or a plan for another network, naming the first layer that
            disagrees.

    Example:
        >>> graph = slimnet.trace(slimnet.models.resnet([1], width=8), torch.zeros(1, 3, 8, 8))
        >>> slimnet.plan(graph, ratio=0.5).save("half.json")
        >>> slimnet.load_plan("half.json", graph).ratio
        0.5
    """
    try:
        content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        if content.get("format") != "slimnet plan":
            raise ValueError("it is not a slimnet plan")
        if content["version"] > 1:
            raise ValueError("it was written by a newer slimnet; upgrade")
        layers, kept = content["layers"], content["kept"]
    except OSError as error:
        raise SlimnetError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise SlimnetError(f"{path} cannot be used as a plan: {error}") from error
    own = {name: [len(units.inputs), len(units.outputs)] for name, units in graph.layers.items()}
    for name in [*layers, *own]:
        if layers.get(name) != own.get(name):
            raise SlimnetError(
                f"{path} is a plan for another network: {name} has (in, out) channels {layers.get(name)} "
                f"in the plan and {own.get(name)} here"
            )
    return PruningPlan(
        graph,
        {name: np.array(positions, dtype=np.int64) for name, positions in kept.items()},
        content["threshold"],
        content["prunable_channels"],
        content["removed_channels"],
        tuple(content["dropped"]),
    )
