"""python -m benchmarks [NAME ...]: run the benchmarks, all the quick ones by default."""

from __future__ import annotations

import argparse
import platform

import torch

from benchmarks import (
    against,
    before_finetuning,
    cluster,
    driver,
    finetuning,
    latency,
    networks,
    penalties,
    pruning,
    startup,
    stopping,
    streaming,
    targets,
    tracking,
    training,
)
from slimnet.devices import device_name
from slimnet.precision import native_precision
from sweeps.machine import core_count

QUICK = {
    "pruning": pruning.main,
    "latency": latency.main,
    "training": training.main,
    "startup": startup.main,
    "driver": driver.main,
    "streaming": streaming.main,
    "stopping": stopping.main,
    "against": against.main,
}
LONG = {
    "cluster": cluster.main,
    "networks": networks.main,
    "before-finetuning": before_finetuning.main,
    "finetuning": finetuning.main,
    "penalties": penalties.main,
    "targets": targets.main,
    "tracking": tracking.main,
    "training-accuracy": training.accuracy,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *QUICK, *LONG], help="default: the quick ones")
    names = parser.parse_args().names or list(QUICK)
    print(
        f"{device_name('cpu')}, {core_count()} cores, {native_precision('cpu')} natively; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
    for name in names:
        print(f"\n## {name}\n", flush=True)
        {**QUICK, **LONG}[name]()


if __name__ == "__main__":
    main()
