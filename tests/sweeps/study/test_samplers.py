"""Samplers that cannot be made are refused, with what to do."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from own_sampler import own as own
from running import Command

from slimnet.errors import SlimnetError
from sweeps.config import Search, load_config
from sweeps.study.sampling import check_sampler

SPACE = "{prune.ratio: {range: [0.1, 0.9]}}"


def search(sampler: str, **more: object) -> Search:
    given = {"sampler": sampler, **more}
    return load_config("smoke", [f"search.{key}={value}" for key, value in given.items()]).search


@pytest.mark.parametrize(
    ("sampler", "args", "reason"),
    [
        ("nowhere:mine", "{}", "there is no module nowhere in .* or where Python finds modules"),
        ("own_samplers:lowst", "{}", "has no lowst; did you mean own_samplers:lowest?"),
        ("own_samplers:wrong", "{}", "own_samplers:wrong returns a int; a sampler of Optuna is needed"),
        ("own_samplers:unseeded", "{}", "takes no argument seed; it takes none"),
        ("own_samplers:lowest", "{least: 1}", "takes no argument least; it takes seed, most"),
        ("tpe", "{startup: 1}", "the sampler tpe takes no argument startup; it takes .*n_startup_trials"),
        ("nsga2", "{population_size: 1}", "the sampler nsga2 failed: ValueError: `population_size` must be"),
        ("tpe", "{n_startup_trials: many}", "the sampler tpe cannot choose trial 0: TypeError: .*int"),
        (
            "tpe",
            "{n_ei_candidates: -1}",
            "the sampler tpe cannot choose trial 10: ValueError.*; check search.args",
        ),
        (
            "own_samplers:Breaks",
            "{}",
            "Breaks cannot choose trial 0: RuntimeError: no idea .*own_samplers.py, ",
        ),
    ],
)
def test_a_sampler_that_cannot_be_made_is_refused(own: Path, sampler: str, args: str, reason: str) -> None:
    folder = {"path": own} if ":" in sampler else {}
    with pytest.raises(SlimnetError, match=reason):
        check_sampler(search(sampler, args=args, trials=11, space=SPACE, **folder))


def test_a_package_that_gp_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.study.samplers.find_spec", lambda name: None)
    with pytest.raises(SlimnetError, match=r"gp needs the package scipy: pip install scipy"):
        check_sampler(search("gp"))


@pytest.mark.parametrize(
    ("sampler", "reason"),
    [
        ("wrong", "own_samplers:wrong returns a int; a sampler of Optuna is needed"),
        ("Exits", "the sampler own_samplers:Exits cannot choose trial 0: SystemExit: bye"),
    ],
)
def test_a_sampler_that_draws_nothing_ends_a_command_before_anything_is_written(
    own: Path,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    reason: str,
) -> None:
    for logger in (None, "sweeps"):  # as in a process of its own
        monkeypatch.setattr(logging.getLogger(logger), "handlers", [])
    for name in ("run", "plan", "check"):
        options = ("smoke", "--set", f"search.sampler=own_samplers:{sampler}", "--set", f"search.path={own}")
        code, _, err = command(name, *options, "--runs", tmp_path / "runs")
        assert (code, err.startswith(f"Error: {reason}"), err.count("\n")) == (2, True, 1)
    assert not (tmp_path / "runs").exists()
