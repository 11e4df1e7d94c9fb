"""The source of a network of one's own: found and hashed without running it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from slimnet.errors import SlimnetError
from slimnet.models.source import find_source, source_hash, split_factory

NETS = """
import json
from parts import block
raise RuntimeError("this is never run")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """nets_read.py imports parts.py, which imports a package; other.py stands beside them."""
    (tmp_path / "nets_read.py").write_text(NETS)
    (tmp_path / "parts.py").write_text("def block():\n    from blocks.deep import inner\n")
    (tmp_path / "other.py").write_text("")
    (tmp_path / "blocks").mkdir()
    (tmp_path / "blocks/__init__.py").write_text("from . import wide")
    (tmp_path / "blocks/deep.py").write_text("from ..parts import block\n")
    (tmp_path / "blocks/wide.py").write_text("")
    return tmp_path


def test_the_hash_is_of_all_that_is_imported_from_beside(folder: Path) -> None:
    before = source_hash("nets_read:make", folder)
    assert source_hash("nets_read:make", folder) == before
    for name in ("nets_read", "parts", "blocks/__init__", "blocks/deep", "blocks/wide"):
        path = folder / f"{name}.py"
        content = path.read_text()
        path.write_text(f"{content}\n# edited")
        assert source_hash("nets_read:make", folder) != before, name
        path.write_text(content)
    (folder / "other.py").write_text("edited = True")
    assert source_hash("nets_read:make", folder) == before
    assert "nets_read" not in sys.modules


def test_a_module_in_a_package_depends_on_the_package(folder: Path) -> None:
    before = source_hash("blocks.deep:inner", folder)
    (folder / "blocks/__init__.py").write_text("scale = 2")
    assert source_hash("blocks.deep:inner", folder) != before


def test_the_folder_comes_before_where_python_finds_modules(folder: Path) -> None:
    (folder / "json.py").write_text("")
    assert find_source("json", folder) == folder / "json.py"
    assert find_source("json").parent.name == "json"
    assert source_hash("torchvision.models:vgg11", folder).startswith("sha256:")  # of all of its package


def test_a_module_comes_before_a_folder_without_code(folder: Path) -> None:
    (folder / "torchvision/models").mkdir(parents=True)
    file = find_source("torchvision.models", folder)
    assert file == find_source("torchvision.models")
    assert source_hash("torchvision.models:vgg11", folder) == source_hash("torchvision.models:vgg11")
    (folder / "plain").mkdir()
    (folder / "plain/nets.py").write_text("")
    assert find_source("plain.nets", folder) == folder / "plain/nets.py"


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nets_read", "nets_read is no factory; write package.module:function"),
        ("nets_read:", "is no factory"),
        ("my nets:make", "is no factory"),
        ("nest:make", "there is no module nest in "),
        ("nets_read.inner:make", "there is no module nets_read.inner in "),
        ("sys:exit", r"the source of the module sys cannot be found \(it is built-in\)"),
        ("empty:make", r"the source of the module empty cannot be found \(it is a folder\)"),
        ("broken:make", r"broken.py, line 2: "),
    ],
)
def test_what_cannot_be_found_or_read_is_named(folder: Path, factory: str, message: str) -> None:
    (folder / "empty").mkdir()
    (folder / "broken.py").write_text("\ndef make(:\n")
    with pytest.raises(SlimnetError, match=message):
        source_hash(factory, folder)


def test_a_factory_is_a_module_and_a_name() -> None:
    assert split_factory("package.nets:Net.small") == ("package.nets", "Net.small")
