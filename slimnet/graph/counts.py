"""Sizes of a tensor that know which channels they count.

A forward that asks for `x.shape` and reshapes by it works for any number of channels; one that reshapes by 64
does not. Both look alike once the numbers are in, so while a network is recorded, sizes along channels are
integers that remember what they count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.graph.labels import Atoms
from slimnet.graph.settings import Setting

Escape = Callable[..., None]


class Count(int):
    """A whole multiple or fraction of a number of channels.

    Attributes:
        atoms: the channels that it counts.
        escape: told of these channels when a number is made of them that need not scale with them; with
            the channels of another count, unless both turn out to be the same.
    """

    atoms: Atoms
    escape: Escape

    def __new__(cls, value: int, atoms: Atoms, escape: Escape) -> Count:
        count = super().__new__(cls, value)
        count.atoms, count.escape = atoms, escape
        return count

    def fix(self, how: str) -> None:
        """Note that something is computed from it that need not scale with it."""
        self.escape(self.atoms, how)

    def __mul__(self, other: Any) -> Any:
        other = other.fix("*") if type(other) is Setting else other
        if type(other) is int:
            return Count(int.__mul__(self, other), self.atoms, self.escape)
        return self._escaped("*", int.__mul__, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        other = other.fix("//") if type(other) is Setting else other
        if type(other) is int and other and int.__mod__(self, other) == 0:
            return Count(int.__floordiv__(self, other), self.atoms, self.escape)
        return self._escaped("//", int.__floordiv__, other)

    def __eq__(self, other: object) -> bool:
        return self._compared("==", int.__eq__, other)

    def __ne__(self, other: object) -> bool:
        return self._compared("!=", int.__ne__, other)

    def __lt__(self, other: int) -> bool:
        return self._compared("<", int.__lt__, other)

    def __le__(self, other: int) -> bool:
        return self._compared("<=", int.__le__, other)

    def __gt__(self, other: int) -> bool:
        return self._compared(">", int.__gt__, other)

    def __ge__(self, other: int) -> bool:
        return self._compared(">=", int.__ge__, other)

    __hash__ = int.__hash__

    def _compared(self, sign: str, compare: Callable[[int, Any], Any], other: object) -> bool:
        """Against 0 and 1, and with a number of the same channels, it ends the same whatever is pruned."""
        result = bool(compare(self, int.__index__(other) if isinstance(other, Setting) else other))
        equal = int.__eq__(self, other) is True
        if isinstance(other, Count):
            self.escape(self.atoms, sign, other.atoms)
        elif isinstance(other, Setting) and equal and len(self.atoms) == int.__index__(other):
            other.settings.tie(other.atoms, self.atoms)
        elif not (type(other) is int and other <= 1):
            self._escaped(sign, compare, other)
        return result

    def _escaped(self, sign: str, compute: Callable[..., Any], *others: Any) -> Any:
        self.escape(self.atoms, sign)
        for other in others:
            if isinstance(other, Count):
                other.escape(other.atoms, sign)
        return compute(self, *(o.fix(sign) if isinstance(o, Setting) else o for o in others))


def _escaping(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Count, *others: Any) -> Any:
        return self._escaped(name.strip("_"), plain, *others)

    return method


for _name in (
    "__add__", "__radd__", "__sub__", "__rsub__", "__truediv__", "__rtruediv__", "__rfloordiv__", "__pow__",
    "__rpow__", "__rmod__", "__divmod__", "__neg__", "__float__", "__int__", "__trunc__", "__round__",
    "__floor__", "__ceil__", "__and__", "__or__", "__xor__", "__lshift__", "__rshift__",
):  # fmt: skip
    setattr(Count, _name, _escaping(_name, getattr(int, _name)))
del _name


def counted(value: Any) -> list[Count]:
    """The counts in an argument of a call: a number, a slice, or a list, tuple or dict of them."""
    return [size for size in sizes_in(value) if type(size) is Count]


_SIZELESS = {int, float, bool, str, type(None), Tensor, nn.Parameter, torch.dtype, torch.device}


def sizes_in(value: Any) -> list[Count | Setting]:
    """The counts and settings in an argument of a call."""
    found: list[Count | Setting] = []
    _collect((value,), found)
    return found


def _collect(values: Iterable[Any], found: list[Count | Setting]) -> None:
    for value in values:
        kind = type(value)
        if kind in _SIZELESS:
            continue
        if kind is Count or kind is Setting:
            found.append(value)
        elif isinstance(value, list | tuple):
            _collect(value, found)
        elif isinstance(value, dict):
            _collect(value.values(), found)
        elif isinstance(value, slice):
            _collect((value.start, value.stop, value.step), found)
