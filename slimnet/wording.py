"""Numbers and errors as people say them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches


def duration(seconds: float) -> str:
    """A time left or spent: 89 -> "89 s", 125 -> "2 min", 9000 -> "2.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def file_size(count: int) -> str:
    """1234567 -> "1.2 MB"."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def plural(number: int, noun: str) -> str:
    """(1, "trial") -> "1 trial", (3, "trial") -> "3 trials", (2, "class") -> "2 classes"; 2 retries."""
    if number != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun}"


def first_line(error: BaseException) -> str:
    """The first line of an exception's message; its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def one_line(error: Exception) -> str:
    """An exception's message on one line; its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def did_you_mean(given: str, known: Iterable[str], most: int = 1, prefix: str = "") -> str:
    """("prune.rato", fields) -> "did you mean prune.ratio?"; empty where no known name is near.

    Args:
        given: a wrong name: misspelled, in another case, without what stands before its last "/" or ".", or
            with something else before the "/".
        known: all names.
        most: how many names the question gives of those that are spelled alike.
        prefix: what it puts before each.
    """
    names, wrong = list(known), given.lower()
    near = [name for name in names if wrong in (name.lower(), re.split("[/.]", name.lower())[-1])]
    if not near:  # by what tells names apart, as all of a library begin alike
        wrong = wrong.rpartition("/")[2]
        last = {name.lower().rpartition("/")[2]: name for name in names}
        near = [last[close] for close in get_close_matches(wrong, last, most) if _may_be(wrong, close)]
    return f"did you mean {' or '.join(prefix + name for name in near)}?" if near else ""


def after_question(question: str, rest: str) -> str:
    """("did you mean x?", "it takes y") -> "did you mean x? It takes y"; `rest` where nothing is asked."""
    return f"{question} {rest[0].upper()}{rest[1:]}" if question else rest


def _may_be(wrong: str, name: str) -> bool:
    """Whether a near name may be meant: of short ones the first letter tells."""
    return len(wrong) > 3 or wrong[0] == name[0]
