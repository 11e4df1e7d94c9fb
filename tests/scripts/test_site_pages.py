"""The pages of the site that are made from the code."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sweeps.config.messages import Schema
from sweeps.config.schema import Config
from sweeps.config.yaml_source import dotted

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import site_pages


def test_every_field_of_a_config_has_a_row_with_what_it_takes() -> None:
    page = site_pages.config_page()
    schema = Schema(Config)
    for path in schema.paths():
        if schema.properties(schema.node(path) or {}):
            assert f"\n## `{dotted(path)}`\n" in page
        else:
            (row,) = re.findall(rf"^\| `{re.escape(dotted(path))}` \|.*$", page, flags=re.MULTILINE)
            assert "another value" not in row
            assert row.count("|") == 5
    assert "- `smoke`: The shortest complete sweep" in page


def test_every_command_has_its_options() -> None:
    page = site_pages.commands_page()
    for command in ("sweeps run", "sweeps init", "sweeps gc", "slimnet train", "slimnet predict"):
        assert f"### `{command}`" in page
    assert "wandb-trial" not in page  # hidden: W&B's agents call it
    assert "| `--trials N` | Number of trials; overrides search.trials. |" in page


def test_links_of_the_repository_become_links_of_the_site() -> None:
    class Page:
        meta: dict[str, bool] = {}  # noqa: RUF012

    told = "[a](../benchmarks/results/answer.md#x) [b](../examples/first-sweep.ipynb) [c](../sweeps/x.yaml)"
    moved = site_pages.on_page_markdown(told, Page(), None, None)
    assert moved == "[a](results/answer.md#x) [b](notebook.md) c"


@pytest.mark.skipif(not find_spec("latex2mathml"), reason="latex2mathml is not installed")
def test_formulas_are_mathml() -> None:
    assert site_pages.formulas("at $x^2$:\n\n$$ y \\le 1 $$").count("<math") == 2
