"""A W&B server on the loopback, just large enough for the real SDK to log, resume and sync against.

It answers what it knows, notes in `unknown` whatever else it is asked, and counts what it was given: rows,
files and artifacts. A file or an artifact counts when its content has arrived, not when it was announced.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

import yaml

API_KEY = "k" * 40
USER = "me"
TIME = "2026-01-01T00:00:00"


@dataclass
class ServerArtifact:
    """A version of an artifact. `files` are those of its manifest, with their sizes."""

    id: str
    collection: str
    kind: str
    digest: str
    logged_by: str
    metadata: dict[str, Any] = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)
    state: str = "PENDING"
    files: dict[str, int] = field(default_factory=dict)
    used_by: list[str] = field(default_factory=list)


@dataclass
class ServerRun:
    """What the server holds of a run. `history` has the rows in the order in which they came."""

    name: str
    project: str
    attributes: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    system: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    exit_code: int | None = None
    preempting: bool = False
    stopped: bool = False
    opened: int = 0

    def steps(self) -> list[int]:
        return [row["_step"] for row in self.history]

    def media(self) -> list[str]:
        """The names of the files of tables and charts."""
        return sorted(name for name in self.files if name.startswith("media/"))


@dataclass
class ServerView:
    """A report or a view of a project."""

    id: str
    kind: str
    name: str
    project: str
    display_name: str
    description: str
    spec: str
    tokens: list[dict[str, Any]] = field(default_factory=list)


class QuietServer(ThreadingHTTPServer):
    """Says nothing about clients that hang up."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class FakeWandb:
    """The state behind the HTTP handler: what the server holds, and what went wrong.

    Attributes:
        projects: the runs by id, of each "entity/project".
        artifacts: all versions, in the order in which they were created.
        sweeps: the configs of W&B's own sweeps.
        to_run: commands for the agents of sweeps; see `give_out`.
        views: reports ("runs") and views of projects ("project-view").
        deleted: ids of runs that were deleted, which no run can have again.
        unknown: what it was asked and does not know.
        refuse_history, refuse_files, refuse_key: to answer rows, the content of files, or everything, with an
            error.
        slow_networks: seconds that it takes for each network.
    """

    def __init__(self) -> None:
        self.projects: dict[str, dict[str, ServerRun]] = {}
        self.artifacts: list[ServerArtifact] = []
        self.views: list[ServerView] = []
        self.sweeps: list[dict[str, Any]] = []
        self.to_run: list[dict[str, Any]] = []
        self.deleted: set[str] = set()
        self.unknown: list[str] = []
        self.asked: list[str] = []
        self.refuse_history = self.refuse_files = self.refuse_key = False
        self.slow_networks = 0.0
        self.lock = threading.Lock()
        self._http: QuietServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def runs(self) -> dict[str, ServerRun]:
        """The runs of the usual project."""
        return self.projects.get(f"{USER}/slimnet", {})

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

    def delete(self, run: str) -> None:
        """As a user does on the page of a project."""
        del self.runs[run]
        self.deleted.add(run)

    def give_out(self, run: str, point: dict[str, Any]) -> None:
        """Let the next agent run a trial."""
        given = {name: {"value": value} for name, value in point.items()}
        self.to_run.append({"type": "run", "run_id": run, "program": "sweeps", "args": given})

    def committed(self, kind: str) -> list[ServerArtifact]:
        """The artifacts of a type that have arrived."""
        return [one for one in self.artifacts if one.kind == kind and one.state == "COMMITTED"]

    # GraphQL: one method per operation that the SDK sends.

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        match = re.search(r"(?:query|mutation)\s+(\w+)", query)
        operation = match.group(1) if match else "?"
        self.asked.append(operation)
        answer = getattr(self, f"on_{operation}", None)
        if answer is None:
            self.unknown.append(operation)
            return {"errors": [{"message": f"unknown operation {operation}"}]}
        try:
            return {"data": answer(variables)}
        except RefusedError as refusal:
            return {"errors": [{"message": str(refusal)}]}
        except Exception as error:
            self.unknown.append(f"{operation}: {type(error).__name__} {error} in {json.dumps(variables)}")
            return {"errors": [{"message": f"cannot answer {operation}"}]}

    def on_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        viewer = {"id": "u", "entity": USER, "username": USER, "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer}

    on_GetDefaultEntity = on_Viewer  # noqa: N815

    def on_ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def on_OrganizationCoreWeaveOrganizationID(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def on_RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self._project(variables).get(variables["name"])
        bucket = None
        if run is not None:
            tail = [json.dumps(run.history[-1])] if run.history else []
            bucket = {
                "name": run.name,
                "displayName": run.attributes.get("displayName"),
                "historyLineCount": len(run.history),
                "eventsLineCount": len(run.system),
                "logLineCount": 0,
                "historyTail": json.dumps(tail),
                "eventsTail": "[]",
                "summaryMetrics": json.dumps(run.summary),
                "config": "{}",
                "tags": run.attributes.get("tags") or [],
                "wandbConfig": json.dumps({"t": 1}),
            }
        return {"model": {**self._named(variables), "bucket": bucket}}

    def on_UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name, runs = variables["name"], self._project(variables)
        if name in self.deleted:
            raise RefusedError(f"run {name} was previously created and deleted; try a new run name")
        inserted = name not in runs
        run = runs.setdefault(name, ServerRun(name=name, project="/".join(self._path(variables))))
        run.attributes.update({key: value for key, value in variables.items() if value is not None})
        if variables.get("config"):
            run.attributes["config"] = {
                key: item["value"] for key, item in json.loads(variables["config"]).items() if key != "_wandb"
            }
        run.opened += 1
        bucket = {
            "id": name,
            "name": name,
            "displayName": run.attributes.get("displayName"),
            "sweepName": None,
            "historyLineCount": len(run.history),
            "project": self._named(variables),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def on_CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        entity, project = self._path(variables)
        base = f"{self.url}/upload/{entity}/{project}/{variables['run']}"
        files = [{"name": name, "uploadUrl": f"{base}/{quote(name)}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    # What sweeps asks of its runs.

    def on_SweepRuns(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        names = json.loads(variables["filters"])["name"]["$in"]
        runs = self._project(variables)
        found = [self._described(runs[name]) for name in names if name in runs]
        page = {"hasNextPage": False, "endCursor": None}
        project = {"runs": {"edges": [{"node": node} for node in found], "pageInfo": page}}
        return {"project": project if runs else None}

    def on_SweepRunUpdate(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        project, _, name = variables["id"].partition("|")
        run = self.projects[project][name]
        run.summary = json.loads(variables["summaryMetrics"])
        return {"upsertBucket": {"bucket": {"id": variables["id"]}}}

    def _described(self, run: ServerRun) -> dict[str, Any]:
        files = [{"node": {"name": name, "sizeBytes": size}} for name, size in run.files.items()]
        logged = [one for one in self.artifacts if one.logged_by == run.name]
        return {
            "id": f"{run.project}|{run.name}",
            "name": run.name,
            "historyLineCount": len(run.history),
            "summaryMetrics": json.dumps(run.summary),
            "files": {"edges": files},
            "outputArtifacts": {"edges": [{"node": _named_artifact(one)} for one in logged]},
        }

    # Artifacts.

    def on_ArtifactType(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        collection = variables["name"].partition(":")[0]
        known = next((one.kind for one in self.artifacts if one.collection == collection), None)
        return {"project": {"artifact": {"artifactType": {"name": known}} if known else None}}

    def on_CreateArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        given = variables["input"]
        collection, digest = given["artifactCollectionName"], given["digest"]
        aliases = [one["alias"] for one in given["aliases"] or []]
        versions = [one for one in self.artifacts if one.collection == collection]
        artifact = next((one for one in versions if one.digest == digest), None)
        if artifact is None:
            metadata = json.loads(given.get("metadata") or "{}")
            artifact = ServerArtifact(
                id=f"artifact-{len(self.artifacts)}",
                collection=collection,
                kind=given["artifactTypeName"],
                digest=digest,
                logged_by=given["runName"],
                metadata=metadata,
            )
            self.artifacts.append(artifact)
        for one in versions:
            one.aliases = [alias for alias in one.aliases if alias not in aliases]
        artifact.aliases += [alias for alias in aliases if alias not in artifact.aliases]
        sequence = {"id": collection, "latestArtifact": {"id": versions[-1].id} if versions else None}
        return {
            "createArtifact": {
                "artifact": {"id": artifact.id, "state": artifact.state, "artifactSequence": sequence}
            }
        }

    def on_CreateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        url = f"{self.url}/manifest/{variables['artifactID']}"
        manifest = {"id": f"manifest-{variables['artifactID']}", "file": {"id": "f"}}
        if variables["includeUpload"]:
            manifest["file"] = {"id": "f", "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def on_CreateArtifactFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        nodes = [
            {
                "id": "f",
                "name": given["name"],
                "displayName": given["name"],
                "storagePath": given["name"],
                "uploadUrl": f"{self.url}/artifact/{given['artifactID']}/{quote(given['name'])}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": given["artifactID"]},
            }
            for given in variables["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def on_CommitArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        artifact = self._artifact(variables["artifactID"])
        artifact.state = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}

    def on_UseArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        given = variables.get("input") or variables
        artifact = self._artifact(given["artifactID"])
        if given["runName"] not in artifact.used_by:
            artifact.used_by.append(given["runName"])
        return {"useArtifact": {"artifact": {"id": artifact.id}}}

    # Sweeps.

    def on_UpsertSweep(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self.sweeps.append(yaml.safe_load(variables["config"]))
        entity, project = variables["entityName"], variables["projectName"]
        self.projects.setdefault(f"{entity}/{project}", {})
        named = {"id": "p", "name": project, "entity": {"id": "e", "name": entity}}
        sweep = {"name": f"sweep{len(self.sweeps)}", "project": named}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def on_SweepWithRuns(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        config = self.sweeps[int(variables["sweep"].removeprefix("sweep")) - 1]
        return {"project": {"sweep": {"id": "s", "config": yaml.safe_dump(config), "runs": {"edges": []}}}}

    def on_SweepRunSummaries(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        sweep = json.loads(variables["filters"])["sweep"]
        runs = [run for run in self._project(variables).values() if run.attributes.get("sweep") == sweep]
        first = int(variables["after"] or 0)
        nodes = [{"name": run.name, "summaryMetrics": json.dumps(run.summary)} for run in runs[first:]][:1]
        page = {"hasNextPage": first + 1 < len(runs), "endCursor": str(first + 1)}  # one at a time
        return {"project": {"runs": {"edges": [{"node": node} for node in nodes], "pageInfo": page}}}

    def on_SweepRunStopped(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"project": {"run": {"stopped": self._project(variables)[variables["run"]].stopped}}}

    def on_CreateAgent(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"createAgent": {"agent": {"id": "agent"}}}

    def on_Heartbeat(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Give out a run once the one before has ended, and send the agent home after the last."""
        commands: list[dict[str, Any]] = []
        running = json.loads(variables["runState"])
        for run in running:
            if self._is_worse(self.runs.get(run)):
                self.runs[run].stopped = True
                commands.append({"type": "stop", "run_id": run})
        if not running:
            commands = [self.to_run.pop(0) if self.to_run else {"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}

    def _is_worse(self, run: ServerRun | None) -> bool:
        """Whether the sweep's hyperband stops a run, in its first band, by a metric that is maximized."""
        rule, name = self.sweeps[-1].get("early_terminate"), self.sweeps[-1].get("metric", {}).get("name")
        if rule is None or run is None:
            return False
        histories = ([row[name] for row in one.history if name in row] for one in (run, *self.runs.values()))
        own, *every = (history[rule["min_iter"] - 1 :] for history in histories)
        reached = sorted((values[0] for values in every if values), reverse=True)
        return bool(own and own[0] < reached[len(reached) // rule["eta"]])

    # Reports and views.

    def on_GetProjects(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        names = [path.split("/") for path in self.projects]
        nodes = [_project_node(entity, name) for entity, name in names if entity == variables["entity"]]
        page = {"hasNextPage": False, "endCursor": None}
        return {"models": {"edges": [{"cursor": "", "node": node} for node in nodes], "pageInfo": page}}

    def on_ProjectInternalId(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        known = f"{variables['entityName']}/{variables['projectName']}" in self.projects
        return {"project": {"id": "p", "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ=="} if known else None}

    def on_upsertView(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        project = f"{variables['entityName']}/{variables['projectName']}"
        view = next((one for one in self.views if one.id == variables.get("id")), None)
        if view is None:
            if variables.get("id"):
                raise RefusedError("no such view")
            id_ = base64.b64encode(f"View:{len(self.views) + 1}".encode()).decode()
            view = ServerView(id_, variables["type"], variables["name"], project, "", "", "")
            self.views.append(view)
        view.display_name, view.spec = variables["displayName"], variables["spec"]
        view.description = variables["description"]
        return {"upsertView": {"view": _view_node(view), "inserted": True}}

    on_UpsertView2 = on_upsertView  # noqa: N815

    def on_SpecificReport(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {
            "view": next((_view_node(one) for one in self.views if one.id == variables["reportId"]), None)
        }

    def on_ProjectViews(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return self._views(variables["entity"], variables["project"], "runs", None)

    def on_View(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return self._views(
            variables["entityName"], variables["name"], variables["viewType"], variables["viewName"]
        )

    def _views(self, entity: str, project: str, kind: str, name: str | None) -> dict[str, Any]:
        found = [
            _view_node(one)
            for one in self.views
            if one.project == f"{entity}/{project}" and one.kind == kind and name in (None, one.name)
        ]
        edges = [{"node": node, "cursor": str(at)} for at, node in enumerate(found)]
        page = {"hasNextPage": False, "endCursor": None}
        known = f"{entity}/{project}" in self.projects
        return {"project": {"allViews": {"edges": edges, "pageInfo": page}} if known else None}

    def on_ViewAccessTokens(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        view = next(one for one in self.views if one.id == variables["reportId"])
        return {"view": {"accessTokens": view.tokens}}

    def on_createAccessToken(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        view = next(one for one in self.views if one.id == variables["viewId"])
        projects = [
            {"entityName": one["entityName"], "name": one["projectName"]} for one in variables["projects"]
        ]
        token = {"token": f"token-{view.id}", "type": "PUBLIC", "revokedAt": None, "projects": projects}
        view.tokens.append(token)
        return {"createAccessToken": {"accessToken": token}}

    def _artifact(self, name: str) -> ServerArtifact:
        return next(one for one in self.artifacts if one.id == name)

    def _path(self, variables: dict[str, Any]) -> tuple[str, str]:
        return variables.get("entity") or variables.get("entityName") or USER, variables["project"]

    def _project(self, variables: dict[str, Any]) -> dict[str, ServerRun]:
        return self.projects.setdefault("/".join(self._path(variables)), {})

    def _named(self, variables: dict[str, Any]) -> dict[str, Any]:
        entity, project = self._path(variables)
        return {"id": "p", "name": project, "entity": {"id": "e", "name": entity}}

    # The stream of history, summary and exit, and the content of files.

    def file_stream(self, path: list[str], body: dict[str, Any]) -> dict[str, Any]:
        entity, project, name = path
        run = self.projects[f"{entity}/{project}"][name]
        files = body.get("files") or {}
        for line in files.get("wandb-history.jsonl", {}).get("content", []):
            run.history.append(json.loads(line))
        for line in files.get("wandb-events.jsonl", {}).get("content", []):
            run.system.append(json.loads(line))
        for line in files.get("wandb-summary.json", {}).get("content", []):
            run.summary = json.loads(line)
        run.preempting = run.preempting or bool(body.get("preempting"))
        if body.get("complete"):
            run.exit_code = body.get("exitcode")
        return {"stopped": True} if run.stopped else {}

    def put(self, kind: str, path: list[str], content: bytes) -> bool:
        """Take the content of a file; False if it is refused."""
        if self.refuse_files:
            return False
        if kind == "upload":
            entity, project, run, *name = path
            self.projects[f"{entity}/{project}"][run].files["/".join(name)] = len(content)
        elif kind == "artifact":
            self._artifact(path[0]).files["/".join(path[1:])] = len(content)
        elif kind != "manifest":
            self.unknown.append(f"PUT {kind}")
            return False
        return True

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self._body() or b"{}")
                if server.refuse_key:
                    self._reply({"errors": [{"message": "user is not logged in"}]}, status=401)
                elif self.path.startswith("/graphql"):
                    with server.lock:
                        self._reply(server.graphql(body["query"], body.get("variables") or {}))
                elif self.path.endswith("/file_stream"):
                    if server.refuse_history:
                        self._reply({"error": "no"}, status=400)
                        return
                    with server.lock:
                        answer = server.file_stream(self._parts()[1:4], body)
                    self._reply(answer)
                elif self.path.startswith("/sdk/otel/"):  # wandb's reports of its own errors
                    self._reply({})
                else:
                    server.unknown.append(self.path)
                    self._reply({"error": "unknown path"}, status=404)

            def do_PUT(self) -> None:
                kind, *path = self._parts()
                time.sleep(server.slow_networks if path[-1] == "network.pt" else 0)
                with server.lock:
                    taken = server.put(kind, path, self._body())
                self._reply({}, status=200 if taken else 403)

            def _parts(self) -> list[str]:
                return [unquote(part) for part in self.path.partition("?")[0].strip("/").split("/")]

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


def _named_artifact(artifact: ServerArtifact) -> dict[str, Any]:
    return {"state": artifact.state, "artifactSequence": {"name": artifact.collection}}


def _project_node(entity: str, name: str) -> dict[str, Any]:
    facts = {"id": "p", "name": name, "entityName": entity, "createdAt": TIME, "isBenchmark": False}
    return {**facts, "user": None}


def _view_node(view: ServerView) -> dict[str, Any]:
    entity, project = view.project.split("/")
    return {
        "id": view.id,
        "type": view.kind,
        "name": view.name,
        "displayName": view.display_name,
        "description": view.description,
        "project": {"id": "p", "name": project, "entityName": entity},
        "user": {"username": USER, "photoUrl": None, "email": None},
        "createdAt": TIME,
        "updatedAt": TIME,
        "spec": view.spec,
    }


class RefusedError(Exception):
    """What a GraphQL operation answers instead of data."""
