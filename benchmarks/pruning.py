"""Cutting the same channels out of the same ResNet-50: slimnet beside Torch-Pruning."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import nn

import slimnet
from slimnet.models import ResNet
from slimnet.models.blocks import Bottleneck

RATIO = 0.5
REPEATS = 9
TURNS = 7
TOOLS = ("slimnet", "torch-pruning")


def main() -> None:
    """Print time and memory of both, and the ratios."""
    if find_spec("torch_pruning") is None:
        raise SystemExit("this benchmark needs torch-pruning; make bench installs it")
    # They take turns, so that whatever else the machine does meets both.
    turns = [{tool: _in_process(tool) for tool in TOOLS} for _ in range(TURNS)]
    found = {tool: _medians([turn[tool] for turn in turns]) for tool in TOOLS}
    ratios = [turn[TOOLS[1]]["seconds"] / turn[TOOLS[0]]["seconds"] for turn in turns]
    print("| tool | trace, plan, prune | peak memory above the network | parameters left |")
    print("|---|---|---|---|")
    for tool, facts in found.items():
        print(f"| {tool} | {facts['seconds']:.3f} s | {facts['megabytes']:.0f} MB | {facts['params']:,} |")
    ours, theirs = (found[tool] for tool in TOOLS)
    spread = f"{min(ratios):.1f} to {max(ratios):.1f} in {TURNS} turns, each the median of {REPEATS}"
    memory = theirs["megabytes"] / max(1, ours["megabytes"])
    print(f"\ntime ratio {statistics.median(ratios):.1f}x ({spread}), memory ratio {memory:.1f}x")


def _medians(facts: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(fact[name] for fact in facts) for name in facts[0]}


def _in_process(tool: str) -> dict[str, float]:
    """Peak memory is a process's own, so each tool gets one."""
    command = [sys.executable, "-m", "benchmarks.pruning", tool]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    facts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return facts


def network() -> ResNet:
    torch.manual_seed(0)
    model = slimnet.models.resnet50()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight)
    return model.eval()


def _with_slimnet(model: ResNet, example: torch.Tensor) -> nn.Module:
    plan = slimnet.plan(slimnet.trace(model, example), ratio=RATIO, min_channels=1)
    return slimnet.prune(model, plan, absorb=False)


def _with_torch_pruning(model: ResNet, example: torch.Tensor) -> nn.Module:
    import torch_pruning

    # What slimnet keeps whole by default: the stem, the residual streams, the classifier.
    whole: list[nn.Module] = [model.conv1, model.fc]
    for module in model.modules():
        if isinstance(module, Bottleneck):
            whole += [module.conv3, module.shortcut]
    pruner = torch_pruning.pruner.BNScalePruner(
        model,
        example,
        importance=torch_pruning.importance.BNScaleImportance(),
        global_pruning=True,
        pruning_ratio=RATIO,
        ignored_layers=whole,
    )
    pruner.step()
    return model


def _measure(cut: Callable[[ResNet, torch.Tensor], nn.Module]) -> dict[str, float]:
    torch.set_num_threads(1)
    example = torch.zeros(1, 3, 32, 32)
    networks = [network() for _ in range(REPEATS)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    peak = 0
    for model in networks:
        started = time.perf_counter()
        smaller = cut(model, example)
        times.append(time.perf_counter() - started)
        peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "seconds": statistics.median(times),
        "megabytes": peak / 1024,
        "params": slimnet.count_params(smaller),
    }


if __name__ == "__main__":
    print(json.dumps(_measure({"slimnet": _with_slimnet, "torch-pruning": _with_torch_pruning}[sys.argv[1]])))
