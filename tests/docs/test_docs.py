"""The documentation beside what it speaks of: links lead somewhere, messages are said."""

from __future__ import annotations

import re
import subprocess
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor, nn

import slimnet
from slimnet.latency import Latency
from slimnet.pruning import planning
from sweeps.config import Config, load_config, shipped_configs

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "examples").rglob("*.md"),
    *(ROOT / "benchmarks" / "results").glob("*.md"),
]
GENERATED = ("reference/config.md", "reference/commands.md", "reference/api.md", "contributing.md")


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?:", link):
            yield link


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, as on GitHub."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        if path in GENERATED and page.parent.name == "docs":
            continue  # made for the site, whose build checks links too
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


def test_every_message_of_the_troubleshooting_page_is_said_somewhere() -> None:
    files = [
        *(ROOT / "slimnet").rglob("*.py"),
        *(ROOT / "sweeps").rglob("*.py"),
        ROOT / "scripts" / "setup.sh",
    ]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    said = re.sub(r'"\s*\n\s*f?"', "", code)  # strings over several lines
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^### `(.+)`$", page, flags=re.MULTILINE)
    assert len(messages) > 20
    for message in messages:
        for piece in re.split(r" ?… ?", message):
            assert piece in said, message


def configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """The parts of configs that pages show, with the number of the page's block."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        fenced = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
        indented = re.findall(r"(?:^    .*\n|(?<=\n)\n(?=    ))+", text, flags=re.MULTILINE)
        for number, block in enumerate([*fenced, *map(textwrap.dedent, indented)]):
            if re.match(rf"(#.*\n|\n)*(space|{'|'.join(Config.model_fields)}):", block):
                shown = yaml.safe_load(block)
                yield f"{page.name}-{number}", {"search": shown} if "space" in shown else shown


@pytest.mark.parametrize("shown", [pytest.param(shown, id=name) for name, shown in configs()])
def test_what_pages_show_of_configs_is_accepted(shown: dict[str, Any], tmp_path: Path) -> None:
    shipped = yaml.safe_load(shipped_configs()["smoke"].read_text())
    shipped["sparse"]["epochs"] = 12
    if "search" in shown and "points" not in shown["search"]:
        shown = shown | {"search": shipped["search"] | shown["search"]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(shipped | shown))
    load_config(tmp_path / "config.yaml")


def clocked(model: nn.Module, example: Tensor, **options: Any) -> Latency:
    """A latency that a busy machine does not change."""
    ms = slimnet.count_macs(model, example) / 1e6
    return Latency(ms, ms, ms, len(example), 1)


@pytest.mark.slow  # networks of torchvision are traced and pruned
@pytest.mark.parametrize("page", ["library", "recipes"])
def test_the_code_of_pages_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (slimnet, planning):
        monkeypatch.setattr(module, "measure_latency", clocked)
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        names: dict[str, Any] = {}
        exec(code, names)
        assert slimnet.count_params(names["smaller"]) < 0.95 * slimnet.count_params(names["model"])


def test_every_page_is_in_the_navigation() -> None:
    pages = str(yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=yaml.BaseLoader)["nav"])
    assert not [page.name for page in (ROOT / "docs").glob("*.md") if f"'{page.name}'" not in pages]


def test_no_page_leads_to_the_project_that_has_our_name_on_pypi() -> None:
    for page in [*PAGES, *(ROOT / "examples").rglob("*.ipynb")]:
        for line in page.read_text(encoding="utf-8").split("\n\n"):
            if re.search(r"pip install (-\S+ )*'?slimnet(?![-\w])", line):
                assert "nother project" in line or "another one" in line, (page.name, line)


def test_the_page_on_installing_has_every_extra_and_the_name_of_the_wheel() -> None:
    page = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = " ".join(re.findall(r"^\| (`.+?) \|", page, flags=re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", rows)) == set(project["optional-dependencies"])
    assert f"slimnet-{slimnet.__version__}-py3-none-any.whl" in page


def test_the_map_of_the_house_names_what_is_there() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for part in re.split(r"(?=^\| in )", page, flags=re.MULTILINE)[1:]:
        folder = re.findall(r"`(.+?)/`", part)[0]
        for row in re.findall(r"^\| (`.+?) \|", part, flags=re.MULTILINE):
            for name in re.findall(r"`(.+?)`", row):
                assert (ROOT / folder / name).exists(), name
    for name in re.findall(r"`((?:scripts|tests|docs)/[^`]+)`", page):
        assert (ROOT / name).exists(), name


def test_the_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {slimnet.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+)", changes, flags=re.MULTILINE).group(1) == slimnet.__version__  # type: ignore[union-attr]


def test_the_readme_has_no_command_of_an_environment_that_make_does_not_set_up() -> None:
    found = re.findall(r"^    (\S+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert set(found) <= {"make", ".venv/bin/sweeps", ".venv/bin/slimnet"}
    names = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "make docs" in names
