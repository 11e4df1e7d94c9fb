"""A W&B server on the loopback, just large enough for the real SDK to log, resume and sync against."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API_KEY = "k" * 40


@dataclass
class ServerRun:
    """What the server holds of a run. `history` has the rows in the order in which they came."""

    name: str
    project: str
    attributes: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    preempting: bool = False
    opened: int = 0

    def steps(self) -> list[int]:
        return [row["_step"] for row in self.history]


class QuietServer(ThreadingHTTPServer):
    """Says nothing about clients that hang up."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class FakeWandb:
    """The state behind the HTTP handler: runs by id, and what went wrong."""

    def __init__(self) -> None:
        self.runs: dict[str, ServerRun] = {}
        self.unknown: list[str] = []
        self.refuse_history = False
        self.lock = threading.Lock()
        self._http: QuietServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listens, on the same port as before if it had died."""
        self._http = QuietServer(("127.0.0.1", self._port), self._handler())
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Dies: connections are refused from here on."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    # GraphQL: one method per operation that the SDK sends.

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        match = re.search(r"(?:query|mutation)\s+(\w+)", query)
        operation = match.group(1) if match else "?"
        answer = getattr(self, f"on_{operation}", None)
        if answer is None:
            self.unknown.append(operation)
            return {"errors": [{"message": f"unknown operation {operation}"}]}
        return {"data": answer(variables)}

    def on_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        viewer = {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer}

    def on_ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def on_OrganizationCoreWeaveOrganizationID(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def on_RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.runs.get(variables["name"])
        bucket = None
        if run is not None:
            tail = [json.dumps(run.history[-1])] if run.history else []
            bucket = {
                "name": run.name,
                "displayName": run.attributes.get("displayName"),
                "historyLineCount": len(run.history),
                "eventsLineCount": 0,
                "logLineCount": 0,
                "historyTail": json.dumps(tail),
                "eventsTail": "[]",
                "summaryMetrics": json.dumps(run.summary),
                "config": "{}",
                "tags": run.attributes.get("tags") or [],
                "wandbConfig": json.dumps({"t": 1}),
            }
        project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": "me"}}
        return {"model": {**project, "bucket": bucket}}

    def on_UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name, project = variables["name"], variables["project"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, ServerRun(name=name, project=project))
        run.attributes.update({key: value for key, value in variables.items() if value is not None})
        if variables.get("config"):
            run.attributes["config"] = {
                key: item["value"] for key, item in json.loads(variables["config"]).items() if key != "_wandb"
            }
        run.opened += 1
        entity = {"id": "e", "name": "me"}
        bucket = {
            "id": name,
            "name": name,
            "displayName": run.attributes.get("displayName"),
            "sweepName": None,
            "historyLineCount": len(run.history),
            "project": {"id": "p", "name": project, "entity": entity},
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def on_CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def on_ArtifactType(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"project": {"artifactType": {"name": "run_table"}, "artifact": None}}

    def on_CreateArtifact(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        sequence = {"id": "s", "latestArtifact": {"id": "a", "versionIndex": 0}}
        artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": artifact}}

    # The stream of history, summary and exit.

    def file_stream(self, name: str, body: dict[str, Any]) -> None:
        run = self.runs[name]
        files = body.get("files") or {}
        for line in files.get("wandb-history.jsonl", {}).get("content", []):
            run.history.append(json.loads(line))
        for line in files.get("wandb-summary.json", {}).get("content", []):
            run.summary = json.loads(line)
        run.preempting = run.preempting or bool(body.get("preempting"))
        if body.get("complete"):
            run.exit_code = body.get("exitcode")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self._body() or b"{}")
                if self.path.startswith("/graphql"):
                    with server.lock:
                        self._reply(server.graphql(body["query"], body.get("variables") or {}))
                elif self.path.endswith("/file_stream"):
                    if server.refuse_history:
                        self._reply({"error": "no"}, status=400)
                        return
                    with server.lock:
                        server.file_stream(self.path.split("/")[-2], body)
                    self._reply({})
                elif self.path.startswith("/sdk/otel/"):  # wandb's reports of its own errors
                    self._reply({})
                else:
                    server.unknown.append(self.path)
                    self._reply({"error": "unknown path"}, status=404)

            def do_PUT(self) -> None:
                self._body()
                self._reply({})

            def _body(self) -> bytes:
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def _reply(self, content: dict[str, Any], status: int = 200) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
