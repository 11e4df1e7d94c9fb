"""A pruned network runs on the example, beside the one it was made from, before anybody gets it.

Both must call the same operations with the same numbers, apart from the sizes of tensors: so a forward that
computes with its number of channels, in whatever way, is found out.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.errors import SlimnetError
from slimnet.graph import ChannelGraph
from slimnet.graph import operations as ops
from slimnet.graph.record import Context, listening, tensors_in
from slimnet.modes import evaluating, same_buffers, unchanged
from slimnet.modules import buffers, named, parameters
from slimnet.wording import one_line, plural

SMALL = 32  # pixels: larger images are looked at in this size where the network takes them
_SIZED = ops.MOVES | ops.CONVOLUTIONS | {
    "native_group_norm", "native_layer_norm", "as_strided", "arange", "narrow", "index_select",
}  # fmt: skip
"""Operations among whose numbers are sizes."""
_SELECTIONS = {"nonzero", "nms", "masked_select", "unique_dim", "_unique2", "sort", "topk"}
"""Operations that choose by numbers: rounding may change which of two that are alike comes first."""
_BY_DATA = _SELECTIONS | {"_local_scalar_dense", "is_nonzero", "equal", "grad"}
"""Operations after which what is called may depend on the numbers that were computed, or numbers on what was
not seen, as on a hook of a gradient."""
_SAME = {"clone", "contiguous", "alias"} | ops.VIEWS
"""Of these, which are called depends on how a tensor lies in memory, as that of one channel does."""
_NONE: frozenset[int] = frozenset()
Listed = tuple[str, tuple[Any, ...], str]


class CountingError(SlimnetError):
    """A forward depends on the number of channels of groups that were cut."""


def verify(
    model: nn.Module,
    smaller: nn.Module,
    graph: ChannelGraph,
    *,
    silenced: Callable[[], nn.Module],
    compare: bool = True,
) -> None:
    """Refuse a pruned network that does not run as the one that it was made from.

    Args:
        model: what it was made from.
        smaller: the pruned network.
        graph: what `model` was traced to.
        silenced: makes the network with the same channels masked, which computes the same numbers: what is
            called may depend on them.
        compare: both are to call the same operations; not where whole blocks were dropped.

    Raises:
        CountingError: it does not run, calls other operations, or returns other shapes or numbers.
        SlimnetError: it returns other than finite numbers, naming the layer.
    """
    like = next(smaller.parameters(), None)
    if like is None:
        return
    small = graph.example.noise(like, most=SMALL)
    inputs = graph.example.noise(like) if small is None else small
    context = Context()
    try:
        after, own = _run(smaller, graph, inputs, context)
    except Exception as error:
        if small is None:
            raise _broken(context, error) from error
        inputs, context = graph.example.noise(like), Context()  # perhaps it takes no other size
        try:
            after, own = _run(smaller, graph, inputs, context)
        except Exception as error:
            raise _broken(context, error) from error
    recorded = [
        (call.op, _numbers(call.op, call.args, call.kwargs, _NONE), "")
        for call in graph.record.calls
        if call.op not in _SAME
    ]
    called = {op for op, _, _ in (*recorded, *own)}
    same = not compare or ("grad" not in called and _difference(recorded, own) is None)
    if same and _finite(after):
        return
    by_data = compare and not called.isdisjoint(_BY_DATA)
    before, calls = _run(silenced() if by_data else model, graph, inputs, Context())
    difference = _difference(calls, own) if compare else None
    if difference is not None:
        where, what = difference
        raise CountingError(
            f"the forward{f' of {where}' if where else ''} depends on the number of channels: the pruned "
            f"network calls {what}"
        )
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (before, after)]
    chosen, slopes = not called.isdisjoint(_SELECTIONS), "grad" in called
    if compare and not chosen and shapes[0] != shapes[1]:
        raise CountingError(f"the pruned network returns tensors of shape {shapes[1]}, not {shapes[0]}")
    if by_data and not chosen and not _alike(before, after, small=slopes):
        why = (
            "the forward takes a gradient that mixes channels"
            if slopes
            else "the forward branches on what it computes, and on the example went another way when it was "
            "traced"
        )
        raise CountingError(f"{why}: the pruned network returns other numbers than it should")
    if _finite(before) and not _finite(after):
        raise SlimnetError(
            "the pruned network returns numbers that are not finite, from "
            f"{_first_infinite(smaller, graph, inputs)} on; prune with absorb=False (--no-absorb)"
        )


class _Listing:
    """Lists the operations of a run that depend on the network or its input, as a trace does."""

    def __init__(self, modules: list[nn.Module], inputs: list[Tensor], context: Context) -> None:
        own = list(parameters(modules))
        tensors = [*own, *buffers(modules), *inputs]
        self.calls: list[Listed] = []
        self._context = context
        self._known = {id(tensor) for tensor in tensors}
        self._parameters = {id(parameter) for parameter in own}
        self._alive: list[Any] = [tensors]
        self._drawn: set[int] = set()  # random numbers

    def knows(self, tensor: Tensor) -> bool:
        return id(tensor) in self._known

    def perform(self, op: str, function: Any, args: Any, kwargs: Any) -> Any:
        """Compute one operation, and list it."""
        result = function(*args, **kwargs)
        self._alive.append(result)
        made = [id(tensor) for tensor in tensors_in(result)]
        taken = [id(tensor) for tensor in tensors_in((args, kwargs) if kwargs else args)]
        if self._known.isdisjoint(taken):
            if not self._drawn.isdisjoint(taken) or torch.Tag.nondeterministic_seeded in _tags(function):
                self._drawn.update(made)
            return result
        self._known.update(made)
        if op not in _SAME and not (op == "_to_copy" and id(args[0]) in self._parameters):
            explained = self._known | self._drawn if self._drawn else self._known
            self.calls.append((op, _numbers(op, args, kwargs, explained), self._context.module))
        return result

    def listen(self, function: Any, args: Any, kwargs: Any) -> Any:
        """See what writes into parameters."""
        kind = getattr(function, "__name__", "")
        if kind == "__set__" and id(args[0]) in self._parameters:
            return None  # nothing of the network's is changed
        result = function(*args, **kwargs)
        if kind == "__get__" and id(args[0]) in self._parameters and isinstance(result, Tensor):
            return result.clone()
        return result


def _tags(function: Any) -> Sequence[torch.Tag]:
    tags: Sequence[torch.Tag] = getattr(function, "tags", ())
    return tags


def _numbers(op: str, args: Sequence[Any], kwargs: dict[str, Any], explained: Set[int]) -> tuple[Any, ...]:
    """The numbers that an operation is given, in tensors too but for those explained; no sizes."""
    sized, found = op in _SIZED, []
    for value in (*args, *kwargs.values()) if kwargs else args:
        kind = type(value)
        if kind is int or kind is float or kind is bool:
            if not sized:
                found.append(value)
        elif _tells(value, explained):
            found.append(_content(value))
        elif isinstance(value, list | tuple) and value and type(value[0]) is not int:
            found += [_content(item) for item in value if _tells(item, explained)]
    return tuple(found)


def _tells(value: Any, explained: Set[int]) -> bool:
    """Whether something is a tensor from elsewhere."""
    return isinstance(value, Tensor) and id(value) not in explained and value.numel() > 0


def _content(tensor: Tensor) -> Any:
    """What tells a tensor's values from others, however often they are repeated along a dimension."""
    if tensor.is_meta or tensor._is_zerotensor():  # as tangents of forward differentiation are
        return None
    values = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).detach().cpu().double()
    for dim in range(values.dim()):
        first = values.narrow(dim, 0, 1)
        values = first if torch.equal(values, first.expand_as(values)) else values
    if values.numel() == 1:
        return values.item()
    return tuple(values.shape), zlib.crc32(values.contiguous().numpy().tobytes())


def _difference(calls: list[Listed], own: list[Listed]) -> tuple[str, str] | None:
    """Where two runs differ first, and how; None where they call the same."""
    for (op, numbers, where), (other, others, at) in zip(calls, own, strict=False):
        if op != other:
            return where or at, f"{other} instead of {op}"
        if numbers != others and not _near(numbers, others):
            return where or at, f"{op} with {others} instead of {numbers}"
    if len(calls) == len(own):
        return None
    longer = max(calls, own, key=len)
    return longer[min(len(calls), len(own))][2], f"{plural(len(own), 'operation')} instead of {len(calls)}"


def _near(numbers: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    """Whether they are the same but for rounding."""
    return len(numbers) == len(others) and all(
        a == b or (type(a) is type(b) is float and math.isclose(a, b, rel_tol=1e-5))
        for a, b in zip(numbers, others, strict=True)
    )


def _alike(before: list[Tensor], after: list[Tensor], *, small: bool) -> bool:
    """Whether outputs of the same shapes are the same but for rounding; `small` ones are no noise."""
    for ours, theirs in zip(before, after, strict=True):
        if ours.is_floating_point() and ours.numel():
            limits = torch.finfo(ours.dtype)
            near = limits.eps**0.5
            least = limits.tiny if small else near**2
            if bool(((ours - theirs).abs() > (near * ours.abs().max()).clamp(min=least)).any()):
                return False
    return True


def _run(
    model: nn.Module, graph: ChannelGraph, inputs: Any, context: Context
) -> tuple[list[Tensor], list[Listed]]:
    """What a network returns, and what it calls on the way; `context` says where it was if it fails."""
    args, kwargs = graph.example.arguments(inputs)
    modules = named(model)
    listing = _Listing([*modules.values()], tensors_in((args, kwargs)), context)
    with (
        evaluating(model),
        same_buffers(model),
        unchanged(model),
        listening(model, modules, context, listing.perform, listing.listen, listing.knows),
    ):
        return tensors_in(model(*args, **kwargs)), listing.calls


def _broken(context: Context, error: Exception) -> CountingError:
    """Why a network does not run, with the name of the innermost module that was running."""
    where = context.module or "its forward"
    return CountingError(
        f"the pruned network does not run: at {where}: {one_line(error)}; the forward depends "
        "on the number of channels there"
    )


def _finite(tensors: list[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())


def _first_infinite(model: nn.Module, graph: ChannelGraph, inputs: Any) -> str:
    """The first module whose output is not finite."""
    names = {id(module): name for name, module in model.named_modules()}
    found: list[str] = []

    def look(module: nn.Module, _: Any, output: Any) -> None:
        if not found and id(module) in names and not _finite(tensors_in(output)):
            found.append(names[id(module)])

    hook = nn.modules.module.register_module_forward_hook(look)
    try:
        _run(model, graph, inputs, Context())
    finally:
        hook.remove()
    return found[0] if found and found[0] else "its end"
