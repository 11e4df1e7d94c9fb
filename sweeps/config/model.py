"""The network of a study: its name or factory, and its first weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, WithJsonSchema, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from slimnet.errors import SlimnetError
from slimnet.models.catalogue import (
    LIBRARIES,
    NAMES,
    SIZES,
    SPELLINGS,
    WIDTHS,
    WITH_STEM,
    Family,
    SizeName,
    family_of,
    is_of_library,
    suggestion,
)
from slimnet.models.source import split_factory
from slimnet.models.stems import Stem
from slimnet.wording import after_question
from sweeps.config.base import WIDE, Section
from sweeps.config.messages import refusal, show
from sweeps.config.yaml_source import KeyPath

LibraryName = Annotated[
    str,
    Field(pattern=rf"^({'|'.join(LIBRARIES)})/[^/]+$"),
    WithJsonSchema({"enum": [f"{library}/NAME" for library in LIBRARIES]}),
]


class Network(Section):
    """A network: a family of slimnet's, one of torchvision or timm, or one's own from a factory."""

    name: Literal[Family, SizeName] | LibraryName | SkipJsonSchema[None] = Field(
        None, description="a family, at any size, or a network with a name"
    )
    factory: str | SkipJsonSchema[None] = Field(
        None,
        description="instead of name: package.module:function that makes your network, found beside the "
        "config or where Python finds modules",
    )
    args: dict[str, JsonValue] = Field(
        {}, description="arguments of a factory or a network of a library, by name"
    )
    blocks: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        (),
        strict=False,
        description="blocks in each stage; convolutions for a vgg",
        json_schema_extra={"minItems": 1},
    )
    width: int = Field(64, ge=1, le=WIDE, description="channels of the first layer; stages double them")
    stem: Stem = Field("cifar", description="the first layers of a ResNet or MobileNet")

    @property
    def family(self) -> str | None:
        """The family of slimnet's that the network belongs to; None for any other network."""
        return family_of(self.name) if self.name and "/" not in self.name else None

    @property
    def label(self) -> str:
        """What the network is called."""
        return str(self.factory or self.name)

    def description(self) -> dict[str, Any]:
        """The network as `slimnet.models.building` takes it."""
        if self.factory is not None:
            return {"factory": self.factory, "args": self.args}
        if self.family is None:
            return {"name": self.name, "args": self.args}
        stem = {"stem": self.stem} if self.family in WITH_STEM else {}
        return {"name": self.family, "blocks": list(self.blocks), "width": self.width, **stem}


class Model(Network):
    """The network of a study, its first weights, and where its code is."""

    init: str | None = Field(
        None,
        description="trained weights to start from: a file (slimnet, safetensors, state_dict), or by name, "
        "such as DEFAULT for torchvision and pretrained for timm",
    )
    path: Path | None = Field(
        None,
        strict=False,
        description="folder in which a factory is looked for first; by default that of the config",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_sizes(cls, values: Any) -> Any:
        name = values.get("name") if isinstance(values, dict) else None
        if not isinstance(name, str):
            return values
        if name in SIZES:
            return {"blocks": SIZES[name].blocks, "width": SIZES[name].width, **values}
        return {"width": WIDTHS[name], **values} if name in WIDTHS else values

    @field_validator("name", mode="before")
    @classmethod
    def _names_a_network(cls, name: Any) -> Any:
        if isinstance(name, str) and name not in NAMES and not is_of_library(name):
            takes = f"it takes {SPELLINGS}. Or give a factory."
            raise refusal(((), f"is {show(name)}; {after_question(suggestion(name), takes)}"))
        return name

    @model_validator(mode="after")
    def _is_one_network(self) -> Self:
        if self.factory is None and self.name is None:
            raise refusal((("name",), f"is missing; it takes {SPELLINGS}. Or give a factory."))
        if self.factory is not None and self.name is not None:
            raise refusal(
                (("name",), f"is {show(self.name)}, but factory names another network; remove one.")
            )
        if self.factory is not None:
            try:
                split_factory(self.factory)
            except SlimnetError:
                clause = (
                    f"is {show(self.factory)}; it takes package.module:function, such as nets:small for the "
                    "function small in nets.py."
                )
                raise refusal((("factory",), clause)) from None
        return self

    @model_validator(mode="after")
    def _fields_are_of_the_network(self) -> Self:
        problems: list[tuple[KeyPath, str]] = []
        if size := SIZES.get(self.name or ""):
            for key, own in (("blocks", size.blocks), ("width", size.width)):
                if (given := getattr(self, key)) != own:
                    clause = (
                        f"is {show(given)}, but {self.name} has {show(own)}; "
                        f"remove it, or use model.name {size.family}."
                    )
                    problems.append(((key,), clause))
        if self.family is None:
            for key in ("blocks", "width"):
                if (given := getattr(self, key)) != Network.model_fields[key].default:
                    clause = (
                        f"is {show(given)}, but {self.label} is no family of slimnet's; remove it, or give "
                        "the network's own arguments by args."
                    )
                    problems.append(((key,), clause))
        elif not self.blocks:
            clause = (
                "is missing; it takes a list of 1 or more items, each a whole number, at least 1 and at most "
                f"1,000 ({Network.model_fields['blocks'].description})."
            )
            problems.append((("blocks",), clause))
        if self.family is not None and self.args:
            clause = f"is {show(self.args)}, but {self.name} takes none; use blocks, width and stem."
            problems.append((("args",), clause))
        if self.family not in WITH_STEM and self.stem != "cifar":
            clause = f"is {self.stem}, but {self.label} has no stem; remove it, or use a ResNet."
            problems.append((("stem",), clause))
        if self.factory is None and self.path is not None:
            clause = f"is {show(self.path)}, but only a factory is looked for in a folder; remove it."
            problems.append((("path",), clause))
        if problems:
            raise refusal(*problems)
        return self
