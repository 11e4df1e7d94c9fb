"""The latency and the file size of a finished network, which no other stage depends on."""

from __future__ import annotations

from typing import ClassVar, Literal

from sweeps.stages.spec import Computed, Context, Spec

BATCHES = {"latency_ms": 1, "latency_ms_64": 64}
"""The measurements, and the images that pass at once in each."""
BURSTS, SECONDS = 5, 0.05  # of passes, the quietest of which counts


class LatencySpec(Spec):
    """How long a network takes on one machine.

    Unlike the results of other stages it is not the same every time; it is measured once, and kept.

    Attributes:
        parent: the stage whose network is measured.
        machine: the name of the device.
    """

    title: ClassVar[str] = "measuring latency"
    alone: ClassVar[bool] = True

    kind: Literal["latency"] = "latency"
    parent: str
    machine: str

    def compute(self, context: Context) -> Computed:
        """Time the network, on one thread if it is on a processor, and take the size of its file."""
        import torch

        from slimnet.export.tensors import file_bytes
        from slimnet.latency import deployed, measure_latency

        network = context.network("parent")
        size = file_bytes(network)
        torch.set_num_threads(1)
        network = deployed(network)
        metrics: dict[str, float | int] = {}
        for name, batch in BATCHES.items():
            example = context.splits.example.repeat(batch, 1, 1, 1)
            metrics[name] = measure_latency(network, example, seconds=SECONDS, bursts=BURSTS).median_ms
        return Computed(None, {**metrics, "file_bytes": size, "machine": self.machine}, [])
