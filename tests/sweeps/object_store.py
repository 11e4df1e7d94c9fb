"""Places of stages for tests: a real S3 server of moto's, and places of other kinds."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import fsspec
import pytest

Fault = Literal["busy", "cut", "deaf"]
"""Of a request: it is refused, by 503 SlowDown; the line breaks within it; or before the answer to it."""


class Faulty:
    """An application that answers requests like another one, but for those that `fault` spoils."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self.fault: Callable[[str, str], Fault | None] = lambda method, address: None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        address = f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        fault = self.fault(environ["REQUEST_METHOD"], address)
        if fault == "busy":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"]
        if fault == "cut":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
        elif fault == "deaf":
            list(self._application(environ, lambda *answer: None))
        if fault is not None:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return [] if fault else self._application(environ, start_response)


class S3:
    """An S3 server on this machine; `line.fault` may spoil what is asked of it."""

    def __init__(self, endpoint: str, line: Faulty) -> None:
        self.endpoint, self.line = endpoint, line
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
    line = server._server.app = Faulty(server._server.app)
    found = S3(f"http://{host}:{port}", line)
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
