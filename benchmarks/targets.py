"""How near the fraction of channels at zero ends to the target that was asked for, over three seeds."""

from __future__ import annotations

from benchmarks.fashion import SEEDS, describe, sparse_network, spread
from slimnet.evaluation import evaluate
from slimnet.pruning.planning import scaling_factors
from slimnet.training.penalties import near_zero
from slimnet.training.sparsity import PenaltyName, Sparsity

TARGETS = (0.5, 0.7, 0.9)
PENALTIES: tuple[PenaltyName, ...] = ("proximal", "l1")


def main() -> None:
    """Train to each target with either penalty, print the table."""
    print(f"{describe()}. Mean and spread in %\n")
    print("| penalty | target | near zero, seed by seed | near zero | test accuracy |")
    print("|---|---|---|---|---|")
    for penalty in PENALTIES:
        for target in TARGETS:
            shares, accuracies = [], []
            for seed in SEEDS:
                setting = sparse_network(seed, 0.0, Sparsity(penalty, target=target))
                shares.append(near_zero(list(scaling_factors(setting.graph, streams=True).values())))
                accuracies.append(evaluate(setting.model, setting.splits, setting.splits.test))
            each = ", ".join(f"{100 * fraction:.1f}" for fraction in shares)
            row = [penalty, f"{100 * target:.0f}", each, spread(shares), spread(accuracies)]
            print("| " + " | ".join(row) + " |", flush=True)
