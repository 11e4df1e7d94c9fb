"""The user's own functions, named as "package.module:function": imported and called."""

from __future__ import annotations

import importlib
import inspect
import operator
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slimnet.errors import SlimnetError
from slimnet.models.source import find_source, split_factory
from slimnet.wording import did_you_mean, first_line


def import_factory(factory: str, folder: Path | None = None) -> Callable[..., Any]:
    """The function that "package.module:function" names; its module is imported.

    Raises:
        SlimnetError: there is no such module or function, or the import fails.
    """
    module_name, name = split_factory(factory)
    file = find_source(module_name, folder)
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise SlimnetError(f"{module_name} cannot be imported: {reason_of(error, file)}") from error
    loaded = getattr(module, "__file__", None)
    if loaded is None or not file.samefile(loaded):
        raise SlimnetError(
            f"{module_name} is in {file}, but Python has already imported another module of that name, "
            f"{loaded}; rename the file"
        )
    try:
        function: Callable[..., Any] = operator.attrgetter(name)(module)
    except AttributeError:
        hint = did_you_mean(name, dir(module), prefix=f"{module_name}:")
        raise SlimnetError(f"{file} has no {name}{hint and f'; {hint}'}") from None
    if not callable(function):
        raise SlimnetError(f"{factory} is a {type(function).__name__}; a function is needed")
    return function


def call(name: str, function: Callable[..., Any], args: Mapping[str, Any], where: str) -> Any:
    """What a function of the user's returns.

    Args:
        name: of the function, in messages.
        function: what is called.
        args: its arguments, by name.
        where: how a missing argument is given, in messages.

    Raises:
        SlimnetError: it takes other arguments, or fails.
    """
    _check_arguments(name, function, args, where)
    try:
        return function(**args)
    except SlimnetError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise SlimnetError(f"{name} failed: {reason_of(error, file_of(function))}") from error


def accepted(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that a function names among its own."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: value for name, value in given.items() if name in parameters and parameters[name].kind in named
    }


def _check_arguments(factory: str, function: Callable[..., Any], args: Mapping[str, Any], where: str) -> None:
    """Refuse arguments that a function does not take, and the lack of those that it needs."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    parameters = signature.parameters.values()
    try:
        signature.bind(**args)
    except TypeError:
        required = [
            p.name
            for p in parameters
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        missing = [name for name in required if name not in args]
        if missing:
            raise SlimnetError(
                f"{factory} needs the argument {', '.join(missing)}; give it {where}"
            ) from None
        takes = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        unknown = [name for name in args if name not in takes]
        raise SlimnetError(
            f"{factory} takes no argument {', '.join(unknown)}; it takes {', '.join(takes) or 'none'}"
        ) from None


def file_of(function: Callable[..., Any]) -> Path | None:
    """The file of a function or a class; None where it has none."""
    try:
        return Path(inspect.getfile(inspect.unwrap(function)))
    except (TypeError, OSError):
        return None


def reason_of(error: BaseException, file: Path | None) -> str:
    """What went wrong in the user's code, and where."""
    traced = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in traced if file is not None and Path(frame.filename) == file]
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({error.filename}, line {error.lineno})"
    where = f" ({file}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {first_line(error)}{where}"
