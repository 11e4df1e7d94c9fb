"""Every step of an experiment on an accelerator that is neither the processor nor CUDA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

PROGRAM = Path(__file__).parents[1] / "accelerator.py"


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch takes no backend in Python",
)
def test_an_accelerator_without_float64_ends_where_the_processor_does() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-W", "ignore", str(PROGRAM)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    processor, accelerator = json.loads(done.stdout)
    assert (processor.pop("where"), accelerator.pop("where")) == (["cpu"], ["pretend:0"])
    assert accelerator.pop("latency") == processor.pop("latency") == 1
    assert accelerator.pop("uniform") == processor.pop("uniform")
    for step in ("sparse", "finetune"):
        assert accelerator.pop(step) == pytest.approx(processor.pop(step), rel=0.02), step
    for score, sizes in processor.items():  # the last digits of a score may decide between two channels
        assert accelerator[score] == pytest.approx(sizes, rel=0.2), score
