"""Terminals for tests, without a screen."""

from __future__ import annotations

import io
import re

import pytest


class Terminal(io.TextIOWrapper):
    """What a program takes for a terminal; keeps what is written."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        """What was written, without colours and movements of the cursor."""
        written = self.buffer
        assert isinstance(written, io.BytesIO)
        return plain(written.getvalue().decode())


def use_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Terminal:
    """Have this process print to a terminal so many columns wide."""
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout", terminal)
    return terminal


def plain(text: str) -> str:
    """A text without colours and movements of the cursor."""
    return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x1b]*\x1b\\)", "", text)
