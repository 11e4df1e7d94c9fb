"""The report of a running study, served to this machine alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from slimnet.errors import SlimnetError

LOOPBACK = "127.0.0.1"
_HOSTS = (LOOPBACK, "localhost")


class Served:
    """What is served now.

    Attributes:
        page: the page.
        networks: the folder of the files that it links to.
        version: changes with the page.
        address: where a browser finds it.
    """

    def __init__(self, networks: Path) -> None:
        self.page = b""
        self.networks = networks
        self.version = 0
        self.address = ""

    def show(self, page: str) -> None:
        """Serve another page from now on."""
        self.page, self.version = page.encode(), self.version + 1

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """The type and the content at a path; None if there is nothing."""
        if path in ("/", "/index.html"):
            return "text/html; charset=utf-8", self.page
        if path == "/version":
            return "text/plain", str(self.version).encode()
        folder, _, name = path.strip("/").rpartition("/")
        if folder == self.networks.name and name in _names(self.networks):
            return "application/octet-stream", (self.networks / name).read_bytes()
        return None


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.pt")]


def _is_here(host: str) -> bool:
    """Whether a browser asks by a name of this machine, with a port or without.

    A page elsewhere must not read this one through a name of its own for this machine.
    """
    try:
        return urlsplit(f"//{host}").hostname in _HOSTS
    except ValueError:
        return False


@contextmanager
def serving(networks: Path, port: int = 0) -> Iterator[Served]:
    """Serve a page on the loopback interface until the end of the block.

    Args:
        networks: the folder of the files that the page links to.
        port: any free one if 0.

    Raises:
        SlimnetError: the port is taken.
    """
    served = Served(networks)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):  # a browser that hangs up
                self.wfile.write(self._head())

        def do_HEAD(self) -> None:
            with suppress(ConnectionError):
                self._head()

        def _head(self) -> bytes:
            """Send the head of the answer; returns its content."""
            if not _is_here(self.headers.get("Host", "")):
                self.send_error(403, explain=f"The report is served to this machine alone: {served.address}")
                return b""
            found = served.answer(self.path.partition("?")[0])
            if found is None:
                self.send_error(404)
                return b""
            kind, content = found
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            return content

        def log_message(self, *_: object) -> None:
            pass

    try:
        server = ThreadingHTTPServer((LOOPBACK, port), Handler)
    except OSError as error:
        raise SlimnetError(
            f"port {port} cannot be used ({error.strerror}); choose another with --port"
        ) from error
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.address = f"http://{LOOPBACK}:{server.server_port}/"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
