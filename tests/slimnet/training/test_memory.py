from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Prints the page faults of ten times 64 MB, after a first time.
REPEAT = """
import resource
{start}
import torch

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(sum(faults() for _ in range(10)))
"""
KEEP = "from slimnet.training.memory import keep_memory; keep_memory()"
HUGE = "THP_MEM_ALLOC_ENABLE"  # what torch is told of huge pages


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told how to hold memory")
def test_memory_is_kept_from_step_to_step() -> None:
    plain, kept = (page_faults(start) for start in ("", KEEP))
    assert kept < plain / 2  # 0 to 600 and 164,000, but far fewer where the system gives huge pages by itself


def test_the_user_s_word_on_huge_pages_stands() -> None:
    script = f"import os; {KEEP}; print(os.environ['{HUGE}'])"
    said = [
        subprocess.run(
            [sys.executable, "-c", script], env=environment(**own), check=True, capture_output=True, text=True
        ).stdout.strip()
        for own in ({}, {HUGE: "0"})
    ]
    assert said == ["1", "0"]


def page_faults(start: str) -> int:
    command = [sys.executable, "-c", REPEAT.format(start=start)]
    return int(subprocess.run(command, env=environment(), check=True, capture_output=True, text=True).stdout)


def environment(**own: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != HUGE} | own
