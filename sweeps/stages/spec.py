"""What a stage's result depends on, and the key that follows from it."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from slimnet.data.augmentation import Augmentation
from slimnet.data.catalogue import Channels, Resize
from sweeps.config.model import Network

if TYPE_CHECKING:  # torch takes seconds to import, and only workers need it
    from torch import nn

    from slimnet.data import Splits

FORMAT = 3
"""Incremented when the same spec would give another result, or when the default of a field changes."""


class DataSpec(BaseModel):
    """Which images are used, how they are split, and how training images are augmented; as in the config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    fingerprint: str
    factory: str | None = None
    args: dict[str, Any] = {}
    image_size: int | None = None
    channels: Channels | None = None
    resize: Resize | None = None
    validation: float = 0.1
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop: int = 0
    flip: bool = False
    vertical_flip: bool = False
    resized_crop: float | None = None
    jitter: float = 0.0
    randaugment: int = 0
    cutout: float = 0.0
    mixup: float = 0.0

    @property
    def augmentation(self) -> Augmentation:
        """The changes to training images, as `slimnet` takes them."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})


class ModelSpec(Network):
    """What network a training starts with.

    Attributes:
        source: what its code is: a hash of a factory's source, or the version of a library; None for
            slimnet's own families.
        structure: a hash of the names and shapes of its parameters and buffers; None likewise.
        weights: the hash of the file that it is filled from, or the address of published weights; None for
            new weights.
    """

    source: str | None = None
    structure: str | None = None
    weights: str | None = None


class Spec(BaseModel):
    """Everything that a stage's result depends on, in primitives.

    A kind of stage is a subclass: its fields, and `compute`. A field that holds the key of another stage is
    an input, which `Stage.inputs` names.

    Attributes:
        title: the kind in words.
        alone: whether other stages wait while it is computed.
        kind: the name of the kind, and of its folder.
        seed: the trial's seed, on which all random draws depend.
        data: what the network is trained and measured on.
        pass_number: the pass of multi-pass slimming, from 1, so that each pass sees other batches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    title: ClassVar[str]
    alone: ClassVar[bool] = False

    kind: str
    seed: int
    data: DataSpec
    pass_number: int = 1

    @property
    def name(self) -> str:
        """The stage's name in its chain: the kind, numbered from the second pass on."""
        return self.kind if self.pass_number == 1 else f"{self.kind}-{self.pass_number}"

    @property
    def epochs(self) -> int:
        """Training epochs in the stage."""
        return 0

    def key(self) -> str:
        """A hash of the spec.

        A field at its default is left out, so that a field that is added later changes no key.
        """
        given = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        text = json.dumps(
            {**given, "format": FORMAT, "kind": self.kind}, sort_keys=True, separators=(",", ":")
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def dump(self) -> dict[str, Any]:
        """Every field, defaults included, as spec.json has them."""
        return {"format": FORMAT, **self.model_dump(mode="json", by_alias=True)}

    @abstractmethod
    def compute(self, context: Context) -> Computed | None:
        """Compute the stage, from the context's checkpoint if it exists.

        Returns:
            The network and its measurements; None if `context.stop` ended the stage early.

        Raises:
            SlimnetError: the training diverged, or a file is damaged or cannot be written.
        """


@dataclass(frozen=True)
class Context:
    """What a stage is computed with; none of it affects the result.

    Attributes:
        splits: the images, on the device.
        device: "cpu", or an accelerator such as "cuda:0".
        network: returns the network of an input, by the field that names it.
        checkpoint: the file to which a training is saved after every epoch, and from which it resumes.
        before_save: called before that file is written; what it raises ends the computation.
        on_resume: called once, with the history, if a training resumes from its checkpoint.
        on_epoch: called with the history after each epoch that is computed.
        on_step: called with (epoch, steps done, steps).
        on_warning: called with a sentence.
        stop: whether to end after the current epoch.
        folder: where a factory's module is looked for first.
        init: the file or name of the weights to start from, if the spec has any.
    """

    splits: Splits
    device: str
    network: Callable[[str], nn.Module]
    checkpoint: Path
    before_save: Callable[[], None]
    on_resume: Callable[[list[dict[str, Any]]], None]
    on_epoch: Callable[[list[dict[str, Any]]], None]
    on_step: Callable[[int, int, int], None]
    on_warning: Callable[[str], None]
    stop: Callable[[], bool]
    folder: Path | None = None
    init: str | None = None


@dataclass(frozen=True)
class Computed:
    """A finished stage: its network, if it yields one, its metrics, and a row per epoch."""

    model: nn.Module | None
    metrics: dict[str, Any]
    history: list[dict[str, Any]]
