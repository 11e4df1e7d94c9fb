"""Follows channels through one run of a network.

Beside every tensor that depends on a layer go its labels (`slimnet.graph.labels`): for each element, the atom
that it comes from: an output channel of a layer, or an entry of a parameter that has one per channel. An
operation that only moves data moves the labels the same way, so reshapes, shuffles and concatenations need
no rules of their own. An operation that needs channels to stay aligned ties atoms; one that is not known
blocks them (`slimnet.graph.rules`). Beside every number goes what it counts, so that a reshape by `x.size(1)`
is told from one by 64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slimnet.errors import SlimnetError
from slimnet.graph import operations as ops
from slimnet.graph.counts import Count, sizes_in
from slimnet.graph.findings import LAYERS, Findings
from slimnet.graph.labels import expand, unique, varies, varying
from slimnet.graph.record import listening, tensors_in
from slimnet.graph.rules import RULES
from slimnet.graph.settings import Setting
from slimnet.graph.step import Step
from slimnet.wording import one_line

_ALWAYS = ops.CONVOLUTIONS | ops.LINEAR | ops.NORMS | {"native_group_norm"}
_SHAPE = torch.Tensor.shape.__get__  # type: ignore[attr-defined]
_MAKERS = {"zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "expand"}
"""Functions that make a tensor of a size, which holds the same for each channel."""
_HOOKS = (
    "hooks of gradients do not run while a network is followed; take the gradient by torch.autograd.grad(...)"
)
_UNSEEN = {
    "register_hook": _HOOKS,
    "retain_grad": _HOOKS,
    "_make_dual": "forward differentiation is not followed; take the gradient by torch.autograd.grad(...)",
}
"""Functions that have no effect while a network is followed, and what to say where it fails for that."""


class ChannelFlow(Findings):
    """Follows one run of a network."""

    _unseen = ""  # what was asked for that has no effect while a network is followed, and what to do

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the network on an example and follow its channels.

        Raises:
            SlimnetError: an operation fails on the example.
        """
        for tensor in tensors_in((args, kwargs)):
            self.add(tensor, None, ())
        self.settings.place(self.modules)
        try:
            with listening(self.model, self.modules, self.context, self.perform, self._listen, self.knows):
                result = self.model(*args, **kwargs)
        except SlimnetError:
            raise
        except Exception as error:
            inside = f" at {self.context.module}" if self.context.module else ""
            advice = f"; {self._unseen}" if self._unseen else ""
            raise SlimnetError(f"the example input fails{inside}: {one_line(error)}{advice}") from error
        for tensor in tensors_in(result):
            if id(tensor) in self._index:
                index = self._index[id(tensor)]
                self.record.results.append(index)
                labels = self.record.values[index].labels
                self.block_labels([] if labels is None else [labels], "it is the network's output")
        if not _is_plain(result):
            self._block_unused()
        self._settle()
        self._alive.clear()

    def _settle(self) -> None:
        """Keep what is counted by a number of a module that must stay; layers change their own numbers."""
        for name, layer, side in self.settings.sides():
            if layer in self.layers:
                atoms = getattr(self.layers[layer], side)
                self.tie(atoms, self.settings.atoms.get(name, atoms))
                if name in self.settings.fixed:
                    self.block(atoms, self.settings.fixed[name])
        self._blocked += self.settings.blocked()

    def _block_unused(self) -> None:
        """Keep whatever nothing reads, as it may be in an object that the network returned."""
        users = self.record.users()
        for call in self.record.calls:
            labels = self.record.values[call.outputs[0]].labels if call.outputs else None
            if labels is not None and not users[call.outputs[0]]:
                self.block_labels([labels], "it is the network's output")

    def perform(self, op: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Follow one operation, and return what it returns."""
        known = [tensor for tensor in tensors_in((args, kwargs)) if self.knows(tensor)]
        if not known:
            return function(*args, **kwargs)
        if op == "_to_copy" and self.parameter(args[0]):
            result = function(*args, **kwargs)
            if self.cast(args[0], result):
                return result
        step = Step(self, op, function, args, kwargs)
        if op in _ALWAYS or any(step.labels(tensor) is not None for tensor in known):
            return RULES.get(op, Step.unknown)(step)
        return step.compute()

    def _listen(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See what only the functions of torch tell: sizes, and what is asked for by a size."""
        labels = self.labels(args[0]) if args else None
        name = getattr(function, "__name__", "")
        if name == "__set__" and self.parameter(args[0]):
            return None  # nothing of the network's is changed
        self._unseen = self._unseen or _UNSEEN.get(name, "")
        if labels is not None:
            if function == _SHAPE:
                return torch.Size(self._sizes(labels))
            if name in ("numpy", "tolist", "__array__"):
                self.block_labels([labels], f"{name} takes it out of torch")
            if name in ("size", "numel", "nelement", "__len__"):
                return self._size(name, labels, function(*args, **kwargs), args, kwargs)
        elif name == "size" or function == _SHAPE:
            sizes = self._sizes_of_layer(args[0])
            if sizes is not None:
                dims = [*args[1:], *kwargs.values()] if name == "size" else []
                return sizes[dims[0]] if dims else sizes
        if name in ("conv1d", "conv2d", "conv3d") and len(args) > 1 and args[0].dim() == args[1].dim() - 1:
            raise SlimnetError(
                f"the example input fails at {self.context.modules[-1] or name}: it gets {args[0].dim()} "
                f"dimensions where a batch has {args[1].dim()}"
            )
        if name == "backward" and any(map(self.knows, tensors_in((args, kwargs)))):
            inside = f" of {self.context.module}" if self.context.module else ""
            raise SlimnetError(
                f"the forward{inside} calls backward(), which cannot be followed; take the gradient by "
                "torch.autograd.grad"
            )
        asked, self.claimed = sizes_in((args, kwargs)), []
        result = function(*args, **kwargs)
        if name in _MAKERS and type(result) is Tensor and labels is None and asked:
            self._made(result, asked)
        for size in asked:
            if all(size is not claimed for claimed in self.claimed):
                size.fix(name)
        if name == "__get__" and self.parameter(args[0]) and isinstance(result, Tensor):
            return result.clone()  # its data, which a forward may write into
        if labels is not None and type(result) is Tensor and id(result) not in self._index:
            self._adopt(args[0], result)
        return result

    def _sizes(self, labels: Tensor) -> list[int]:
        return [
            Count(size, unique(labels), self.escape) if varies(labels, dim) else size
            for dim, size in enumerate(labels.shape)
        ]

    def _size(
        self, name: str, labels: Tensor, size: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What `x.size()`, `x.size(1)`, `x.numel()` and `len(x)` return."""
        if name == "size" and isinstance(size, torch.Size):
            return torch.Size(self._sizes(labels))
        if name in ("numel", "nelement"):
            return Count(size, unique(labels), self.escape) if varying(labels) else size
        dim = 0 if name == "__len__" else kwargs.get("dim", args[1] if len(args) > 1 else 0)
        if not varies(labels, dim):
            return size
        if name == "__len__":  # which must be an int
            self.block_labels([labels], "its length is asked for")
            return size
        return Count(size, unique(labels), self.escape)

    def _sizes_of_layer(self, tensor: Any) -> torch.Size | None:
        """The shape of a layer's weight or of another of its parameters, by what each size counts."""
        owner, _, part = self.parameter(tensor).rpartition(".")
        module = self.modules.get(owner)
        if not part or not isinstance(module, LAYERS) or ops.is_reparametrized(module):
            return None
        grouped = getattr(module, "groups", 1) > 1
        sides = ["outputs", "" if grouped else "inputs"] if tensor.dim() > 1 else ["outputs"] * tensor.dim()
        if getattr(module, "transposed", False) and tensor.dim() > 1:
            sides = ["inputs", "" if grouped else "outputs"]
        with torch._C.DisableTorchFunction():
            shape = tuple(tensor.shape)
        named = [
            self.settings.of(f"{owner}.{part}.shape[{dim}]", size, owner, side) if side else size
            for dim, (size, side) in enumerate(zip(shape, sides, strict=False))
        ]
        return torch.Size([*named, *shape[len(named) :]])

    def _made(self, tensor: Tensor, sizes: list[Count | Setting]) -> None:
        """Label a tensor made of sizes: the channels that a dimension counts are its own."""
        args, kwargs = self.context.arguments
        given: Any = [*args[isinstance(args[0], Tensor) if args else 0 :], *kwargs.values()]
        given = given[0] if given and isinstance(given[0], list | tuple) else given
        sizes = [size for size in sizes if type(size) is Count] or sizes
        dims = [dim for dim, size in enumerate(given[: tensor.dim()]) if size is sizes[0]]
        if len(sizes) > 1 or len(dims) != 1 or (self.context.name == "expand" and tensor.stride(dims[0])):
            return
        atoms = sizes[0].atoms
        if len(atoms) == tensor.shape[dims[0]]:
            self.claimed.append(sizes[0])
            self.add(tensor, expand(atoms, tuple(tensor.shape), dims[0]), ())

    def _adopt(self, source: Tensor, result: Tensor) -> None:
        """Take a tensor that no operation made, such as `x.data`, for what it was made from."""
        index = self._index[id(source)]
        if result.shape == source.shape:
            self._alive.append(result)
            self._index[id(result)] = index
            return
        labels = self.record.values[index].labels
        self.block_labels([labels] if labels is not None else [], f"{self.context.name} is not known")


def _is_plain(result: Any) -> bool:
    """Whether tensors are found in it: tensors, numbers, texts, and lists, tuples and dicts of them."""
    if isinstance(result, dict):
        return all(map(_is_plain, result.values()))
    if isinstance(result, list | tuple):
        return all(map(_is_plain, result))
    return result is None or isinstance(result, Tensor | int | float | str | bytes)
