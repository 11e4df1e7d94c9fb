"""Writes docs/cifar10.md: the lab report, studies on CIFAR-10, and what others have published, side by side.

Every number of a study is read from its folder, and every network of a published table that slimnet can build
is counted anew. Without studies the page has the published part alone.

    python scripts/cifar10_page.py [RUNS/STUDY ...] [--note TEXT] [--out FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar10 import lab_report, published, studies
from slimnet.errors import SlimnetError
from sweeps.files import write_text
from sweeps.records import StudyRecord

OUT = Path(__file__).resolve().parent.parent / "docs" / "cifar10.md"


def page(found: Sequence[StudyRecord], note: str = "") -> str:
    """The whole page.

    Args:
        found: studies on CIFAR-10, in the order that they are shown.
        note: what is to be said of the data, in the author's words.
    """
    head = (
        "# CIFAR-10\n\nMade by `scripts/cifar10_page.py` from the folders of studies; do not edit it by "
        "hand. What the configs are, and how to run them: "
        "[the CIFAR-10 configs](cifar10-configs.md)."
    )
    parts = [head, note, "## The lab report, and the same again", _lab_report(found)]
    parts += ["## Studies", _studies(found), "## What others report", _published()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _lab_report(found: Sequence[StudyRecord]) -> str:
    same = next(filter(lab_report.repeats, found), None)
    head = (
        "slimnet grew from a lab report on Network Slimming ([Liu et al., "
        "2017](https://arxiv.org/abs/1708.06519)) of a ResNet-50. Its five items:"
    )
    return f"{head}\n\n{lab_report.beside(same)}" if same else lab_report.without_study()


def _studies(found: Sequence[StudyRecord]) -> str:
    if not found:
        return studies.without_study()
    return "\n\n".join([studies.explanation(), *map(studies.section, found)])


def _published() -> str:
    flags = "\n".join(f"- {flag}" for flag in published.disagreements())
    parts = (
        "Accuracies are in percent of the test split, as the sources give them: mostly one run, often its "
        "best epoch on that split. Their recipes, epochs and baselines differ. Sizes and MACs in the last "
        "columns are counted by slimnet, of the networks that it can build.",
        "### After fine-tuning",
        published.after_fine_tuning(),
        "### Right after pruning, before fine-tuning",
        published.right_after_pruning(),
        "### The networks, counted",
        published.networks_counted(),
        published.limits(),
        "### What does not fit",
        flags,
    )
    return "\n\n".join(parts)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", type=Path, nargs="*", help="the folder of a study, RUNS/STUDY")
    parser.add_argument("--note", default="", help="a sentence about the data, put at the top")
    parser.add_argument("--out", type=Path, default=OUT, help="the file to write")
    arguments = parser.parse_args()
    try:
        text = page([studies.read(folder) for folder in arguments.study], arguments.note)
    except SlimnetError as error:
        sys.exit(str(error))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out, text)
    print(arguments.out)


if __name__ == "__main__":
    main()
