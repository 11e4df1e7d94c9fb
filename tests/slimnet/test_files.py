"""Files that are replaced whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from slimnet import SlimnetError
from slimnet.files import content_hash, replacing


@pytest.fixture(params=[0o077, 0o002, 0o022], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_file_has_the_permissions_that_the_umask_leaves(umask: int, tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_what_was_there_is_replaced_or_kept_aside(tmp_path: Path) -> None:
    path, old = tmp_path / "folder" / "a", tmp_path / "folder" / "old"
    for content in (b"first", b"second", b"third"):
        with replacing(path, keep_old=old if content == b"third" else None) as file:
            file.write(content)
    assert (path.read_bytes(), old.read_bytes()) == (b"third", b"second")
    assert sorted(path.parent.iterdir()) == [path, old]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def write_half() -> None:
        with replacing(tmp_path / "a") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_the_hash_of_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SlimnetError, match="cannot be read: No such file"):
        content_hash(tmp_path / "none")
