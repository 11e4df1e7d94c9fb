"""What a worker is given: a stage, a place to compute it, and callbacks to report to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slimnet.errors import SlimnetError
from slimnet.wording import plural
from sweeps.config import Config
from sweeps.records import Row
from sweeps.stages import Stage, Store


class DamagedInputError(SlimnetError):
    """The network of an input cannot be read.

    Attributes:
        role: the input, by the field of the spec that names it.
    """

    def __init__(self, message: str, role: str) -> None:
        super().__init__(message)
        self.role = role


@dataclass(frozen=True)
class Job:
    """A stage to compute.

    Attributes:
        stage: the stage.
        store: holds its folder and those of its inputs.
        data_path, data_dir: the user's own data, and the folder of the data sets; the spec has a fingerprint.
        model_path, init: the folder of a factory, and the weights to start from; the spec holds their hashes.
        known_epochs: epochs that whoever starts it knows of, and need not be told of again.
    """

    stage: Stage
    store: Store
    data_path: Path | None = None
    data_dir: Path | None = None
    model_path: Path | None = None
    init: str | None = None
    known_epochs: int = 0

    @classmethod
    def of(
        cls, stage: Stage, store: Store, config: Config, data_dir: Path | None = None, known_epochs: int = 0
    ) -> Job:
        """The job of a stage of a study with this config."""
        data, model = config.data, config.model
        return cls(stage, store, data.path, data_dir, model.path, model.init, known_epochs)

    @property
    def key(self) -> str:
        """The stage's key."""
        return self.stage.key


@dataclass(frozen=True)
class Place:
    """Where one stage is computed.

    Attributes:
        device: "cpu", or an accelerator such as "cuda:0", "mps:0" or "xpu:0".
        threads: of PyTorch, at least 1.
    """

    device: str
    threads: int

    def __str__(self) -> str:
        return f"{self.device} with {plural(self.threads, 'thread')}"


@dataclass(frozen=True)
class Watch:
    """How a stage reports while it runs.

    Attributes:
        epoch: called with the newest row of the history after each epoch that is computed, not for those
            computed before.
        step: called with (epoch, steps done, steps) within an epoch.
        warning: called with a sentence on what was damaged and how the stage continues.
        stop: whether to end after the current epoch, or while waiting for another process.
    """

    epoch: Callable[[Row], None] = lambda row: None
    step: Callable[[int, int, int], None] = lambda epoch, step, steps: None
    warning: Callable[[str], None] = lambda text: None
    stop: Callable[[], bool] = lambda: False
