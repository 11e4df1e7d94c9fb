"""What is built from the repository, and what it does where nothing else of it is."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("setuptools", "77", reason="building needs setuptools, which the extra dev has")

ROOT = Path(__file__).parents[1]
PATIENCE = 120  # seconds

Installed = Callable[..., subprocess.CompletedProcess[str]]


def build(kind: str, source: Path, out: Path) -> Path:
    """A wheel or an sdist, as pip and `python -m build` make it, with the setuptools that is here."""
    call = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", call, str(out)], cwd=source, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the sdist alone, and the sdist from what git would keep."""
    folder = tmp_path_factory.mktemp("built")
    tracked = subprocess.run(
        [
            "git",
            "ls-files",
            "-zco",
            "--exclude-standard",
            "slimnet",
            "sweeps",
            "pyproject.toml",
            "README.md",
            "LICENSE",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if tracked.returncode:
        pytest.skip("this is no git checkout")
    checkout = folder / "checkout"
    for name in filter(None, tracked.stdout.split("\0")):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).symlink_to(ROOT / name)
    sdist = build("sdist", checkout, folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build("wheel", folder / sdist.name.removesuffix(".tar.gz"), folder)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Runs a console script of an environment that has the wheel, beside the packages that it needs."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=PATIENCE)
    (site,) = folder.glob("lib/python*/site-packages")
    # An editable install of the checkout is not seen from there, as .pth files do not lead to others.
    (site / "needed.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    python = str(folder / "bin" / "python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", "-qq"]
    subprocess.run([*install, str(wheel)], check=True, timeout=PATIENCE)

    def call(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [folder / "bin" / script, *arguments],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )

    return call


def test_the_wheel_holds_every_file_of_the_packages_that_is_no_code(wheel: Path) -> None:
    files = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        path.relative_to(ROOT).as_posix()
        for package in ("slimnet", "sweeps")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert not ours - files
    assert {"sweeps/report/LICENSE-plotly.txt", "slimnet/data/fashion-mini.npz"} <= files
    assert not [name for name in files if name.startswith(("tests", "benchmarks", "docs"))]


def test_folders_called_like_the_packages_do_no_harm(installed: Installed, tmp_path: Path) -> None:
    for name in ("slimnet", "sweeps"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('the {name} of the current folder')")
    done = installed("sweeps", "check", "smoke", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = installed("slimnet", "--version", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_installed_program_suggests_its_script(installed: Installed, tmp_path: Path) -> None:
    done = installed("sweeps", "status", "smoke", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("bin/sweeps run smoke\n")
