"""Numbers that modules keep of their channels: `self.num_heads`, `self.splits`, `self.conv.in_channels`.

A reshape by `self.num_heads` works for any number of heads if the attribute is changed with them; one by a
written 8 does not. So while a network is recorded, the whole numbers among the attributes of its modules know
where they come from. Where one of them is the size of a dimension of channels, it is tied to these channels
and changed with them; where anything else is computed from it, it stays as it is, and so do the channels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from slimnet.graph.labels import Atoms

LONGEST = 64  # lists of more numbers are no sizes of channels
_OF_LAYERS = {
    "in_channels": "inputs", "out_channels": "outputs",
    "in_features": "inputs", "out_features": "outputs",
    "num_features": "outputs", "num_channels": "outputs",
}  # fmt: skip
"""What the layers of torch keep, and pruning changes in any case: which side of the layer it counts."""
_LAYERS = (_ConvNd, nn.Linear, _NormBase, nn.GroupNorm)


class Setting(int):
    """A number that a module keeps, or a multiple of it.

    Attributes:
        name: of the attribute: "blocks.0.attn.num_heads", "mix.splits[1]".
        settings: what is known of all of them.
    """

    name: str
    settings: Settings

    def __new__(cls, value: int, name: str, settings: Settings) -> Setting:
        setting = super().__new__(cls, value)
        setting.name, setting.settings = name, settings
        return setting

    @property
    def atoms(self) -> Atoms:
        """The channels that it counts."""
        return self.settings.count(self)

    def fix(self, how: str) -> int:
        """Note that something is computed from it that need not scale with it; the plain number."""
        self.settings.fix(self.name, how)
        return int.__index__(self)

    def __mul__(self, other: Any) -> Any:
        if type(other) is Setting:  # a number of heads and the size of each, which stays
            if other.name not in self.settings.fixed:
                self, other = other, self
            other = other.fix("*")
        if type(other) is int:
            return Setting(int.__mul__(self, other), self.name, self.settings)
        return NotImplemented if isinstance(other, int) else self.fix("*") * other

    __rmul__ = __mul__


def _computing(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Setting, *others: Any) -> Any:
        if any(isinstance(other, int) and type(other) not in (int, bool, Setting) for other in others):
            return NotImplemented  # a number of channels, which sees to both
        self.fix(name.strip("_"))
        return plain(self, *(o.fix(name.strip("_")) if type(o) is Setting else o for o in others))

    return method


for _name in (
    "__add__", "__radd__", "__sub__", "__rsub__", "__truediv__", "__rtruediv__", "__floordiv__",
    "__rfloordiv__", "__mod__", "__rmod__", "__pow__", "__rpow__", "__divmod__", "__rdivmod__", "__neg__",
    "__float__", "__int__", "__trunc__", "__round__", "__floor__", "__ceil__", "__and__", "__or__",
    "__xor__", "__lshift__", "__rshift__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__",
):  # fmt: skip
    setattr(Setting, _name, _computing(_name, getattr(int, _name)))
Setting.__hash__ = int.__hash__  # type: ignore[method-assign]
del _name


class Settings:
    """The settings of one run.

    Attributes:
        atoms: those that are the size of a dimension, by name: an atom for each that they count.
        fixed: those from which something else is computed: what, in words.
    """

    def __init__(
        self,
        new_atoms: Callable[[int], Atoms],
        tie: Callable[[Atoms, Atoms], None],
        describe: Callable[[str], str],
    ) -> None:
        self.atoms: dict[str, Atoms] = {}
        self.fixed: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._sides: dict[str, tuple[str, str]] = {}
        self._new_atoms, self.tie, self._describe = new_atoms, tie, describe

    def place(self, modules: Mapping[str, nn.Module]) -> None:
        """Put settings into the attributes of modules; `slimnet.modes.unchanged` takes them out again."""
        seen: set[int] = set()
        for path, module in modules.items():
            if id(module) in seen or isinstance(module, torch.jit.ScriptModule):
                continue
            seen.add(id(module))
            attributes = vars(module)
            sides = _OF_LAYERS if isinstance(module, _LAYERS) else {}
            own = not type(module).__module__.startswith("torch.")
            for name in list(attributes if own else filter(attributes.__contains__, sides)):
                if name[:1] != "_" and type(attributes[name]) in _MARKED:
                    named = f"{path}.{name}" if path else name
                    attributes[name] = self._marked(attributes[name], named, path, sides.get(name))

    def _marked(self, value: Any, name: str, layer: str, side: str | None) -> Any:
        if _is_number(value) and int.__index__(value) > 1:
            return self.of(name, int.__index__(value), layer, side)
        if type(value) in (list, tuple) and len(value) <= LONGEST and all(map(_is_number, value)):
            return type(value)(self._marked(v, f"{name}[{i}]", layer, None) for i, v in enumerate(value))
        return value

    def of(self, name: str, value: int, layer: str = "", side: str | None = None) -> Setting:
        """The setting of a name; of a layer, which side of it it counts."""
        self._sizes[name] = value
        if side:
            self._sides[name] = layer, side
        return Setting(value, name, self)

    def fix(self, name: str, how: str) -> None:
        """Note that something is computed from a setting."""
        self.fixed.setdefault(name, f"{self._describe(how)} computes with {name}")

    def count(self, setting: Setting) -> Atoms:
        """What a setting counts."""
        if setting.name not in self.atoms:
            self.atoms[setting.name] = self._new_atoms(self._sizes[setting.name])
        return self.atoms[setting.name]

    def is_whole(self, setting: Setting) -> bool:
        """Whether it is the attribute itself, not a multiple."""
        return int.__index__(setting) == self._sizes[setting.name]

    def blocked(self) -> Iterator[tuple[Atoms, str]]:
        """What cannot change, as something is computed from its number."""
        for name, why in self.fixed.items():
            if name in self.atoms:
                yield self.atoms[name], why

    def sides(self) -> Iterator[tuple[str, str, str]]:
        """Those that count a side of a layer: their names, the layer and the side."""
        for name, (layer, side) in self._sides.items():
            if name in self.atoms or name in self.fixed:
                yield name, layer, side

    def changing(self) -> dict[str, Atoms]:
        """Those that are to be changed with what they count."""
        return {name: a for name, a in self.atoms.items() if name not in self._sides}


_MARKED = {int, Setting, list, tuple}


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is Setting  # of an earlier run


def channel_counts(layer: nn.Module) -> set[int]:
    """How many channels a layer takes and makes."""
    return {int.__index__(value) for name, value in vars(layer).items() if name in _OF_LAYERS}


def change_settings(model: nn.Module, values: Mapping[str, int]) -> None:
    """Set attributes of modules, by the names of their settings.

    Raises:
        AttributeError: the network has no such module or attribute.
    """
    for name, value in values.items():
        owner, attribute, index = re.fullmatch(r"(?:(.*)\.)?([^.\[]+)(?:\[(\d+)\])?", name).groups()  # type: ignore[union-attr]
        module = model.get_submodule(owner or "")
        if index is None:
            getattr(module, attribute)
            setattr(module, attribute, value)
        else:
            numbers = list(getattr(module, attribute))
            numbers[int(index)] = value
            setattr(module, attribute, type(getattr(module, attribute))(numbers))
