"""The examples in the docstrings of public names: there is one for each, and it does what it says."""

from __future__ import annotations

import doctest
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import slimnet

PUBLIC = {
    **{name: getattr(slimnet, name) for name in slimnet.__all__ if name != "models"},
    **{f"models.{name}": getattr(slimnet.models, name) for name in slimnet.models.__all__},
}


@pytest.mark.parametrize("name", PUBLIC)
def test_its_example_does_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "export_onnx" and not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        pytest.skip("onnx is not installed")
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {"slimnet": slimnet, "torch": torch}
    (example,) = doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name, globs=known)
    assert example.examples, f"{name} has no example"
    failed = doctest.DocTestRunner().run(example).failed
    assert not failed, capsys.readouterr().out
