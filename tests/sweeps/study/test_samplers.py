"""Samplers that cannot be made are refused, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_sampler import own as own
from running import Command

from slimnet.errors import SlimnetError
from sweeps.config import Search, load_config
from sweeps.study.samplers import check_sampler


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
    ],
)
def test_a_sampler_that_cannot_be_made_is_refused(own: Path, sampler: str, args: str, reason: str) -> None:
    folder = {"path": own} if ":" in sampler else {}
    with pytest.raises(SlimnetError, match=reason):
        check_sampler(search(sampler, args=args, **folder))


def test_a_package_that_gp_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.study.samplers.find_spec", lambda name: None)
    with pytest.raises(SlimnetError, match=r"gp needs the package scipy: pip install 'slimnet\[gp\]'"):
        check_sampler(search("gp"))


def test_a_sampler_that_cannot_be_made_ends_a_command_before_anything_is_written(
    own: Path, command: Command, tmp_path: Path
) -> None:
    for name in ("run", "plan", "check"):
        options = ("smoke", "--set", "search.sampler=own_samplers:wrong", "--set", f"search.path={own}")
        code, _, err = command(name, *options, *(("--runs", tmp_path / "runs") if name != "check" else ()))
        assert code == 2
        assert "own_samplers:wrong returns a int" in err
    assert not (tmp_path / "runs").exists()
