"""What the site shows beside docs/*.md: the pages that come from the code, and pages that lie elsewhere.

A hook of MkDocs (see mkdocs.yml; `make docs` builds the site). The config's fields come from its schema, the
commands from the command lines, the API from docstrings (by mkdocstrings): none of them can be out of date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import slimnet
from slimnet.cli.app import app as slimnet_app
from sweeps.cli.app import app as sweeps_app
from sweeps.config import shipped_configs
from sweeps.config.messages import Schema, describe, show
from sweeps.config.schema import Config
from sweeps.config.yaml_source import dotted

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NOTEBOOK = ROOT / "examples" / "first-sweep.ipynb"

TAKES = {  # where the schema has no words
    "search.space": "ranges, choices or branches, by field",
    "search.points": "a list of points",
}

MOVED = [  # links as GitHub follows them -> as the site does; without a place there, their text stays
    (r"\]\(\.\./CONTRIBUTING\.md\)", "](contributing.md)"),
    (r"\]\(\.\./benchmarks/results/([\w-]+\.md)", r"](results/\1"),
    (r"\]\(\.\./examples/first-sweep\.ipynb\)", "](notebook.md)"),
    (
        r"\[([^\]]+)\]\(\.\./(?:(?:examples|sweeps|slimnet|scripts|benchmarks)/?[\w./-]*|curves\.json)\)",
        r"\1",
    ),
]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the results of all benchmarks at the end of the navigation."""
    assert config.nav is not None
    config.nav.append({"Measurements": [f"results/{file.name}" for file in sorted(RESULTS.glob("*.md"))]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files in docs/."""
    from mkdocs.structure.files import File

    pages = {
        "reference/config.md": config_page(),
        "reference/commands.md": commands_page(),
        "reference/api.md": api_page(),
        "notebook.md": notebook_page(NOTEBOOK),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("](docs/", "]("),
        **{f"results/{file.name}": file.read_text(encoding="utf-8") for file in RESULTS.glob("*.md")},
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where pages are on the site, and set formulas."""
    for pattern, replacement in MOVED:
        markdown = re.sub(pattern, replacement, markdown)
    return formulas(markdown) if page.meta.get("formulas") else markdown


def formulas(markdown: str) -> str:
    """The page with $$…$$ and $…$ as MathML, which browsers show by themselves."""
    from latex2mathml.converter import convert as converted

    def convert(tex: str, display: str = "inline") -> str:
        bars_in_a_group = re.sub(r"\|([^|]+)\|", r"{|\1|}", tex)  # else browsers take them for operators
        return str(converted(bars_in_a_group, display=display))

    markdown = re.sub(
        r"\$\$(.+?)\$\$", lambda tex: convert(tex[1].strip(), display="block"), markdown, flags=re.DOTALL
    )
    # In a span, as Markdown takes a line that begins with <math for a block of HTML.
    inline = re.compile(r"\$([^$]+?)\$")
    return inline.sub(lambda tex: f"<span>{convert(' '.join(tex[1].split()))}</span>", markdown)


def notebook_page(file: Path) -> str:
    """A notebook as Markdown: its texts, its code, and the text that the code printed."""
    parts = []
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        printed = "".join("".join(output.get("text", [])) for output in cell.get("outputs", []))
        if printed:
            plain = re.sub(r"\x1b\[[0-9;]*m", "", printed)  # without colours
            parts.append(f"```text\n{plain.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def config_page() -> str:
    """Every field of a config: its default, what it takes and what it does."""
    schema = Schema(Config)
    top = [path for path in schema.paths() if len(path) == 1]
    sections = [path for path in top if schema.properties(schema.node(path) or {})]
    single = [path for path in top if path not in sections]
    lines = [
        "# Every field of a config",
        "",
        "A config is a YAML file; these are its keys. Unknown keys are refused, with the nearest known one.",
        "Any field can be given on the command line, `--set sparse.epochs=2`, and most can be",
        "[searched](../search.md).",
        "`sweeps init DATA` writes a config for your data; these come along:",
        "",
        *(f"- `{name}`: {_first_comment(file)}" for name, file in shipped_configs().items()),
        "",
        "## The study",
        "",
        *_fields(schema, single),
    ]
    for section in sections:
        inner = [(*section, key) for key in schema.properties(schema.node(section) or {})]
        model = Config.model_fields[section[0]].annotation
        about = (getattr(model, "__doc__", None) or "").partition("\n")[0]
        lines += ["", f"## `{section[0]}`", "", about, "", *_fields(schema, inner)]
    return "\n".join(lines)


def _fields(schema: Schema, paths: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield "| field | default | takes | |"
    yield "|---|---|---|---|"
    for path in paths:
        node = schema.node(path) or {}
        default = f"`{show(node['default'])}`" if "default" in node else ""
        takes = TAKES.get(dotted(path)) or describe(node)
        cells = [f"`{dotted(path)}`", default, takes, node.get("description", "")]
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _first_comment(file: Path) -> str:
    lines = takewhile(lambda line: line.startswith("# "), file.read_text(encoding="utf-8").splitlines())
    return " ".join(line.removeprefix("# ") for line in lines).partition(". ")[0].rstrip(".") + "."


def commands_page() -> str:
    """Every command with its arguments and options."""
    lines = [
        "# Every command",
        "",
        "`sweeps` and `slimnet` are installed with the package. `python -m sweeps` and `python -m slimnet`",
        "do the same, unless the current folder holds one of that name, which Python takes first",
        "(`python -P -m sweeps` does not).",
        "",
        "Exit status: 0 all is well; 1 it is done, but something failed, such as a trial; 2 bad usage or a",
        "mistake, and nothing was written; 3 another process has the study; 130, 143 and those of other",
        "signals: interrupted, to be resumed by the same command.",
    ]
    for name, app in (("sweeps", sweeps_app), ("slimnet", slimnet_app)):
        group: Any = typer.main.get_command(app)
        lines += ["", f"## `{name}`", "", group.help]
        for command in group.commands.values():
            if not command.hidden:
                lines += ["", *_command(f"{name} {command.name}", command)]
    return "\n".join(lines)


def _command(name: str, command: Any) -> Iterator[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    yield f"### `{name}`"
    yield ""
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    yield "    " + usage.replace("{", "").replace("}", "")
    yield ""
    yield command.help or ""
    yield ""
    yield "| argument or option | |"
    yield "|---|---|"
    for parameter in command.get_params(context):
        if parameter.name == "help" or getattr(parameter, "hidden", False):
            continue
        record = parameter.get_help_record(context)
        if record is not None:
            shown, text = record
            if parameter.param_type_name == "argument":
                shown = shown.partition(" <")[0]  # without its type, which says little
            yield f"| `{shown}` | {text} |".replace("\n", " ")


def api_page() -> str:
    """The public names of slimnet; mkdocstrings fills in what they are."""
    names = [name for name in slimnet.__all__ if name != "models"]
    models = [f"models.{name}" for name in slimnet.models.__all__]
    entries = [f"::: slimnet.{name}\n    options: {{heading_level: 2}}" for name in names + models]
    about = "All of it is imported from `slimnet`, and needs neither Optuna nor W&B."
    return "\n\n".join(["# The library, name by name", about, *entries])
