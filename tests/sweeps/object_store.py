"""Places of stages for tests: a real S3 server of moto's, and places of other kinds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest


class S3:
    """An S3 server on this machine."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._numbers = itertools.count()

    @property
    def environment(self) -> dict[str, str]:
        """With which clients find it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "a secret of theirs",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def new_place(self) -> str:
        """The URL of a new bucket."""
        name = f"bucket-{next(self._numbers)}"
        fsspec.filesystem("s3").mkdir(name)
        return f"s3://{name}/stages"


@contextmanager
def serve_s3() -> Iterator[S3]:
    """A server, and an environment in which clients find it."""
    pytest.importorskip("s3fs", reason="needs the extra `store`")
    moto = pytest.importorskip("moto.server", reason="needs moto, as the extra `dev` brings")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    found = S3(f"http://{host}:{port}")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in found.environment.items():
            patched.setenv(name, value)
        fsspec.filesystem("s3").clear_instance_cache()
        yield found
    server.stop()


def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty place of the kind that a fixture's parameter names, which is emptied in the end."""
    if request.param == "s3":
        server: S3 = request.getfixturevalue("s3")
        yield server.new_place()
    elif request.param == "folder":
        yield str(tmp_path / "place")
    else:
        place = f"{request.param}://{tmp_path}/place"
        yield place
        files, path = fsspec.core.url_to_fs(place)
        if files.exists(path):
            files.rm(path, recursive=True)
