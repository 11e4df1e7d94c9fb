"""What pruning buys at inference: dense, masked and pruned ResNet-50, BatchNorms folded."""

from __future__ import annotations

import torch

import slimnet
from slimnet.folding import fold
from slimnet.latency import measure_latency

BATCHES = (1, 16)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = slimnet.models.resnet50().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight)
    graph = slimnet.trace(model, torch.zeros(1, 3, 32, 32))
    networks: dict[str, torch.nn.Module] = {"dense": model}
    for ratio in (0.5, 0.9):
        plan = slimnet.plan(graph, ratio=ratio)
        networks[f"masked, ratio {ratio:g}"] = slimnet.mask(model, plan)
        networks[f"pruned, ratio {ratio:g}"] = slimnet.prune(model, plan)
    timed = " | ".join(f"batch {batch}: ms (quartiles) | faster" for batch in BATCHES)
    print(f"| network | MACs | fewer | {timed} |")
    print("|---|---|---|" + "---|---|" * len(BATCHES))
    macs = {name: slimnet.count_macs(each, torch.zeros(1, 3, 32, 32)) for name, each in networks.items()}
    dense: dict[int, float] = {}
    for name, each in networks.items():
        cells = [name, f"{macs[name] / 1e6:.1f} M", f"{macs['dense'] / macs[name]:.2f}x"]
        for batch in BATCHES:
            found = measure_latency(fold(each), torch.randn(batch, 3, 32, 32))
            dense.setdefault(batch, found.median_ms)
            cells.append(f"{found.median_ms:.2f} ({found.low_ms:.2f} to {found.high_ms:.2f})")
            cells.append(f"{dense[batch] / found.median_ms:.2f}x")
        print("| " + " | ".join(cells) + " |", flush=True)
