"""Where the code of a network of one's own is, and what it is made of: found and hashed, not run."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from slimnet.errors import SlimnetError

OWN = ("slimnet", "sweeps")  # what they do is covered by the versions of their own formats


def split_factory(factory: str) -> tuple[str, str]:
    """The module and the name in "package.module:function".

    Raises:
        SlimnetError: it is no such text.
    """
    module, colon, name = factory.partition(":")
    parts = [*module.split("."), *name.split(".")]
    if not (colon and all(part.isidentifier() for part in parts)):
        raise SlimnetError(f"{factory} is no factory; write package.module:function, such as nets:small")
    return module, name


def find_source(module: str, folder: Path | None = None) -> Path:
    """The file that holds a module's source, found as an import would, without importing it.

    Args:
        module: its dotted name.
        folder: where it is looked for first, before the places where Python finds modules.

    Raises:
        SlimnetError: there is no such module, or it has no source.
    """
    importlib.invalidate_caches()  # the file may have been written a moment ago
    spec = _find(module, folder)
    if spec is None:
        beside = f"in {folder} or " if folder else ""
        raise SlimnetError(f"there is no module {module} {beside}where Python finds modules")
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise SlimnetError(
            f"the source of the module {module} cannot be found (it is {spec.origin or 'a folder'}); "
            "a factory is needed in a .py file, so that an edited one is told from the one before"
        )
    return Path(spec.origin)


def source_hash(factory: str, folder: Path | None = None) -> str:
    """A hash of a factory's module and of the modules beside it that it imports, directly or not.

    Beside it are all modules in `folder`, where the module is found there, else those of its package.
    Imports are read off the source: what is imported by a computed name is not seen.

    Args:
        factory: "package.module:function".
        folder: as for `find_source`.

    Raises:
        SlimnetError: as `find_source`, or a file is no Python.
    """
    module, _ = split_factory(factory)
    find_source(module, folder)
    top = module.partition(".")[0]
    beside = _in_folder(top, folder) is not None
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] in OWN or not (beside or name.partition(".")[0] == top):
            continue
        spec = _find(name, folder, only=beside)
        if spec is None or spec.origin is None or not Path(spec.origin).is_file():
            continue  # the library, a name within a module, or a folder without code
        found[name] = Path(spec.origin)
        waiting += [name.rpartition(".")[0]] if "." in name else []
        if spec.origin.endswith(".py"):
            package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
            waiting += _imports(found[name], package)
    sha = hashlib.sha256()
    for name, path in sorted(found.items()):
        sha.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"sha256:{sha.hexdigest()}"


def _find(module: str, folder: Path | None, *, only: bool = False) -> ModuleSpec | None:
    """What an import of `module` would find, in `folder` first or `only` there."""
    top, *inner = module.split(".")
    spec = _in_folder(top, folder)
    if spec is None and not only:
        spec = _elsewhere(top)
    for part in inner:  # by the part alone, as a full name makes Python look for imported packages
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(part, list(spec.submodule_search_locations))
    return spec


def _in_folder(top: str, folder: Path | None) -> ModuleSpec | None:
    """What an import finds in `folder`, where a folder without code gives way to a module elsewhere."""
    spec = PathFinder.find_spec(top, [str(folder)]) if folder else None
    if spec is not None and spec.origin is None and (other := _elsewhere(top)) and other.origin:
        return None
    return spec


def _elsewhere(top: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)
    except ValueError:  # a module that was made by hand has no spec
        return None


def _imports(file: Path, package: str) -> Iterator[str]:
    """The modules that a file may import, anywhere in it: absolute names, which need not exist."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as error:
        raise SlimnetError(f"{file}, line {error.lineno}: {error.msg}") from error
    except (OSError, ValueError) as error:
        raise SlimnetError(f"{file} cannot be read: {error}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*around, *([node.module] if node.module else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
