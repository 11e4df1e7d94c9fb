"""One run of a network on an example, as a list of the operations that were called.

The network runs as Python, so control flow, lists, dicts, keyword arguments and hooks are what they are. Two
modes of torch listen: one sees every ATen operation; the other every call of torch's functions, for what only
they tell: that `x.shape[1]` is a number of channels, and whether a view was asked for by such a number. What
depends on layers is not computed: its tensors are zeros of the right shape that take no memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode,
    _pop_mode,
    _push_mode,
)

from slimnet.graph.shortcuts import SHORTCUTS, shortcut, within_transform
from slimnet.modes import same_random

Perform = Callable[[str, Any, tuple[Any, ...], dict[str, Any]], Any]

WHOLE: dict[Any, str] = {
    torch.nn.functional.linear: "linear",
    torch.nn.functional.instance_norm: "instance_norm",
    torch.nn.functional.scaled_dot_product_attention: "scaled_dot_product_attention",
    torch.nn.functional.multi_head_attention_forward: "multi_head_attention_forward",
    torch.Tensor.__matmul__: "matmul",
    torch.Tensor.matmul: "matmul",
    torch.matmul: "matmul",
    torch.autograd.grad: "grad",
}
"""Functions that are recorded as one operation, though ATen takes them apart."""

SCRIPT = "script"
"""The name of what a scripted module does, as an operation."""

_DIM = Tensor.dim


@dataclass(slots=True, unsafe_hash=True)
class Ref:
    """Stands in the arguments of a call for a value of the run."""

    index: int


@dataclass(slots=True, unsafe_hash=True)
class Parameter:
    """Stands in the arguments of a call for a parameter or buffer of the network."""

    name: str


@dataclass(eq=False, slots=True)
class Call:
    """One operation of a run.

    Attributes:
        op: its name, as in `slimnet.graph.operations`.
        function: what computes it.
        args, kwargs: with a `Ref` for each value of the run and a `Parameter` for each tensor of the network.
        inputs: the values that it takes, in their order.
        outputs: those that it makes.
        in_place: it overwrites the first.
        layer: the module whose parameters it uses; "" where it is no layer.
    """

    op: str
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    in_place: bool
    layer: str

    def __getstate__(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in self.__slots__}
        overload = getattr(self.function, "_schema", None)
        return state | {"function": str(self.function) if overload else self.op}

    def __setstate__(self, state: dict[str, Any]) -> None:
        whole = {name: function for function, name in WHOLE.items()}
        name = state["function"]
        if "." in name:
            library, operation, overload = name.split(".")
            state["function"] = getattr(getattr(getattr(torch.ops, library), operation), overload)
        else:
            state["function"] = whole.get(name)  # None of a scripted module, which is never computed again
        for name, value in state.items():
            setattr(self, name, value)

    def operands(self) -> list[Any]:
        """What it takes, in order: a `Ref`, a `Parameter` or a tensor each."""
        found: list[Any] = []
        substitute((self.args, self.kwargs), found.append)
        return found

    def run(self, tensors: Sequence[Tensor]) -> Any:
        """Compute it on other tensors, in the order of its operands; nothing is overwritten."""
        given = iter(tensors)
        args, kwargs = substitute((self.args, self.kwargs), lambda _: next(given))
        if self.in_place:  # on a tensor that is as large as the result
            shape = np.broadcast_shapes(*(tuple(tensor.shape) for tensor in tensors))
            args = (args[0].expand(shape).clone(), *args[1:])
        return self.function(*args, **kwargs)


class Context:
    """Where in the network the run is.

    Attributes:
        modules: names of the modules whose forwards are running, the innermost last.
        ran: modules whose forwards ran, by id.
        function: the function of torch that was called, None within an operation without one.
        arguments: what it was called with.
    """

    def __init__(self) -> None:
        self.modules: list[str] = []
        self.ran: set[int] = set()
        self.function: Any = None
        self.arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    @property
    def name(self) -> str:
        """The name of the function."""
        return getattr(self.function, "__name__", "")

    @property
    def module(self) -> str:
        """The innermost module whose forward is running, but the network itself; "" for that."""
        return next(filter(None, reversed(self.modules)), "")

    def describe(self, op: str, modules: Mapping[str, nn.Module]) -> str:
        """An operation in words: as it was called, and the module whose forward calls it."""
        called = self.name
        name = called if called and called != "__get__" else op
        if name == "__getitem__":
            name = op if op in ("select", "slice", "index") else "indexing"
        if not self.modules or not self.modules[-1]:
            return name
        path = self.modules[-1]
        module = modules[path]
        if type(module).__module__.startswith("torch.nn.modules."):
            return f"{type(module).__name__} {path}"
        return f"{name} in {path}"


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Hands every ATen operation to `perform`."""

    def __init__(self, perform: Perform) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.perform = perform


def _dispatch(self: Operations, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    if torch.is_inference_mode_enabled():  # which does not take operations apart
        with self:
            result = func.decompose(*args, **(kwargs or {}))
        if result is not NotImplemented:
            return result
    return self.perform(name_of(func), func, args, kwargs or {})


# Outside of the class body, where torch would wrap it in what torch.compile needs: seconds at the first call.
Operations.__torch_dispatch__ = _dispatch  # type: ignore[method-assign,assignment]


class Functions(TorchFunctionMode):
    """Notes which of torch's functions is running, and lets `listen` see it first.

    What is one operation goes to `perform` instead, if it takes tensors that are known.
    """

    def __init__(
        self,
        context: Context,
        operations: Operations,
        listen: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any],
        knows: Callable[[Tensor], bool],
    ) -> None:
        super().__init__()
        self._context = context
        self._operations = operations
        self._listen = listen
        self._knows = knows

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _DIM:  # which tells nothing, and every norm asks for it
            return func(*args)
        kwargs, context = kwargs or {}, self._context
        outer = context.function, context.arguments
        context.function, context.arguments = func, (args, kwargs)
        try:
            if func in WHOLE and within_transform() is None:
                tensors = tensors_in((args, kwargs))
                if any(map(self._knows, tensors)):
                    plain = func is not torch.autograd.grad and {type(each) for each in tensors} <= _TENSORS
                    return self._perform(WHOLE[func], func, args, kwargs, plain=plain)
            elif func in SHORTCUTS and args and self._knows(args[0]) and self._listens():
                known = shortcut(func, args, kwargs)
                if known is not None:
                    result = self._perform(name_of(known[0]), *known, {})
                    return result[0] if type(result) is tuple else result
            return self._listen(func, args, kwargs)
        finally:
            context.function, context.arguments = outer

    def scripted(self, path: str, method: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Perform what a scripted module does as one operation, as nobody sees inside."""
        self._context.modules.append(path)
        try:
            with torch._C.DisableTorchFunction():
                return self._perform(SCRIPT, method, args, kwargs)
        finally:
            self._context.modules.pop()

    def _listens(self) -> bool:
        """Whether no mode of the network's own would see an operation first."""
        return _get_current_dispatch_mode() is self._operations

    def _perform(
        self, op: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, plain: bool = True
    ) -> Any:
        """Perform an operation, of which its own operations are no part.

        Tensors that are not `plain` may be of classes that see operations themselves.
        """
        if not self._listens():
            return self._operations.perform(op, function, args, kwargs)
        if plain:  # much quicker than to pop the mode
            with torch._C._DisableTorchDispatch():
                return self._operations.perform(op, function, args, kwargs)
        _pop_mode()
        try:
            return self._operations.perform(op, function, args, kwargs)
        finally:
            _push_mode(self._operations)


@contextmanager
def listening(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    context: Context,
    perform: Perform,
    listen: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any],
    knows: Callable[[Tensor], bool],
) -> Iterator[None]:
    """Have a run of `model` seen, whose modules have names; the random state is as before afterwards."""
    operations = Operations(perform)
    functions = Functions(context, operations, listen, knows)
    names = {id(module): name for name, module in reversed(list(modules.items()))}

    def enter(module: nn.Module, args: Any) -> None:
        if id(module) in names:
            context.modules.append(names[id(module)])
            context.ran.add(id(module))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if id(module) in names and context.modules:
            context.modules.pop()

    hooks = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave),
    ]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it hides the operations of attention
    try:
        with (
            same_random(model),
            torch.no_grad(),
            _scripted(modules, functions.scripted),
            operations,
            functions,
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for hook in hooks:
            hook.remove()


@contextmanager
def _scripted(modules: Mapping[str, nn.Module], run: Callable[..., Any]) -> Iterator[None]:
    """Have `run` called with each call of a scripted part."""
    replaced = []
    for path, module in scripted_parts(modules).items():
        attributes = vars(module)
        replaced.append((attributes, dict(attributes)))
        for name in module._c._method_names():
            attributes[name] = functools.partial(run, path, getattr(module, name))
    try:
        yield
    finally:
        for attributes, before in replaced:
            attributes.clear()
            attributes.update(before)


def scripted_parts(modules: Mapping[str, nn.Module]) -> dict[str, torch.jit.ScriptModule]:
    """The scripted modules that may have layers, by name, but those within another."""
    outermost: dict[str, torch.jit.ScriptModule] = {}
    seen: set[int] = set()
    for path, module in modules.items():
        if not isinstance(module, torch.jit.ScriptModule) or id(module) in seen:
            continue
        seen.add(id(module))
        if not path.startswith(tuple(f"{name}." for name in outermost)):
            outermost[path] = module
    return {path: module for path, module in outermost.items() if _holds_tensors(module)}


def _holds_tensors(module: torch.jit.ScriptModule) -> bool:
    """Whether it has parameters or buffers; of a frozen one they are hidden in its code."""
    frozen = not module._c.hasattr("training")
    return frozen or any(True for _ in (*module.parameters(), *module.buffers()))


@functools.cache
def name_of(func: Any) -> str:
    """The name of an ATen operation without namespace, overload and the underscore of its in-place form."""
    name: str = func._schema.name.rpartition("::")[2]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def tensor_of(modules: Mapping[str, nn.Module], name: str) -> Tensor:
    """A parameter or buffer by name, of a network's modules by name."""
    path, _, part = name.rpartition(".")
    tensor = getattr(modules[path], part)
    assert isinstance(tensor, Tensor)
    return tensor


@functools.cache
def overwrites(func: Any) -> bool:
    """Whether an operation writes into its first argument."""
    schema = getattr(func, "_schema", None)
    return bool(schema and schema.arguments and schema.arguments[0].alias_info and schema.is_mutable)


def substitute(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Replace tensors and what stands for them, in lists, tuples, named or not, and dicts too."""
    kind = type(value)
    if kind in _REPLACED or isinstance(value, Tensor):
        return replace(value)
    if kind in PLAIN:
        return value
    if isinstance(value, list):
        return [item if type(item) in PLAIN else substitute(item, replace) for item in value]
    if isinstance(value, tuple):
        items = [item if type(item) in PLAIN else substitute(item, replace) for item in value]
        return kind(*items) if hasattr(kind, "_fields") else tuple(items)
    if isinstance(value, dict):
        return {key: substitute(item, replace) for key, item in value.items()}
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors that a value holds, in dicts, lists, tuples and the attributes of data classes too."""
    found: list[Tensor] = []
    _collect(value, found)
    return found


PLAIN = {int, float, bool, str, type(None), torch.dtype, torch.device}
_TENSORS = {Tensor, nn.Parameter}
_REPLACED = {Ref, Parameter, *_TENSORS}


def _collect(value: Any, found: list[Tensor]) -> None:
    kind = type(value)
    if kind is list or kind is tuple:
        items: Any = value
    elif kind in _TENSORS or isinstance(value, Tensor):
        found.append(value)
        return
    elif isinstance(value, dict):
        items = value.values()
    elif isinstance(value, list | tuple):
        items = value
    elif hasattr(value, "__dataclass_fields__"):
        items = [getattr(value, name, None) for name in value.__dataclass_fields__]
    else:
        return
    for item in items:
        kind = type(item)
        if kind in _TENSORS:
            found.append(item)
        elif kind not in PLAIN:
            _collect(item, found)
