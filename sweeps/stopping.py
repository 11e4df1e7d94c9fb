"""The rule by which trials are stopped early.

Once a network is pruned for the last time, its parameters and MACs are exact and only its accuracy is open. A
trial is stopped as soon as even its optimistic accuracy could add next to nothing to the front.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sweeps.config import Search
from sweeps.pareto import Front, hypervolume, reference
from sweeps.records import Stop

FEWEST = 5  # finished trials, from which the best gain is taken; before that, any accuracy counts as possible
MOST_NAMED = 6  # trials of the front, in a reason
_ROUNDING = 1e-12  # of a hypervolume


@dataclass
class Course:
    """How the accuracy of a network on the validation split has developed since it was last pruned.

    Attributes:
        epochs: all epochs of its fine-tuning; courses are compared with others of as many.
        accuracies: by epoch, where it was measured; of epoch 0, right after pruning.
    """

    epochs: int
    accuracies: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Gain:
    """The most that any finished trial gained from an epoch to its end.

    Attributes:
        points: of accuracy.
        trial: which gained it.
        trials: how many were measured in that epoch.
    """

    points: float
    trial: int
    trials: int


class Yardstick:
    """What the trials up to some number have shown, by which later ones are judged.

    Args:
        search: the objectives, the constraints, and `stopping`, the least that a trial must be able to add.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._gains: dict[tuple[int, int], Gain] = {}  # by the epochs of a course, and the epoch
        self._front: dict[int, Mapping[str, Any]] = {}
        self._whole: dict[str, float] = {}  # the worst of the networks before pruning, in each objective
        self._volume = 0.0

    def with_trial(
        self, number: int, facts: Mapping[str, Any], whole: Mapping[str, Any], course: Course
    ) -> Yardstick:
        """A yardstick that also takes a trial into account that has been trained to its end.

        Args:
            number: the trial's.
            facts: the metrics of its network.
            whole: those of its network before pruning.
            course: of its fine-tuning.
        """
        new = Yardstick(self._search)
        new._gains = dict(self._gains)
        for epoch, accuracy in course.accuracies.items():
            place, points = (course.epochs, epoch), facts["val_accuracy"] - accuracy
            known = new._gains.get(place, Gain(-1.0, number, 0))
            best = known if known.points >= points else Gain(points, number, 0)
            new._gains[place] = replace(best, trials=known.trials + 1)
        new._whole = {
            name: max(float(whole[name]), self._whole.get(name, 0.0)) for name in self._search.objectives
        }
        rows = {**self._front, number: facts} if self._search.allows(facts) else self._front
        front = Front(self._search.objectives)
        for key, row in rows.items():
            front.add(key, row)
        new._front = {key: rows[key] for key in sorted(front.numbers())}
        new._volume = new._hypervolume()
        return new

    def judge(self, facts: Mapping[str, Any], course: Course, epoch: int) -> Stop | None:
        """Whether a trial is stopped after an epoch in which its accuracy was measured.

        Args:
            facts: the parameters and MACs of its network.
            course: of its fine-tuning so far.
            epoch: of the course; 0 for right after pruning.
        """
        least = self._search.stopping
        assert least is not None, "trials are not stopped"
        own, gain = course.accuracies[epoch], self._gain(course.epochs, epoch)
        best = min(1.0, own + gain.points) if gain else 1.0
        optimistic = {**facts, "val_accuracy": best}
        if not self._search.allows(optimistic):
            effect = "cannot meet search.constraints"
        elif (added := self._added(optimistic)) is not None and added <= least + _ROUNDING:
            effect = f"adds {added:.2%} to the front of {_listed(self._front)}"
        else:
            return None
        when = f"after epoch {epoch} of {course.epochs}" if epoch else "right after pruning"
        source = f", as trial {gain.trial} gained {100 * gain.points:.1f} points from there" if gain else ""
        judged = {*self._search.objectives, *self._search.constraints}
        size = ", ".join(f"{int(facts[name]):,} {name}" for name in ("params", "macs") if name in judged)
        reason = f"{own:.1%} {when}; at best {best:.1%}{source}, which at {size} {effect}"
        return Stop(epoch, reason, {**facts, "val_accuracy": best})

    def _gain(self, epochs: int, epoch: int) -> Gain | None:
        """The best gain from an epoch on; None before enough trials show it."""
        gain = self._gains.get((epochs, epoch))
        return gain if gain and gain.trials >= FEWEST else None

    def _added(self, row: Mapping[str, Any]) -> float | None:
        """The fraction by which a network would enlarge the hypervolume; None before there is any."""
        return (self._hypervolume(row) - self._volume) / self._volume if self._volume else None

    def _hypervolume(self, *more: Mapping[str, Any]) -> float:
        """What the front covers, and more networks with it, as in pareto.json."""
        objectives = self._search.objectives
        bound = reference(self._whole, objectives)
        assert bound is not None, "there is no trial yet"
        return hypervolume([*self._front.values(), *more], objectives, bound)


def _listed(front: Mapping[int, Any]) -> str:
    numbers = list(front)
    shown = ", ".join(map(str, numbers[:MOST_NAMED]))
    more = f" and {len(numbers) - MOST_NAMED} more" if len(numbers) > MOST_NAMED else ""
    return f"trial{'s' * (len(numbers) > 1)} {shown}{more}"
