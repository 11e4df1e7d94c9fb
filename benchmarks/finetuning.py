"""Ways to fine-tune the same pruned networks, over three seeds.

Validation accuracy is what a default may be chosen by; test accuracy stands beside it.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import slimnet
from benchmarks.fashion import SEEDS, SPARSE, cut_to, describe, fine_tune, sparse_network, spread
from slimnet.data.augmentation import Augmentation
from slimnet.evaluation import evaluate
from slimnet.training.recipe import Recipe
from slimnet.training.sparsity import Sparsity

STRENGTH = 0.008
PARAMS = 20_000
BASE = Recipe(epochs=4, lr=0.05, augmentation=Augmentation(crop=1, flip=True))
COSINE = replace(BASE, schedule="cosine")
TAUGHT = replace(BASE, distill=0.5, temperature=4.0)
VARIANTS = {
    "one-cycle, lr 0.02": replace(BASE, lr=0.02),
    "one-cycle, lr 0.05": BASE,
    "one-cycle, lr 0.1": replace(BASE, lr=0.1),
    "cosine, lr 0.02": replace(COSINE, lr=0.02),
    "cosine, lr 0.05": COSINE,
    "cosine, lr 0.1": replace(COSINE, lr=0.1),
    "rewind, lr 0.1": replace(BASE, schedule="rewind", lr=SPARSE.lr),
    "one-cycle, lr 0.05, distilled": TAUGHT,
    "cosine, lr 0.05, distilled": replace(TAUGHT, schedule="cosine"),
    "rewind, lr 0.1, distilled": replace(TAUGHT, schedule="rewind", lr=SPARSE.lr),
}


def main() -> None:
    """Train and prune once per seed, fine-tune in every way, print the table."""
    print(f"{describe()}, l1 at λ {STRENGTH:g}; pruned to {PARAMS:,} parameters, {BASE.epochs} epochs after;")
    print(f"distilled: weight {TAUGHT.distill:g}, temperature {TAUGHT.temperature:g}. Mean and spread in %\n")
    settings = [sparse_network(seed, STRENGTH, Sparsity("l1")) for seed in SEEDS]
    cut = [cut_to(setting, PARAMS) for setting in settings]
    params = sum(map(slimnet.count_params, cut)) / len(cut)
    print(f"before pruning, test: {spread([evaluate(s.model, s.splits, s.splits.test) for s in settings])}")
    print(f"pruned to {params:,.0f} parameters, test: ", end="")
    print(spread([evaluate(model, s.splits, s.splits.test) for model, s in zip(cut, settings, strict=True)]))
    print("\n| fine-tuning | validation | test |\n|---|---|---|")
    for name, recipe in VARIANTS.items():
        validation, test = [], []
        for setting, model in zip(settings, cut, strict=True):
            tuned = copy.deepcopy(model)
            fine_tune(setting, tuned, recipe)
            validation.append(evaluate(tuned, setting.splits, setting.splits.validation))
            test.append(evaluate(tuned, setting.splits, setting.splits.test))
        print(f"| {name} | {spread(validation)} | {spread(test)} |", flush=True)
