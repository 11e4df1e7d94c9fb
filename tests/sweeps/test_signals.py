"""A signal while the program loads: it ends at once, and Python prints nothing of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from running import PATIENCE, ROOT

SENT_WHILE_IMPORTING = """
import os, signal, sys

class Sender:
    def find_spec(self, name, *rest):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Sender())
from sweeps.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["dataclasses", "slimnet.invocation"])
def test_a_signal_while_a_module_is_imported_leaves_no_traceback(module: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", SENT_WHILE_IMPORTING, module],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE,
    )
    assert (found.returncode, "Traceback" in found.stderr) == (130, False), found.stderr
    assert found.stderr.startswith("interrupted. Go on with: ")
