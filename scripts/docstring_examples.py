"""Has the site show `Example:` in docstrings as code: an extension of griffe, which knows `Examples:`."""

from __future__ import annotations

from typing import Any

import griffe


class Examples(griffe.Extension):  # type: ignore[misc]
    """Renames the section before it is parsed."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Called for every module, class and function."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
