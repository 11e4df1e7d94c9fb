"""The report as it is served while a sweep runs."""

from __future__ import annotations

import http.client
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser

from slimnet.errors import SlimnetError
from sweeps.records import StudyRecord
from sweeps.report.html import build, render
from sweeps.report.serving import serving


def get(address: str, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes]:
    name = address.removeprefix("http://").strip("/")
    connection = http.client.HTTPConnection(name, timeout=30)
    connection.request(method, path, headers={"Host": host or name})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_page_its_version_and_its_networks_are_served_and_nothing_else(tmp_path: Path) -> None:
    networks = tmp_path / "networks"
    networks.mkdir()
    (networks / "s-trial-1.pt").write_bytes(b"weights")
    (tmp_path / "secret").write_text("secret")
    with serving(networks) as served:
        served.show("<p>first</p>")
        assert get(served.address, "/") == (200, b"<p>first</p>")
        before = get(served.address, "/version")[1]
        served.show("<p>second</p>")
        assert get(served.address, "/")[1] == b"<p>second</p>"
        assert get(served.address, "/version")[1] != before
        assert get(served.address, "/networks/s-trial-1.pt") == (200, b"weights")
        for path in ("/secret", "/networks/../secret", "/networks/", "/../secret", "/networks/%2e%2e/secret"):
            assert get(served.address, path)[0] == 404
        for host in ("elsewhere.example:80", "elsewhere.example", "127.0.0.1.example", "[", "localhost:x@a"):
            status, said = get(served.address, "/", host)
            assert (status, served.address in said.decode()) == (403, True)
        for host in ("localhost", "127.0.0.1", "LOCALHOST:80"):
            assert get(served.address, "/", host) == (200, b"<p>second</p>")
        assert get(served.address, "/", method="HEAD") == (200, b"")
        assert get(served.address, "/nothing", method="HEAD") == (404, b"")


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        port = int(served.address.strip("/").rpartition(":")[2])
        with pytest.raises(SlimnetError, match=rf"port {port} .*--port"), serving(tmp_path, port):
            pass


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to open the page in")
def test_a_page_that_is_watched_follows_and_keeps_the_readers_choices(
    study: StudyRecord, tmp_path: Path
) -> None:
    report = build(study, tmp_path / "report")
    with serving(tmp_path / "networks") as served, Browser(tmp_path / "profile") as browser:
        browser.look()
        served.show(render(report, live=True))
        browser.open(served.address)
        live = "document.querySelector('.live').textContent"
        wait = "new Promise((done) => { const look = () => %s ? done() : setTimeout(look, 50); look() })"
        browser.ask(wait % f"{live} === 'live'")
        browser.ask("document.querySelector('#figure-pareto input[value=MACs]').click()")
        served.show(render(report, live=True).replace("11 of 12 trials", "12 of 12 trials"))
        browser.reloaded()
        assert "12 of 12 trials" in browser.ask("document.querySelector('.state').textContent")
        assert browser.ask("document.querySelector('#figure-pareto input[value=MACs]').checked")
        assert browser.problems == []
