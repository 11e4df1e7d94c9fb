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
from slimnet.graph.counts import Count, counted
from slimnet.graph.findings import Findings
from slimnet.graph.labels import Atoms, expand, unique, varies, varying
from slimnet.graph.record import WHOLE, listening, tensors_in
from slimnet.graph.rules import RULES
from slimnet.graph.step import Step

_ALWAYS = ops.CONVOLUTIONS | ops.LINEAR | ops.NORMS | {"native_group_norm"}
_SIZED = {
    "view", "reshape", "unflatten", "expand", "chunk", "split", "tensor_split", "unsafe_chunk", "narrow",
    "__getitem__", "zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty",
}  # fmt: skip
"""Functions that may be given a number of channels."""
_MAKERS = {"zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty"}


class ChannelFlow(Findings):
    """Follows one run of a network."""

    _counts = False  # whether any size has been handed out that counts channels

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the network on an example and follow its channels.

        Raises:
            SlimnetError: an operation fails on the example.
        """
        for tensor in tensors_in((args, kwargs)):
            self.add(tensor, None, ())
        try:
            with listening(self.model, self.modules, self.context, self.perform, self._listen):
                result = self.model(*args, **kwargs)
        except SlimnetError:
            raise
        except Exception as error:
            inside = f" at {self.context.module}" if self.context.module else ""
            raise SlimnetError(f"the example input fails{inside}: {_one_line(error)}") from error
        for tensor in tensors_in(result):
            if id(tensor) in self._index:
                index = self._index[id(tensor)]
                self.record.results.append(index)
                labels = self.record.values[index].labels
                self.block_labels([] if labels is None else [labels], "it is the network's output")
        if not _is_plain(result):
            self._block_unused()
        self._alive.clear()

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
        step = Step(self, op, function, args, kwargs)
        if op in _ALWAYS or any(step.labels(tensor) is not None for tensor in known):
            return RULES.get(op, Step.unknown)(step)
        return step.compute()

    def _listen(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See what only the functions of torch tell: sizes, and what is asked for by a size."""
        if function in WHOLE and any(self.knows(tensor) for tensor in tensors_in((args, kwargs))):
            return self.perform(WHOLE[function], function, args, kwargs)
        labels = self.labels(args[0]) if args else None
        name = getattr(function, "__name__", "")
        if name == "__set__" and self.parameter(args[0]):
            return None  # nothing of the network's is changed
        if labels is not None:
            if function == torch.Tensor.shape.__get__:  # type: ignore[attr-defined]
                return torch.Size(self._sizes(labels))
            if name in ("numpy", "tolist", "__array__"):
                self.block_labels([labels], f"{name} takes it out of torch")
            if name in ("size", "numel", "nelement", "__len__"):
                return self._size(name, labels, function(*args, **kwargs), args, kwargs)
        if name in ("conv1d", "conv2d", "conv3d") and len(args) > 1 and args[0].dim() == args[1].dim() - 1:
            raise SlimnetError(
                f"the example input fails at {self.context.modules[-1] or name}: it gets {args[0].dim()} "
                f"dimensions where a batch has {args[1].dim()}"
            )
        for count in counted((args[1:], kwargs)) if self._counts and name not in _SIZED else ():
            count.escape(count.atoms, name)
        result = function(*args, **kwargs)
        if name == "__get__" and self.parameter(args[0]) and isinstance(result, Tensor):
            return result.clone()  # its data, which a forward may write into
        if labels is not None and type(result) is Tensor and id(result) not in self._index:
            self._adopt(args[0], result)
        elif self._counts and name in _MAKERS and type(result) is Tensor:
            self._made(result, counted((args, kwargs)))
        return result

    def _sizes(self, labels: Tensor) -> list[int]:
        return [
            self._count(size, labels) if varies(labels, dim) else size
            for dim, size in enumerate(labels.shape)
        ]

    def _size(
        self, name: str, labels: Tensor, size: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What `x.size()`, `x.size(1)`, `x.numel()` and `len(x)` return."""
        if name == "size" and isinstance(size, torch.Size):
            return torch.Size(self._sizes(labels))
        if name in ("numel", "nelement"):
            return self._count(size, labels) if varying(labels) else size
        dim = 0 if name == "__len__" else kwargs.get("dim", args[1] if len(args) > 1 else 0)
        if not varies(labels, dim):
            return size
        if name == "__len__":  # which must be an int
            self.block_labels([labels], "its length is asked for")
            return size
        return self._count(size, labels)

    def _count(self, size: int, labels: Tensor) -> Count:
        self._counts = True
        return Count(size, unique(labels), self._escape)

    def _escape(self, atoms: Atoms, sign: str) -> None:
        """Block channels that are counted where the result need not scale with their number."""
        module = self.modules.get(self.context.modules[-1]) if self.context.modules else None
        if sign in ("==", "!=") and type(module).__module__.startswith("torch.nn.modules."):
            return  # a layer of torch checks its input against its own number, which is changed with it
        name = self.context.name
        how = name if sign == name else f"{sign!r}"
        inside = f" in {self.context.module}" if self.context.module else ""
        self._blocked.append((atoms, f"{how}{inside} computes with the number of channels"))

    def _made(self, tensor: Tensor, counts: list[Count]) -> None:
        """Label a tensor made of sizes: the channels that a dimension counts are its own."""
        for count in counts:
            dims = [dim for dim, size in enumerate(tensor.shape) if size == int.__index__(count)]
            if len(counts) > 1 or len(dims) != 1 or len(count.atoms) != tensor.shape[dims[0]]:
                count.escape(count.atoms, self.context.name)
                return
            self.add(tensor, expand(count.atoms, tuple(tensor.shape), dims[0]), ())

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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
