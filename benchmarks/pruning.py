"""Tracing, planning and pruning as people call them: slimnet beside Torch-Pruning, network by network.

CPU seconds on one thread, with the defaults of each tool: slimnet absorbs constants and runs what it made.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import slimnet

RATIO = 0.5
REPEATS = 3
LIMIT = 120  # seconds for one network with one tool
SIZES = (64, 224)
NETWORKS = (
    "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "vgg16_bn", "densenet121", "mobilenet_v2",
    "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf", "mnasnet1_0", "shufflenet_v2_x1_0",
    "googlenet", "squeezenet1_0", "alexnet", "convnext_tiny", "fcn_resnet50", "deeplabv3_mobilenet_v3_large",
)  # fmt: skip
TOOLS = ("slimnet", "torch-pruning")


def main() -> None:
    """Print the seconds of both per network and size, the ratios, and what fails with which."""
    if find_spec("torch_pruning") is None:
        raise SystemExit("this benchmark needs torch-pruning; make bench installs it")
    failures: list[str] = []
    for size in SIZES:
        print(f"\n{size}x{size}\n\n| network | slimnet | torch-pruning | ratio |\n|---|---|---|---|")
        ratios = []
        for name in NETWORKS:
            facts = {tool: _in_process(tool, name, size) for tool in TOOLS}
            failures += [
                f"{name} at {size}, {tool}: {f['error']}" for tool, f in facts.items() if "error" in f
            ]
            seconds = [facts[tool].get("seconds") for tool in TOOLS]
            cells = ["–" if value is None else f"{value:.3f} s" for value in seconds]
            ours, theirs = seconds
            if ours is not None and theirs is not None:
                ratios.append(theirs / ours)
                cells.append(f"{ratios[-1]:.1f}x")
            print(f"| {' | '.join([name, *cells, *['–'] * (3 - len(cells))])} |", flush=True)
        spread = f"{min(ratios):.1f} to {max(ratios):.1f}"
        print(f"\nmedian ratio {statistics.median(ratios):.1f}x ({spread}) over {len(ratios)} networks")
    print("\nrefused or failed:\n\n" + "\n".join(f"- {failure}" for failure in failures))


def _in_process(tool: str, name: str, size: int) -> dict[str, Any]:
    """A process of its own for each, so that neither warms anything up for the other."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.pruning", tool, name, str(size)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return {"error": f"more than {LIMIT} s"}
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines else {"error": "it died"}


def network(name: str) -> nn.Module:
    """A network of torchvision with scaling factors that differ, in eval mode."""
    torch.manual_seed(0)
    whole = {"weights_backbone": None} if name.startswith(("fcn", "deeplab")) else {}
    options = {"init_weights": False} if name == "googlenet" else whole
    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight)
    return model.eval()


def _has_norms(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def _with_slimnet(model: nn.Module, example: torch.Tensor) -> nn.Module:
    graph = slimnet.trace(model, example)
    plan = slimnet.plan(graph, ratio=RATIO, streams=True, score="gamma" if _has_norms(model) else "l2")
    return slimnet.prune(model, plan)


def _with_torch_pruning(model: nn.Module, example: torch.Tensor) -> nn.Module:
    import torch_pruning

    importance = torch_pruning.importance
    last = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        example,
        importance=importance.BNScaleImportance()
        if _has_norms(model)
        else importance.GroupMagnitudeImportance(),
        global_pruning=True,
        pruning_ratio=RATIO,
        ignored_layers=[last],
    )
    pruner.step()
    return model


def _measure(tool: str, name: str, size: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    cut = {"slimnet": _with_slimnet, "torch-pruning": _with_torch_pruning}[tool]
    example = torch.zeros(1, 3, size, size)
    times = []
    for _ in range(REPEATS + 1):
        model = network(name)
        params = slimnet.count_params(model)
        began = time.process_time()
        try:
            smaller = cut(model, example)
        except Exception as error:
            return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:160]}
        times.append(time.process_time() - began)
    if slimnet.count_params(smaller) == params:
        return {"error": "nothing was removed"}
    with torch.no_grad():
        try:
            smaller(example)
        except Exception as error:
            return {"error": " ".join(f"its network does not run: {error}".split())[:160]}
    return {"seconds": statistics.median(times[1:]), "params": slimnet.count_params(smaller)}


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
