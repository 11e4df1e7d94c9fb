"""An accelerator that every machine has: its tensors are kept by the processor, but only meet each other.

As a program it takes a network through the steps of an experiment, on the processor and on this accelerator,
and prints what comes out. Like Apple's GPUs it has no float64. It is a backend of torch in Python, which can
be registered once in a process and not be taken back.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

import slimnet
from slimnet import networks, steps
from slimnet.data import split
from slimnet.data.sets import Dataset
from slimnet.training.recipe import Recipe
from slimnet.training.sparsity import Sparsity

NAME = "pretend"
OPERATIONS = (  # for which torch has a way that suits every backend but one whose tensors hold nothing
    *(
        "convolution_overrideable",
        "convolution_backward_overrideable",
        "detach",
        "permute",
        "transpose.int",
        "t",
    ),
    *(
        "view",
        "_unsafe_view",
        "_reshape_alias",
        "expand",
        "select.int",
        "slice.Tensor",
        "unsqueeze",
        "unbind.int",
    ),
    *(
        "squeeze",
        "squeeze.dim",
        "squeeze.dims",
        "split.Tensor",
        "split_with_sizes",
        "cat",
        "stack",
        "abs",
        "sign",
    ),
    *("square", "isfinite", "outer", "matmul", "index.Tensor", "where.self"),
)
aten = torch.ops.aten
contents: dict[int, tuple[torch.Tensor, Any]] = {}  # by the storage of a tensor, which is kept with it


class Pretended(torch.Tensor):
    """A tensor of the accelerator; `held` is its content."""

    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, content: torch.Tensor) -> Any:
        accelerators: Any = torch._C._acc
        tensor = accelerators.create_empty_tensor(content.shape, content.dtype)
        tensor.__class__ = cls
        return tensor

    def __init__(self, content: torch.Tensor) -> None:
        contents[self.untyped_storage()._cdata] = content, self.untyped_storage()


def is_pretended(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == NAME


def held(tensor: torch.Tensor) -> torch.Tensor:
    return contents[tensor.untyped_storage()._cdata][0]


def compute(operation: Any, *arguments: Any, **options: Any) -> Any:
    """Let the processor do what the accelerator is asked to."""
    if operation is aten._copy_from.default:
        source, target = arguments[:2]
        into = held(target) if is_pretended(target) else target
        into.copy_(held(source) if is_pretended(source) else source)
        return target
    given: dict[int, torch.Tensor] = {}

    def taken(value: Any) -> Any:
        if is_pretended(value):
            given[id(held(value))] = value
            return held(value)
        return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value

    def returned(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or id(value) in given:
            return given.get(id(value), value)
        if value.dtype == torch.float64:
            raise TypeError(f"{operation}: this accelerator has no float64")
        return Pretended(value.contiguous())

    for value in tree_leaves((arguments, options)):
        if isinstance(value, torch.Tensor) and not is_pretended(value) and value.dim():
            raise RuntimeError(f"{operation}: a tensor of the processor among those of the accelerator")
    inner = tree_map(taken, (arguments, options))
    return tree_map(returned, _on_processor(operation)(*inner[0], **inner[1]))


def _on_processor(operation: Any) -> Any:
    if operation in (aten.view.default, aten._unsafe_view.default):
        return aten.reshape.default  # contents may be laid out in another way
    if operation is aten.convolution_overrideable.default:
        return aten.convolution.default
    if operation is aten.convolution_backward_overrideable.default:
        return lambda grad, x, weight, *rest: aten.convolution_backward.default(
            grad, x, weight, [weight.shape[0]] if rest[-1][2] else None, *rest
        )
    return operation


class Backend(backend_registration._DummyBackendModule):
    """What torch asks of the module of an accelerator."""

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        """Its numbers are those of the processor."""


def register() -> list[Any]:
    """Make the device; it is there as long as what is returned."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    library: Any = torch.library.Library
    every, single = library("_", "IMPL"), library("aten", "IMPL")
    every.fallback(compute, "PrivateUse1")
    for name in OPERATIONS:
        base, _, overload = name.partition(".")
        operation = getattr(getattr(aten, base), overload or "default")
        single.impl(name, lambda *a, op=operation, **k: compute(op, *a, **k), "PrivateUse1")
    lacking: Any = torch
    lacking.inference_mode = lambda mode=True: torch.no_grad()
    lacking.accelerator.synchronize = lambda device=None: None
    return [every, single]


def experiment(device: str) -> dict[str, Any]:
    """Sparse training to a target, pruning by every score, distillation, and the uniform control."""
    random = np.random.default_rng(0)
    y = np.arange(240) % 4
    x = (random.integers(0, 64, (240, 8, 8, 1)) + 64 * y[:, None, None, None]).astype(np.uint8)
    splits = split(Dataset("brightness", x, y, x[:80], y[:80], 4), validation=0.2, seed=0, device=device)
    model = networks.new_network({"name": "resnet", "blocks": [1, 1], "width": 8}, (1, 8, 8), 4).to(device)
    found: dict[str, Any] = {}
    trained = steps.sparse_train(
        model, splits, Recipe(3, 0.1, batch_size=32), seed=0, sparsity=Sparsity(target=0.5), streams=True
    )
    assert trained is not None
    found["sparse"] = {k: trained.metrics[k] for k in ("loss", "near_zero")}
    for score in ("gamma-weight", "l1", "l2", "fpgm", "lamp", "taylor", "gamma"):
        pruned = steps.prune(
            trained.model,
            splits,
            seed=0,
            ratio=0.5,
            streams=True,
            score=score,
            drop_blocks=True,
            recalibrate=2,
        )
        found[score] = {k: pruned.metrics[k] for k in ("params", "macs")}
    recipe = Recipe(1, 0.05, batch_size=32, optimizer="adamw", distill=0.5)
    tuned = steps.finetune(pruned.model, splits, recipe, seed=0, teacher=trained.model)
    assert tuned is not None
    found["finetune"] = {k: tuned.metrics[k] for k in ("loss",)}
    found["latency"] = slimnet.measure_latency(tuned.model, splits.example, seconds=0.01).batch_size
    found["where"] = sorted({str(parameter.device) for parameter in tuned.model.parameters()})
    found["uniform"] = slimnet.count_params(steps.narrow(trained.model, splits, params=3000, seed=0))
    return found


if __name__ == "__main__":
    libraries = register()
    print(json.dumps([experiment(device) for device in ("cpu", f"{NAME}:0")]))
