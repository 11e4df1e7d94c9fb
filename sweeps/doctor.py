"""What `doctor` looks at: versions, devices, data, W&B."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from slimnet.data import default_data_dir, load_dataset
from slimnet.devices import choose_device, device_count, device_name, kind_of, shortcomings
from slimnet.errors import SlimnetError
from slimnet.precision import native_precision
from slimnet.wording import plural
from sweeps.machine import core_count
from sweeps.tracking import decide_mode

PACKAGES = ("torch", "torchvision", "optuna", "wandb", "pydantic", "rich", "plotly")


@dataclass(frozen=True)
class Fact:
    """One finding; `needed` ones must be ok for the default sweep to run."""

    what: str
    found: str
    ok: bool
    needed: bool = True


def examine(data_dir: Path | None) -> list[Fact]:
    """Look at everything that a sweep relies on."""
    return [
        Fact("python", platform.python_version(), True),
        *(_package(name) for name in PACKAGES),
        *_devices(),
        _embedded_data(),
        Fact("data folder", str(data_dir or default_data_dir()), True),
        _wandb(),
    ]


def _package(name: str) -> Fact:
    needed = name not in ("wandb", "torchvision")
    try:
        return Fact(name, version(name), True, needed)
    except PackageNotFoundError:
        return Fact(name, f"not installed; get it with: pip install {name}", False, needed)


def _devices() -> list[Fact]:
    """The processor, then the accelerators, the first of which is what `device: auto` takes."""
    kind = kind_of(choose_device("auto"))
    accelerators = [] if kind == "cpu" else [f"{kind}:{index}" for index in range(device_count(kind))]
    facts = []
    for device in ["cpu", *accelerators]:
        cores = f", {plural(core_count(), 'core')}" if device == "cpu" else ""
        facts.append(Fact(device, f"{device_name(device)}{cores}, {native_precision(device)}", True))
    facts.append(Fact("device: auto", kind, True))
    lacking = shortcomings(kind)
    return facts + [Fact("note", text, True, needed=False) for text in lacking]


def _embedded_data() -> Fact:
    try:
        dataset = load_dataset("fashion-mini")
    except SlimnetError as error:
        return Fact("fashion-mini", str(error), False)
    return Fact(
        "fashion-mini", f"{len(dataset.y_train):,} train and {len(dataset.y_test):,} test images", True
    )


def _wandb() -> Fact:
    try:
        return Fact("W&B", decide_mode("auto").why.removeprefix("W&B: "), True, needed=False)
    except SlimnetError as error:
        return Fact("W&B", str(error), False, needed=False)
