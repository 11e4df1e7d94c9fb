"""One operation of a run, while it is followed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.graph import operations as ops
from slimnet.graph.findings import Findings, Value
from slimnet.graph.record import SCRIPT, Call, Parameter, Ref, overwrites, substitute, tensors_in


class Step:
    """One operation, while it is followed."""

    def __init__(
        self, flow: Findings, op: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.flow, self.op, self.function, self.args, self.kwargs = flow, op, function, args, kwargs
        self.in_place = overwrites(function)
        self.layer = ""

    @property
    def where(self) -> str:
        """The operation in words."""
        return self.flow.context.describe(self.op, self.flow.modules)

    # What it takes

    def labels(self, tensor: Any) -> Tensor | None:
        """The labels of an argument; None of one that has no channels to remove."""
        value = self.value(tensor)
        return None if value is None else value.labels

    def value(self, tensor: Any) -> Value | None:
        index = self.flow.number(tensor) if isinstance(tensor, Tensor) else None
        return None if index is None else self.flow.record.values[index]

    def labelled(self) -> list[Tensor]:
        """The labels of all arguments that have some."""
        return [
            labels
            for tensor in tensors_in((self.args, self.kwargs))
            if (labels := self.labels(tensor)) is not None
        ]

    def bound(self) -> dict[str, Any]:
        """The arguments by name."""
        names, defaults = _signature(self.function)
        return defaults | dict(zip(names, self.args, strict=False)) | self.kwargs

    # What it returns

    def emit(self, labels: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Zeros with these labels, or the overwritten tensor itself."""
        source = self._first()
        result = source if self.in_place else self.flow.fake(tuple(labels.shape), source, dtype)
        self.note([(result, labels)])
        return result

    def emit_all(self, results: Any, label: Callable[[tuple[int, ...]], Tensor | None]) -> Any:
        """Zeros for each tensor of `results`, with the labels that `label` has for its shape."""
        noted: list[tuple[Tensor, Tensor | None]] = []
        like = self._first()

        def make(item: Tensor) -> Tensor:
            fake = self.flow.fake(tuple(item.shape), like, item.dtype)
            noted.append((fake, label(tuple(item.shape))))
            return fake

        made = substitute(results, make)
        self.note(noted)
        return made

    def _first(self) -> Tensor:
        """The first tensor that it takes."""
        first = self.args[0] if self.args else None
        return first if isinstance(first, Tensor) else tensors_in((self.args, self.kwargs))[0]

    def note(self, results: Sequence[tuple[Tensor, Tensor | None]]) -> None:
        """Record the call and number what it makes."""
        flow = self.flow
        inputs: list[int] = []

        def refer(item: Tensor) -> Any:
            index = flow.number(item, layer=bool(self.layer))
            if index is not None:
                inputs.append(index)
            if name := flow.parameter(item):
                return Parameter(name)
            return item if index is None else Ref(index)

        given = tuple(self.args), self.kwargs
        if self.op == SCRIPT:  # which is never computed again, and may take what cannot be pickled
            given = tuple(tensors_in(given)), {}
        args, kwargs = substitute(given, refer)
        values = flow.record.values
        shares = self.op in ops.ALIASES or self.in_place
        root = values[inputs[0]].root if shares and inputs else -1
        if self.in_place and inputs:
            flow.overwritten(root, inputs[0])
        outputs = [flow.add(tensor, labels, inputs, root) for tensor, labels in results]
        if self.op in ops.ALIASES:
            flow.views.setdefault(root, []).extend(outputs)
        flow.record.calls.append(
            Call(
                self.op,
                self.function,
                args,
                kwargs,
                tuple(inputs),
                tuple(outputs),
                self.in_place,
                self.layer,
            )
        )

    def shapes(self) -> Any:
        """What the operation returns, without contents."""

        def bare(item: Tensor) -> Tensor:
            return torch.empty(tuple(item.shape), dtype=item.dtype, device="meta")

        args, kwargs = substitute((tuple(self.args), self.kwargs), bare)
        try:
            return self.function(*args, **kwargs)
        except (NotImplementedError, RuntimeError):
            return self.computed()

    def computed(self) -> Any:
        """What the operation returns for the zeros that stand for activations; nothing is overwritten."""
        flow = self.flow
        if self.op == SCRIPT:  # it may write into whatever it is given
            args, kwargs = substitute((self.args, self.kwargs), Tensor.clone)
            return self.function(*args, **kwargs)
        args = tuple(
            item.clone() if flow.parameter(item) and not isinstance(item, nn.Parameter) else item
            for item in self.args
        )  # buffers, which norms write into
        if self.in_place and isinstance(args[0], Tensor) and self.flow.number(args[0]) is not None:
            args = (args[0].clone(), *args[1:])
        kwargs = {
            key: item.clone() if key == "out" and isinstance(item, Tensor) else item
            for key, item in self.kwargs.items()
        }
        return self.function(*args, **kwargs)

    # The step

    def compute(self) -> Any:
        """An operation on parameters without channels alone: it is computed, and keeps their layers whole."""
        for tensor in tensors_in((self.args, self.kwargs)):
            name = self.flow.parameter(tensor)
            if name and tensor.dim() > 1:
                self.flow.pin(name, "its tensors are used outside of it")
        if self.in_place:
            index = self.flow.number(self.args[0])
            root = self.flow.record.values[index].root if index is not None else -1
            if self.flow.parameter(self.args[0]) or (root >= 0 and self.flow.record.values[root].parameter):
                return self.args[0]  # nothing of the network's is changed
        written = {
            key: item.clone() if key == "out" and self.flow.parameter(item) else item
            for key, item in self.kwargs.items()
        }
        result = self.function(*self.args, **written)
        self.note([(tensor, None) for tensor in tensors_in(result)])
        return result

    def opaque(self, why: str) -> Any:
        """Block everything that an operation reads, and everything that it returns."""
        flow = self.flow
        for tensor in tensors_in((self.args, self.kwargs)):
            name = flow.parameter(tensor)
            if name and tensor.dim() > 1:
                flow.pin(name, why)
        flow.block_labels(self.labelled(), why)
        if self.in_place and flow.number(self.args[0]) is not None:
            self.note([(self.args[0], flow.constant(tuple(self.args[0].shape), why))])
            return self.args[0]
        # Operations of gradients rely on what those of the forward kept, which was not computed.
        result = self.shapes() if self.op.endswith("_backward") else self.computed()
        if self.in_place:
            return result
        # What does not come from this operation alone is another view of an argument.
        return (
            self.emit_all(result, lambda shape: flow.constant(shape, why)) if tensors_in(result) else result
        )

    def unknown(self) -> Any:
        if self.op in ("_local_scalar_dense", "item", "is_nonzero", "equal"):
            self.flow.block_labels(self.labelled(), f"{self.where} makes a number of it")
            return self.function(*self.args, **self.kwargs)
        return self.opaque(f"{self.where} is not known")


@functools.cache
def _signature(function: Any) -> tuple[list[str], dict[str, Any]]:
    """The names of an operation's arguments, and the defaults of those that have one."""
    schema = getattr(function, "_schema", None)
    arguments = schema.arguments if schema is not None else []
    return [a.name for a in arguments], {a.name: a.default_value for a in arguments if a.has_default_value()}
