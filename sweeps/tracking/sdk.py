"""The calls to wandb: those that open, fill and end a run, and those that ask a server."""

from __future__ import annotations

import io
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from slimnet.errors import SlimnetError
from slimnet.wording import one_line
from sweeps.tracking.views import Histogram, Model, Row, RunView, Table

if TYPE_CHECKING:
    from wandb import Api
    from wandb.sdk.wandb_run import Run

INIT_TIMEOUT = 30.0  # seconds to wait for the server
FINISH_TIMEOUT = 30.0  # seconds to wait for a run's upload at its end, beside its networks
SLOWEST = 100_000  # bytes of networks that are uploaded in a second, at the least
LONGEST = 3600.0  # seconds to wait for the networks of a run, at most


class UploadError(Exception):
    """The server refused rows."""


class NoAnswerError(Exception):
    """The server cannot be reached, or takes too long."""


@dataclass(frozen=True)
class Account:
    """The server that wandb would use.

    Attributes:
        host: its URL.
        has_key: whether there is an API key for it.
        configured_mode: the mode in wandb's settings file; "online" if it names none.
    """

    host: str
    has_key: bool
    configured_mode: str


def load_wandb() -> ModuleType:
    """Import wandb, silent on the terminal and without error reports to its developers.

    The user's own WANDB_SILENT and WANDB_ERROR_REPORTING are respected.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


def find_account() -> Account:
    """Look for credentials in the places and the order in which wandb.init() does, but never prompt.

    Raises:
        AuthenticationError: (wandb's) a key is malformed.
    """
    load_wandb()
    from wandb.sdk import wandb_setup
    from wandb.sdk.lib import wbauth

    settings = wandb_setup.singleton().settings
    found = wbauth.authenticate_session(
        host=settings.base_url, source="sweeps", prompt=False, update_session=False
    )
    return Account(host=settings.base_url, has_key=found is not None, configured_mode=settings.mode)


def connect(timeout: float) -> Api:
    """Connect to the server whose key `find_account` has found.

    Raises:
        NoAnswerError: it does not answer within `timeout` seconds.
        AuthenticationError: (wandb's) it refuses the key.
    """
    wandb = load_wandb()
    try:
        return wandb.Api(timeout=max(1, round(timeout)))  # type: ignore[no-any-return]
    except Exception as error:
        if "did not respond in time" in str(error):
            raise NoAnswerError(f"{find_account().host} did not answer within {timeout:g} seconds") from error
        raise


def app_url(api: Api) -> str:
    """The address of a server's pages."""
    return str(api._service_api.app_url).rstrip("/")


def ask(api: Api, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Send a GraphQL query; wandb's own methods would take a request for each run, its files and artifacts.

    Raises:
        WandbApiFailedError: (wandb's) the server does not answer, or with an error.
    """
    answer: dict[str, Any] = api._service_api.execute_graphql(query, variables)
    return answer


def create_sweep(definition: dict[str, Any], project: str, entity: str | None) -> tuple[str, str]:
    """Make a sweep; returns "entity/project/id" and the address of its page.

    Raises:
        SlimnetError: the server does not take the sweep.
    """
    wandb = load_wandb()
    try:
        api = connect(INIT_TIMEOUT)
        owner = entity or str(api.default_entity)
        with redirect_stdout(io.StringIO()):  # it prints what the caller says
            name = wandb.sweep(definition, entity=owner, project=project)
    except Exception as error:
        raise SlimnetError(f"W&B did not take the sweep: {one_line(error)}") from error
    return f"{owner}/{project}/{name}", f"{app_url(api)}/{owner}/{project}/sweeps/{name}"


def open_run(
    view: RunView,
    study_dir: Path,
    mode: Literal["online", "offline"],
    on_stop: Callable[[], None] = lambda: None,
) -> Run:
    """Open the view's run; online, it continues the server's run of the same id at its `starting_step`.

    Args:
        view: the run.
        study_dir: runs/<study>.
        mode: where it is kept.
        on_stop: called, in another thread, when the stop button of its page is pressed.

    Raises:
        CommError: (wandb's) the server does not answer within INIT_TIMEOUT. wandb may raise others too.
    """
    wandb = load_wandb()
    os.environ.setdefault(
        "WANDB_DATA_DIR", str(study_dir / "wandb")
    )  # for copies of tables, else in the home folder
    settings = wandb.Settings(
        silent=True,
        console="off",
        symlink=False,
        disable_git=True,
        save_code=False,
        use_dot_wandb=False,
        # The machine's load says something about a trial only while it runs.
        x_disable_stats=mode == "offline" or view.state != "running" or view.job_type == "study",
        x_save_requirements=False,
        x_transaction_log_flush_interval=1,
        allow_offline_artifacts=False,  # offline, a table is only a file in its run's folder
        init_timeout=INIT_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        finish_timeout_raises=True,
        stop_fn=on_stop,  # by default, it would interrupt the whole sweep
    )
    run: Run = wandb.init(
        mode=mode,
        project=view.project,
        entity=view.entity,
        id=view.id,
        name=view.name,
        group=view.group,
        job_type=view.job_type,
        tags=view.tags,
        notes=view.notes,
        config=view.config,
        dir=str(study_dir),
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        settings=settings,
    )
    for stage in view.epoch_axes:
        run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")
        run.define_metric(f"{stage}/val_accuracy", step_metric=f"{stage}/epoch", summary="max,last")
    return run


def log_rows(run: Run, rows: Iterator[tuple[int, Row]]) -> int | None:
    """Log the rows in order; returns the last step, None if there was no row."""
    step = None
    for step, row in rows:
        run.log({key: _to_wandb(value) for key, value in row.items()}, step=step, commit=True)
    return step


def finish_run(run: Run, view: RunView) -> None:
    """Write the summary and end the run; one whose view has not ended is marked as interrupted.

    Raises:
        TimeoutError: the upload takes longer than FINISH_TIMEOUT.
        UploadError: the server refused it.
    """
    write_summary(run, view)
    if not view.ended:
        run.mark_preempting()
    run.finish(exit_code=0 if view.state in ("complete", "stopped") else 1)
    _check_upload(Path(run.dir).parent / "logs" / "debug-internal.log")


def close(run: Run) -> None:
    """End a run that was opened, and leave it as it was."""
    run.mark_preempting()
    run.finish(exit_code=1)


def write_summary(run: Run, view: RunView) -> None:
    """Replace the run's summary, with its tables and charts: these are no rows, as they change."""
    run.summary.update({key: _to_wandb(value) for key, value in view.summary.items()})


def seconds_for(models: Sequence[Model]) -> float:
    """How long the upload of networks may take."""
    return min(sum(one.path.stat().st_size for one in models) / SLOWEST, LONGEST)


def log_models(run: Run, models: Sequence[Model]) -> None:
    """Upload networks as artifacts, from their own files: none is copied.

    What the server already has is not sent again. A version belongs to the run that was the first to log its
    content, so what a run yields names that run, in a file beside the network. What the server refuses is not
    told here: it is asked later what it has.

    Raises:
        TimeoutError: they take longer than `seconds_for` them and FINISH_TIMEOUT.
    """
    wandb = load_wandb()
    seconds = FINISH_TIMEOUT + seconds_for(models)
    end = time.monotonic() + seconds
    sent = []
    for model in models:
        artifact = wandb.Artifact(model.name, type="model", metadata=model.metadata)
        artifact.add_file(str(model.path), name="network.pt", policy="immutable", skip_cache=True)
        if not model.is_input:
            with artifact.new_file("run.json") as file:
                json.dump({"run": run.id}, file)
        # run.log_artifact, then run.use_artifact, which would wait for the server.
        sent.append(run._log_artifact(artifact, aliases=list(model.aliases), use_after_commit=model.is_input))
    for artifact in sent:  # artifact.wait would ask the server for each besides
        assert artifact._save_handle is not None
        try:
            artifact._save_handle.wait_or(timeout=end - time.monotonic())
        except TimeoutError:
            raise TimeoutError(f"its networks were not uploaded within {seconds:.0f} seconds") from None


def shut_down(timeout: float | None = None) -> None:
    """End wandb's service; the next run starts a fresh one. Without a service nothing happens.

    A service refuses to open a run again, even offline, after it has failed to open it once. One that is
    answering when it is told to end may not hear it (wandb-core 0.31), and would end minutes later, which
    wandb itself waits for without a bound, at the exit of a program too: it is killed.

    Args:
        timeout: the seconds after which it is killed; FINISH_TIMEOUT by default.
    """

    def end() -> None:
        with suppress(SystemExit):  # by which it says that the service has failed, or was killed
            load_wandb().teardown()

    service = _service()
    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    ending.join(FINISH_TIMEOUT if timeout is None else timeout)
    if ending.is_alive() and service is not None:
        service.kill()
        ending.join()


def _service() -> subprocess.Popen[bytes] | None:
    """The process of wandb's service, which wandb shows to nobody; None where there is none."""
    from wandb.sdk import wandb_setup

    found: Any = wandb_setup
    for name in ("_singleton", "_connection", "_proc", "_process"):
        found = getattr(found, name, None)
    return found  # type: ignore[no-any-return]


def _check_upload(log: Path) -> None:
    """Check whether wandb's service gave up the upload, which `finish` does not report.

    Raises:
        UploadError: it did.
    """
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    for line in lines:
        if "filestream: fatal error" in line:
            raise UploadError(json.loads(line)["msg"])


def _to_wandb(value: Any) -> Any:
    wandb = load_wandb()
    if isinstance(value, Histogram):
        return wandb.Histogram(np_histogram=(value.counts, value.edges))
    if isinstance(value, Table):
        return wandb.Table(columns=value.columns, data=value.data)
    if hasattr(value, "to_plotly_json"):
        return wandb.Plotly(value)
    return value
