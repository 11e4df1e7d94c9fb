"""Numbers as text."""

from __future__ import annotations

from slimnet.wording import plural
from sweeps.report.wording import milliseconds


def test_nouns_have_their_plural() -> None:
    assert [plural(1, "class"), plural(2, "class"), plural(3000, "trial")] == [
        "1 class",
        "2 classes",
        "3,000 trials",
    ]


def test_a_second_or_more_is_told_in_seconds() -> None:
    assert [milliseconds(number) for number in (0.4123, 999.4, 1234, None)] == [
        "0.412\N{NO-BREAK SPACE}ms",
        "999\N{NO-BREAK SPACE}ms",
        "1.2\N{NO-BREAK SPACE}s",
        "–",
    ]
