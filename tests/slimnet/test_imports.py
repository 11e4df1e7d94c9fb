"""How the modules of slimnet depend on each other, and what importing them costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import resources
from pathlib import Path

import pytest

import slimnet

ROOT = Path(slimnet.__file__).parents[1]


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in (ROOT / "slimnet").rglob("*.py")}


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run, or would be read by a type checker, when a module is imported."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.Lambda):
            yield from outside_functions(child)


def imported_by(file: Path) -> set[str]:
    found = set()
    for node in outside_functions(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports by a relative name"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else str(node.module))
    return found & MODULES.keys()


def test_no_modules_import_each_other_in_a_circle() -> None:
    imports = {name: imported_by(file) for name, file in MODULES.items()}
    assert imports["slimnet.pruning.planning"] >= {"slimnet.pruning.plan", "slimnet.pruning.surgery"}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"imported in a circle: {' <- '.join(error.args[1])}")


LIGHT = (
    "import slimnet",
    "from slimnet.errors import SlimnetError",
    "from slimnet.files import replacing",
    "from slimnet.seeds import derive_seed",
    "from slimnet.precision import Precision, native_precision",
    "from slimnet.training.recipe import Recipe, Optimizer, Schedule",
    "from slimnet.training.sparsity import PLAIN_L1, Sparsity, PenaltyName, LambdaSchedule",
    "from slimnet.pruning.options import MIN_CHANNELS, Score, ThresholdOver",
    "from slimnet.models.catalogue import SIZES, WIDTHS, family_of",
    "from slimnet.models.stems import Stem",
    "from slimnet.data.catalogue import IMAGE_SIDES, NAMES, default_data_dir, fingerprint",
    "from slimnet.data import NAMES",
    "fingerprint('cifar10'), default_data_dir(), Recipe(1, 0.1), dir(slimnet)",
)


def test_what_needs_no_tensors_loads_neither_torch_nor_numpy() -> None:
    program = "; ".join([*LIGHT, "import sys; print({'torch', 'numpy'} & sys.modules.keys())"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--help"], "finetune"),
        (["--version"], f"slimnet {slimnet.__version__}\n"),
        (["train", "--help"], "--lambda"),
        (["prune", "--help"], "--ratio"),
        (["train", "--epochs", "-1"], "Invalid value for '--epochs'"),
        (["train"], "Missing option"),
    ],
)
def test_the_command_line_answers_without_torch_and_numpy(arguments: list[str], said: str) -> None:
    program = (
        "import sys; from slimnet.cli import main; sys.argv[0] = 'slimnet'\n"
        "try: main()\n"
        "finally: print('loaded:', {'torch', 'numpy'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert said in done.stdout + done.stderr
    assert done.stdout.endswith("loaded: set()\n")


def test_the_package_says_that_it_is_typed() -> None:
    assert resources.files(slimnet).joinpath("py.typed").is_file()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "py.typed" in declared["slimnet"]


def test_every_public_name_is_there_and_listed() -> None:
    for package in (slimnet, slimnet.models, sys.modules["slimnet.data"]):
        for name in package.__all__:
            assert getattr(package, name) is not None
            assert name in dir(package)
        with pytest.raises(AttributeError, match="has no attribute 'prunes'"):
            package.prunes  # noqa: B018
