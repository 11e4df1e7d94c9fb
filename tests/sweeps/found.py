"""What a look at a study may have found, made up."""

from __future__ import annotations

from sweeps.check import Findings
from sweeps.check.findings import Cut, DataFacts, GroupFacts, NetworkFacts, Times
from sweeps.machine import Machine

DATA = DataFacts("pictures", (3, 32, 32), ("cat", "dog"), (500, 500), (100, 100), (50, 50), 1000, 0)
NETWORK = NetworkFacts(
    name="resnet",
    params=10_000,
    macs=1_000_000,
    outputs=2,
    scaling_factors=32,
    groups=(GroupFacts("conv1", 1, 64, ""), GroupFacts("fc", 1, 2, "it is the network's output")),
    cuts=(Cut("prune.ratio 0.3", 8000), Cut("prune.ratio 0.9", 2000)),
)
FOUND = Findings(
    machine=Machine("cpu", 1, "a processor", "float32"),
    networks={},
    workers=2,
    threads=1,
    data=DATA,
    network=NETWORK,
    times=Times(0.1, 0.05, 5000, 0.001, 0.5, 0.2),
)
