"""What a W&B server holds of a study's runs, which it is asked and nothing else is believed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.tracking import sdk

PAGE = 50  # runs asked about at once

_QUERY = """
query SweepRuns($entity: String!, $project: String!, $filters: JSONString, $first: Int!) {
  project(name: $project, entityName: $entity) {
    runs(filters: $filters, first: $first) {
      edges {
        node {
          id
          name
          historyLineCount
          summaryMetrics
          files(first: 1000) { edges { node { name sizeBytes } } }
          outputArtifacts(first: 1000) { edges { node { state artifactSequence { name } } } }
        }
      }
    }
  }
}
"""


_OF_SWEEP = """
query SweepRunSummaries(
  $entity: String!, $project: String!, $filters: JSONString, $first: Int!, $after: String
) {
  project(name: $project, entityName: $entity) {
    runs(filters: $filters, first: $first, after: $after) {
      edges { node { name summaryMetrics } }
      pageInfo { hasNextPage endCursor }
    }
  }
}
"""


_STOPPED = """
query SweepRunStopped($entity: String!, $project: String!, $run: String!) {
  project(name: $project, entityName: $entity) { run(name: $run) { stopped } }
}
"""


_UPDATE = """
mutation SweepRunUpdate($id: String!, $summaryMetrics: JSONString) {
  upsertBucket(input: {id: $id, summaryMetrics: $summaryMetrics}) { bucket { id } }
}
"""


@dataclass(frozen=True)
class Held:
    """What a server holds of a run.

    Attributes:
        id: its id among all runs of the server.
        rows: how many rows of history.
        summary: its summary.
        lacking: the tables, charts and models that were announced and have not arrived.
        models: the names of the models that have arrived.
    """

    id: str
    rows: int
    summary: dict[str, Any]
    lacking: tuple[str, ...]
    models: frozenset[str]


class Server:
    """A server with the entity and the project that runs go to.

    Attributes:
        entity: who owns the project.
        place: "https://host/entity/project", which is also the address of the project's page.
    """

    def __init__(self, project: str, entity: str | None) -> None:
        """Connect.

        Raises:
            Exception: (wandb's) the server does not answer, or refuses the key.
        """
        self._api = sdk.connect(sdk.INIT_TIMEOUT)
        self._project = project
        self.entity = entity or str(self._api.default_entity)
        self.place = f"{sdk.app_url(self._api)}/{self.entity}/{project}"

    def held(self, run_ids: Sequence[str]) -> dict[str, Held]:
        """What the server holds of these runs, by id; without those that it does not know.

        Raises:
            Exception: (wandb's) the server does not answer.
        """
        found: dict[str, Held] = {}
        for start in range(0, len(run_ids), PAGE):
            names = list(run_ids[start : start + PAGE])
            variables = {
                "entity": self.entity,
                "project": self._project,
                "filters": json.dumps({"name": {"$in": names}}),
                "first": PAGE,
            }
            answer = sdk.ask(self._api, _QUERY, variables)
            project = answer.get("project") or {"runs": {"edges": []}}
            found |= {edge["node"]["name"]: _held(edge["node"]) for edge in project["runs"]["edges"]}
        return found

    def summaries(self, sweep: str) -> dict[str, dict[str, Any]]:
        """The summary of every run of one of W&B's sweeps, by the run's id.

        Raises:
            Exception: (wandb's) the server does not answer.
        """
        found: dict[str, dict[str, Any]] = {}
        where = {"entity": self.entity, "project": self._project, "filters": json.dumps({"sweep": sweep})}
        page = {"hasNextPage": True, "endCursor": None}
        while page["hasNextPage"]:
            asked = {**where, "first": PAGE, "after": page["endCursor"]}
            runs = (sdk.ask(self._api, _OF_SWEEP, asked).get("project") or {}).get("runs")
            if runs is None:
                break
            found |= {node["name"]: json.loads(node["summaryMetrics"] or "{}") for node in _nodes(runs)}
            page = runs["pageInfo"]
        return found

    def was_stopped(self, run_id: str) -> bool:
        """Whether a run was stopped, on its page or by its sweep.

        Raises:
            Exception: (wandb's) the server does not answer.
        """
        where = {"entity": self.entity, "project": self._project, "run": run_id}
        return bool(sdk.ask(self._api, _STOPPED, where)["project"]["run"]["stopped"])

    def reports(self) -> list[tuple[str, str]]:
        """The id and the description of every report of the project.

        Raises:
            Exception: (wandb's) the server does not answer.
        """
        found = self._api.reports(f"{self.entity}/{self._project}")
        return [(one.id, one.description or "") for one in found]

    def set_seconds(self, held: Held, seconds: float) -> None:
        """Let a run last as long as its training, and not as long as it was open.

        Raises:
            Exception: (wandb's) the server does not answer.
        """
        duration = round(seconds)
        if held.summary.get("_runtime") != duration:
            own = held.summary.get("_wandb") or {}
            summary = {**held.summary, "_runtime": duration, "_wandb": {**own, "runtime": duration}}
            sdk.ask(self._api, _UPDATE, {"id": held.id, "summaryMetrics": json.dumps(summary)})


def run_page(place: str, run_id: str) -> str:
    """The address of a run's page, in the place of a server."""
    return f"{place}/runs/{run_id}"


def _held(run: dict[str, Any]) -> Held:
    summary = json.loads(run["summaryMetrics"] or "{}")
    arrived = {node["name"] for node in _nodes(run["files"]) if int(node["sizeBytes"] or 0) > 0}
    artifacts = [(node["artifactSequence"]["name"], node["state"]) for node in _nodes(run["outputArtifacts"])]
    return Held(
        id=run["id"],
        rows=int(run["historyLineCount"] or 0),
        summary=summary,
        lacking=tuple(
            sorted(
                {path for path in _paths(summary) if path not in arrived}
                | {name for name, state in artifacts if state != "COMMITTED"}
            )
        ),
        models=frozenset(name for name, state in artifacts if state == "COMMITTED"),
    )


def _nodes(connection: dict[str, Any]) -> list[dict[str, Any]]:
    return [edge["node"] for edge in connection["edges"]]


def _paths(value: Any) -> Iterator[str]:
    """The files that a summary refers to: those of tables and charts."""
    if isinstance(value, dict):
        if isinstance(value.get("path"), str) and "_type" in value:
            yield value["path"]
        for inner in value.values():
            yield from _paths(inner)
