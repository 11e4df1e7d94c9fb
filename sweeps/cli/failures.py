"""What of a finished sweep has failed, and why."""

from __future__ import annotations

from collections.abc import Iterable

from sweeps.console import Console
from sweeps.records import StageRecord, StudyRecord

LINES = 10  # of a traceback, or of what a process printed before it died
MOST = 5  # stages of which these lines are shown; the report has more


def tell_failures(console: Console, record: StudyRecord) -> bool:
    """Print, on stderr, what has failed; returns whether anything has."""
    told: set[str] = set()

    def tell(text: str, stages: Iterable[StageRecord]) -> None:
        console.error(text)
        broken = next((stage for stage in stages if stage.failure), None)
        if broken and broken.failure and broken.key not in told and len(told) < MOST:
            told.add(broken.key)
            for line in _excerpt(broken.failure["detail"]):
                console.error(f"    {line}")

    trials = [trial for trial in record.trials if trial.state == "failed"]
    for trial in trials:
        tell(f"trial {trial.number} failed: {trial.reason}", trial.stages)
    if record.dense.failure:
        tell(f"the dense baseline failed: {record.dense.failure['reason']}", [record.dense])
    contenders = [one for one in record.contenders if one.state == "failed"]
    for one in contenders:
        tell(f"the {one.name} failed: {one.reason}", one.stages)
    curves = [stage for stage in record.curves.values() if stage.failure]
    for curve in curves:
        reason = curve.failure["reason"] if curve.failure else ""
        tell(f"the curve {curve.key}, which only the report shows, failed: {reason}", [curve])
    unmeasured = [stage.failure["reason"] for stage in record.latencies.values() if stage.failure]
    for reason in dict.fromkeys(unmeasured):
        count = unmeasured.count(reason)
        console.error(f"{count} {'latency' if count == 1 else 'latencies'} could not be measured: {reason}")
    return bool(trials or record.dense.failure or contenders or curves or unmeasured)


def _excerpt(detail: str) -> list[str]:
    """The lines that tell most: the last, or of a crash its first and what was printed before it."""
    lines = detail.splitlines()
    crash = next((place for place, line in enumerate(lines) if line.startswith("Fatal Python error")), None)
    first = len(lines) - LINES if crash is None else crash - 2
    return lines[max(0, first) :][:LINES]


def fails_the_goal(record: StudyRecord) -> bool:
    """Whether more has failed than what only the report shows."""
    states = [*(trial.state for trial in record.trials), *(one.state for one in record.contenders)]
    return "failed" in states or record.dense.failure is not None
