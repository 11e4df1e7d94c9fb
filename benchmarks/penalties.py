"""What the penalties are worth at equal parameters, before and after fine-tuning, over three seeds.

λ is not tuned for each: the rows say at which it was measured. Test accuracy; nothing is selected on it.
"""

from __future__ import annotations

import slimnet
from benchmarks.fashion import SEEDS, cut_to, describe, fine_tune, sparse_network, spread
from slimnet.data.augmentation import Augmentation
from slimnet.evaluation import evaluate
from slimnet.pruning.planning import scaling_factors
from slimnet.training.penalties import near_zero
from slimnet.training.recipe import Recipe
from slimnet.training.sparsity import Sparsity

PENALTIES = {
    "l1": (0.008, Sparsity("l1")),
    "proximal": (0.008, Sparsity("proximal")),
    "polarization": (0.004, Sparsity("polarization")),
}
PARAMS = 30_000
FINE_TUNING = Recipe(epochs=3, lr=0.05, augmentation=Augmentation(crop=1, flip=True))


def main() -> None:
    """Train, prune, fine-tune, print the table."""
    print(f"{describe()}; pruned to {PARAMS:,} parameters, {FINE_TUNING.epochs} epochs after.")
    print("Mean and spread in %\n")
    print("| penalty | λ | near zero | before pruning | pruned | fine-tuned | parameters |")
    print("|---|---|---|---|---|---|---|")
    for name, (strength, sparsity) in PENALTIES.items():
        runs = [_one_seed(seed, strength, sparsity) for seed in SEEDS]
        *shares, params = zip(*runs, strict=True)
        cells = [spread(list(values)) for values in shares]
        row = [name, f"{strength:g}", *cells, f"{sum(params) / len(params):,.0f}"]
        print("| " + " | ".join(row) + " |", flush=True)


def _one_seed(seed: int, strength: float, sparsity: Sparsity) -> tuple[float, float, float, float, int]:
    """Fraction near zero, the three accuracies and the parameters left."""
    setting = sparse_network(seed, strength, sparsity)
    test = setting.splits.test
    fraction = near_zero(list(scaling_factors(setting.graph, streams=True).values()))
    before = evaluate(setting.model, setting.splits, test)
    smaller = cut_to(setting, PARAMS)
    pruned = evaluate(smaller, setting.splits, test)
    fine_tune(setting, smaller, FINE_TUNING)
    return fraction, before, pruned, evaluate(smaller, setting.splits, test), slimnet.count_params(smaller)
