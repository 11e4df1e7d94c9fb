"""Numbers as text."""

from __future__ import annotations

import math
from typing import Any

from slimnet.wording import file_size

UNKNOWN = "–"
METRICS = {
    "val_accuracy": "validation accuracy",
    "test_accuracy": "test accuracy",
    "params": "parameters",
    "macs": "MACs",
    "latency_ms": "the latency of one image",
    "latency_ms_64": "the latency of 64 images",
    "file_bytes": "the size of the file",
}
"""What metrics are called in a sentence."""
_SPACE = "\N{NO-BREAK SPACE}"


def count(number: float | None) -> str:
    """126330 -> "126,330"."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def short_count(number: float) -> str:
    """20000 -> "20k", 1250000 -> "1.25M": for the ticks of an axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.6g}{letter}"
    return f"{number:.6g}"


def percent(fraction: float | None) -> str:
    """0.869 -> "86.9 %"."""
    return UNKNOWN if fraction is None or math.isnan(fraction) else f"{100 * fraction:.1f}{_SPACE}%"


def milliseconds(number: float | None) -> str:
    """0.4123 -> "0.412 ms", 1234 -> "1.2 s"."""
    if number is None:
        return UNKNOWN
    return f"{number:.3g}{_SPACE}ms" if number < 1000 else f"{number / 1000:.1f}{_SPACE}s"


def metric_value(metric: str, value: float) -> str:
    """A value of a metric, with its unit: "86.9 %", "126,330", "0.412 ms"."""
    if metric.endswith("accuracy"):
        return percent(value)
    if metric.startswith("latency"):
        return milliseconds(value)
    return file_size(round(value)) if metric == "file_bytes" else count(value)


def times(factor: float) -> str:
    """6.02 -> "6.0×"."""
    return f"{factor:.1f}×"


def searched_value(value: Any) -> str:
    """1e-05 -> "1e-5", 0.00711376 -> "0.00711", "l1" -> "l1"."""
    if not isinstance(value, float):
        return str(value)
    mantissa, e, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def hours_minutes_seconds(seconds: float) -> str:
    """102.4 -> "1 min 42 s"."""
    if 0 < seconds < 10:
        return f"{seconds:.1f}{_SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest if not hours else 0, "s")]
    return " ".join(f"{number}{_SPACE}{unit}" for number, unit in parts if number) or "0 s"
