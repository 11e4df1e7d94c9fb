"""Stages on a Ray cluster: nodes that die, drivers that die, and a cluster that is not there."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from elsewhere import Runner
from running import PATIENCE, Command, children, gated, swift, wait_until, wait_until_gone

from benchmarks import instant
from slimnet.errors import SlimnetError
from sweeps.config import load_config, resolve
from sweeps.executors import Event, ExecutorDiedError
from sweeps.jobs import Job, Place, Watch
from sweeps.machine import core_count
from sweeps.outputs import pareto_table
from sweeps.stages import Stage, Store, chain, latency_stage

ENDLESS = 5000  # epochs
SHORT = ("--workers", "2", "--wandb", "disabled", "--set", "curves=false", "--set", "latency=false")


@pytest.fixture
def executor(cluster: Any, tmp_path: Path) -> Iterator[Any]:
    from sweeps.executors.ray import RayExecutor

    executor = RayExecutor(cluster, Place("cpu", 1), logs=tmp_path / "logs", compute=instant.unhurried)
    with closing(executor):
        yield executor


def sparse_stage(epochs: int) -> Stage:
    settings = load_config("smoke", [f"sparse.epochs={epochs}"])
    return chain(resolve(settings, {"sparse.lambda": 0.02, "prune.ratio": 0.5}), "float32")[0]


def start(executor: Any, runs: Path, stage: Stage, known: int = 0) -> None:
    store = Store(runs)
    store.folder(stage).prepare(stage)
    executor.start(Job(stage, store, known_epochs=known))


def events_until(executor: Any, holds: Callable[[Event], bool]) -> list[Event]:
    """All events up to the first for which `holds` does."""
    events: list[Event] = []

    def come() -> bool:
        events.extend(executor.poll(1.0))
        return any(map(holds, events))

    wait_until(come)
    return events


def is_epoch(event: Event) -> bool:
    return event.kind == "epoch"


def an_epoch_of(stage: Stage) -> Callable[[Event], bool]:
    return lambda event: event.kind == "epoch" and event.key == stage.key


def test_a_stage_goes_on_from_its_checkpoint_on_another_node_when_its_own_dies(
    nodes: Any, executor: Any, tmp_path: Path
) -> None:
    import clusters

    stage, folder = sparse_stage(ENDLESS), Store(tmp_path).folder(sparse_stage(ENDLESS))
    start(executor, tmp_path, stage)
    events_until(executor, is_epoch)
    spot = executor.spot(stage.key)
    (node,) = (node for node in nodes.worker_nodes if node.node_id == spot.node)

    nodes.remove_node(node, allow_graceful=False)  # by SIGKILL
    try:
        last = events_until(executor, lambda event: event.ends)[-1]
        assert (last.kind, last.reason) == ("lost", f"its node {spot.host} died")
        kept = folder.epochs_done()
        start(executor, tmp_path, stage)
        first = next(event for event in events_until(executor, is_epoch) if is_epoch(event))
        assert first.epoch == kept + 1
        assert executor.spot(stage.key).node != spot.node
    finally:
        clusters.add_node(nodes)


def test_a_stage_that_another_study_shares_goes_on_for_that_one(
    cluster: Any, executor: Any, tmp_path: Path
) -> None:
    from sweeps.executors.ray import RayExecutor

    shared, own, waiting = (sparse_stage(ENDLESS + number) for number in range(3))
    with closing(RayExecutor(cluster, Place("cpu", 1), compute=instant.unhurried)) as other:
        for stage in (shared, own):
            start(other, tmp_path, stage)
            events_until(other, an_epoch_of(stage))
        start(other, tmp_path, waiting)
        for stage in (shared, waiting):
            start(executor, tmp_path, stage)
        heard = events_until(executor, an_epoch_of(shared))

        for key in (shared.key, waiting.key):
            other.stop(key)
            ends = [event for event in events_until(other, lambda event: event.ends) if event.ends]
            assert ends == [Event(key, "stopped")]
        heard += events_until(executor, an_epoch_of(shared))
        start(other, tmp_path, shared)
        events_until(other, an_epoch_of(shared))
    heard += events_until(executor, an_epoch_of(waiting))  # which has the place of `own`
    heard += events_until(executor, an_epoch_of(shared))
    assert not any(event.ends for event in heard)

    executor.stop(shared.key)
    assert Event(shared.key, "stopped") in events_until(executor, lambda event: event.ends)
    assert Store(tmp_path).folder(shared).epochs_done() < ENDLESS


def test_a_stage_that_one_study_stops_and_another_one_is_dead_of_ends(
    cluster: Any, executor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from sweeps.executors.ray import RayExecutor
    from sweeps.executors.ray_actor import StageActor

    class Impatient(StageActor):
        def __init__(self) -> None:
            from sweeps.executors import ray_actor

            ray_actor.DESERTED = 4.0
            super().__init__()

    monkeypatch.setattr("sweeps.executors.ray.StageActor", Impatient)
    stage = sparse_stage(ENDLESS)
    dead = RayExecutor(cluster, Place("cpu", 1), compute=instant.unhurried)
    for one in (dead, executor):
        start(one, tmp_path, stage)
        events_until(one, is_epoch)
    executor.stop(stage.key)
    assert Event(stage.key, "stopped") in events_until(executor, lambda event: event.ends)
    wait_until(lambda: stage.key not in str(ray.util.list_named_actors(all_namespaces=True)))
    assert 0 < Store(tmp_path).folder(stage).epochs_done() < ENDLESS


def test_a_node_that_cannot_compute_stages_is_avoided_and_they_fail_once_none_is_left(
    nodes: Any, executor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeps.executors.ray_actor import StageActor

    troubles = tmp_path / "troubles"
    troubles.write_text("")

    class Troubled(StageActor):
        def __init__(self) -> None:
            import ray

            from sweeps.executors import ray_actor
            from sweeps.stages import StageFolder

            here, text = ray.get_runtime_context().get_node_id(), troubles.read_text()
            if f"{here} cannot begin" in text:
                raise RuntimeError("no such library")
            if f"{here} is blind" in text:
                ray_actor.SEEN = 0.5
                StageFolder.is_prepared = lambda self: False  # type: ignore[method-assign]
            super().__init__()

    def end_of(stage: Stage) -> Event:
        (end,) = (event for event in events_until(executor, lambda event: event.ends) if event.ends)
        assert end.key == stage.key
        return end

    monkeypatch.setattr("sweeps.executors.ray.StageActor", Troubled)
    first, second, third = (sparse_stage(ENDLESS + number) for number in range(3))
    start(executor, tmp_path, first)
    events_until(executor, is_epoch)
    good = executor.spot(first.key).node
    (other,) = {node.node_id for node in nodes.worker_nodes} - {good}

    troubles.write_text(f"{other} cannot begin")
    start(executor, tmp_path, second)
    end = end_of(second)
    assert end.kind == "lost"
    assert re.fullmatch(r"Ray could not start it on [\d.]+ \(RuntimeError: no such library\)", end.reason)
    start(executor, tmp_path, second)
    executor.stop(first.key)
    assert end_of(first).kind == "stopped"
    events_until(executor, an_epoch_of(second))
    assert executor.spot(second.key).node == good

    troubles.write_text(f"{good} is blind")
    executor.stop(second.key)
    assert end_of(second).kind == "stopped"
    start(executor, tmp_path, third)
    end = end_of(third)
    assert end.kind == "failed"
    assert re.search(
        r" cannot be seen on .*; --runs must name storage .*; no other node is left$", end.reason
    )


def test_a_node_with_another_device_is_one_that_cannot_measure_a_latency(
    with_ray: None, tmp_path: Path
) -> None:
    from sweeps.executors import ray_actor

    latency = latency_stage(sparse_stage(1), "another device")
    with pytest.raises(ray_actor.UnfitNodeError, match="are of another device, and Ray placed this on"):
        ray_actor._compute(Job(latency, Store(tmp_path)), Place("cpu", 1), Watch())


def test_a_measurement_is_alone_on_its_node(cluster: Any, tmp_path: Path) -> None:
    from sweeps.executors.ray import RayExecutor

    store = Store(tmp_path)
    shared = replace(cluster, cpus=0.5)  # two places on each of the two nodes
    with closing(RayExecutor(shared, Place("cpu", 1), compute=instant.unhurried)) as executor:
        stages, measured = [sparse_stage(ENDLESS + number) for number in range(3)], sparse_stage(1)
        start(executor, tmp_path, measured)
        events_until(executor, lambda event: event.kind == "done")
        for stage in stages:
            start(executor, tmp_path, stage)
            events_until(executor, an_epoch_of(stage))
        latency = latency_stage(measured, "here")
        start(executor, tmp_path, latency)
        events_until(executor, lambda event: executor.has_begun(latency.key))
        nodes = {stage.key: executor.spot(stage.key) for stage in (*stages, latency)}
        begun = [store.folder(stage).epochs_done() for stage in stages]
        events_until(executor, lambda event: event.key == latency.key and event.ends)
        grown = [store.folder(stage).epochs_done() - n for stage, n in zip(stages, begun, strict=True)]
        beside = [nodes[stage.key] == nodes[latency.key] for stage in stages]
        assert any(beside)
        for is_beside, epochs in zip(beside, grown, strict=True):
            assert (epochs == 0) == is_beside
        events_until(executor, an_epoch_of(stages[beside.index(True)]))


def test_a_measurement_begins_beside_others_that_do_not_rest_in_time_and_says_so(
    cluster: Any, tmp_path: Path
) -> None:
    from sweeps.executors.ray import RayExecutor

    measured, others = sparse_stage(1), [sparse_stage(ENDLESS + number) for number in range(3)]
    latency, restless = latency_stage(measured, "here"), {stage.key for stage in others}

    def compute(job: Job, place: Place, watch: Watch) -> bool:
        if job.key in restless:
            watch.warning("its first epoch takes for ever")
            threading.Event().wait()
        return instant.compute(job, place, watch)

    shared = replace(cluster, cpus=0.5)  # two places on each of the two nodes
    with closing(RayExecutor(shared, Place("cpu", 1), patience=0.1, compute=compute)) as executor:
        start(executor, tmp_path, measured)
        events_until(executor, lambda event: event.kind == "done")
        for stage in others:
            start(executor, tmp_path, stage)
            events_until(executor, lambda event: event.kind == "warning")
        start(executor, tmp_path, latency)
        warning, end = (e for e in events_until(executor, lambda event: event.ends) if e.kind != "alive")
    assert (warning.key, warning.kind, end) == (latency.key, "warning", Event(latency.key, "done"))
    assert warning.reason == "others do not rest, so that it is measured beside them"


def test_capacity_is_the_room_of_the_nodes_and_as_much_again_which_makes_a_cluster_grow(
    cluster: Any, executor: Any, tmp_path: Path
) -> None:
    wait_until(lambda: cluster.room() == 2)
    assert (executor.capacity(), executor.idle()) == (4, 2)
    stages = [sparse_stage(ENDLESS + number) for number in range(3)]
    for stage in stages:
        start(executor, tmp_path, stage)
    assert (executor.capacity(), executor.idle()) == (1, 0)
    events: list[Event] = []

    def two_run() -> bool:
        events.extend(executor.poll(1.0))
        return len({event.key for event in events if is_epoch(event)}) == 2

    wait_until(two_run)
    (waiting,) = (stage.key for stage in stages if executor.spot(stage.key) is None)
    executor.stop(waiting)  # one that has not begun ends at once
    ends = events_until(executor, lambda event: event.ends)
    assert [(event.key, event.kind) for event in ends if event.ends] == [(waiting, "stopped")]


@contextmanager
def driver_on_ray(runs: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A swift sweep, which is ended with all that it has started if the block does not end it."""
    with swift(runs, *SHORT, env=environment, anew=True) as process:
        try:
            yield process
        finally:
            for pid in [process.pid, *children(process)] if process.poll() is None else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def head_in(pids: list[int]) -> int:
    """Which of these processes is Ray's head."""
    (head,) = (pid for pid in pids if b"/gcs_server" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return head


def fronts(*runs: Path) -> set[str]:
    return {(folder / "smoke" / "pareto.json").read_text() for folder in runs}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of a sweep on one machine, which no one disturbed."""
    runs = tmp_path_factory.mktemp("undisturbed")
    process = swift(runs, *SHORT)
    _, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, complaints
    return runs


@pytest.mark.slow  # two Ray clusters are started
def test_a_cluster_is_started_where_there_is_none_and_its_end_is_one_sentence(
    with_ray: None, tmp_path: Path, undisturbed: Path
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as rays:  # paths of sockets are short
        environment = {"SWIFT_RAY": "auto", "RAY_TMPDIR": rays}
        environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "20"  # which Ray's agents wait for the head
        with gated(tmp_path), driver_on_ray(tmp_path, environment) as first:
            wait_until(
                lambda: bool(list(tmp_path.glob("stages/*/*/history.jsonl"))) or first.poll() is not None
            )
            begun = children(first)
            os.kill(head_in(begun), signal.SIGKILL)
            out, complaints = first.communicate(timeout=PATIENCE)  # Ray's own words come a minute later
        assert "on the Ray cluster at " in out
        assert first.returncode == 2
        said = re.fullmatch(
            r"Error: the head of the Ray cluster at ([\d.:]+) has died \(Connection refused\), which ends "
            r"its stages; every finished epoch is kept\. Go on with: .* run smoke .*\n",
            complaints,
        )
        assert said, complaints
        wait_until_gone(begun)

        (Path(rays) / "ray" / "ray_current_cluster").write_text(said[1])  # as one that is killed leaves it
        with driver_on_ray(tmp_path, environment) as again:
            _, complaints = again.communicate(timeout=PATIENCE)
    assert (again.returncode, complaints) == (0, "")
    assert len(fronts(tmp_path, undisturbed)) == 1


def test_a_driver_that_is_killed_and_begun_again_takes_up_what_still_runs(
    nodes: Any, cluster: Any, tmp_path: Path, undisturbed: Path
) -> None:
    """And ends with the front that a sweep on one machine has, which no one disturbed."""
    import ray

    runs, environment = tmp_path / "runs", {"SWIFT_RAY": nodes.address}
    log = runs / "smoke" / "driver.log"
    with ExitStack() as held:
        with gated(runs):
            driver = held.enter_context(driver_on_ray(runs, environment))
            wait_until(
                lambda: len(list(runs.glob("stages/*/*/history.jsonl"))) == 2 or driver.poll() is not None
            )
            driver.send_signal(signal.SIGKILL)
            _, complaints = driver.communicate(timeout=PATIENCE)
            actors = ray.util.list_named_actors(all_namespaces=True)
            assert len(actors) >= 2, complaints
            again = held.enter_context(driver_on_ray(runs, environment))
            wait_until(lambda: log.read_text().count(" is taken up on ") == 2 or again.poll() is not None)
        _, complaints = again.communicate(timeout=PATIENCE)

    assert again.returncode == 0, complaints
    assert log.read_text().count(" is taken up on ") == 2
    for path in runs.glob("stages/*/*/history.jsonl"):
        epochs = [json.loads(line)["epoch"] for line in path.read_text().splitlines()]
        assert epochs == list(range(1, len(epochs) + 1)), "two have written it"
    assert len(fronts(runs, undisturbed)) == 1
    assert "(raylet)" not in complaints


def test_stages_at_a_url_give_the_front_that_a_folder_gives(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes have copies of their own, and the driver another."""
    from sweeps.executors.ray import RayExecutor

    expected = pareto_table(Runner(tmp_path / "plain", None, trials=2).run())
    runner = Runner(tmp_path / "runs", f"file://{tmp_path}/place", trials=2)
    monkeypatch.setenv("SLIMNET_SCRATCH", str(tmp_path / "driver"))
    executor = RayExecutor(cluster, Place("cpu", 1), compute=instant.unhurried)
    study = runner.run(executor=executor)
    assert pareto_table(study) == expected
    for place in (tmp_path / "driver", tmp_path / "runs" / "stages"):
        assert list(place.rglob("history.jsonl"))


def test_a_question_is_answered_on_a_node_as_in_a_process_of_this_machine(cluster: Any) -> None:
    assert cluster.ask(core_count) == core_count()
    with pytest.raises(SlimnetError, match="nonesuch is neither a file nor a shipped config"):
        cluster.ask(load_config, "nonesuch")
    with pytest.raises(SlimnetError, match=r"a node of the Ray cluster at .* could not look at the data"):
        cluster.ask(signal.raise_signal, signal.SIGKILL)


def is_out_of_reach(*address: Any, **options: Any) -> None:
    raise TimeoutError("timed out")


def test_a_head_that_was_out_of_reach_is_asked_again_but_not_another_in_its_place(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeps.executors import ray_head

    head, heads = replace(cluster.head), [node["NodeID"] for node in cluster.head.nodes()]
    for is_ours in (True, False):
        with monkeypatch.context() as away:
            away.setattr(socket, "create_connection", is_out_of_reach)
            assert head.nodes() is None
            assert ray_head.hangs()
        assert head.is_silent()
        assert not ray_head.hangs()
        if is_ours:
            assert [node["NodeID"] for node in head.nodes()] == heads
            assert not head.is_silent()
    monkeypatch.setattr(ray_head, "_is_ours", lambda address: False)  # Ray would abort this process
    with pytest.raises(
        ExecutorDiedError, match=r"has died \(another one has begun in its place\), which ends its"
    ):
        head.nodes()


def test_a_head_that_is_stopped_is_not_waited_for(
    nodes: Any, cluster: Any, executor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray._private.ray_constants import PROCESS_TYPE_GCS_SERVER

    from sweeps.executors import ray_head

    monkeypatch.setattr(ray_head, "ANSWERS", 0.5)
    monkeypatch.setattr(ray_head, "SILENT", 2.0)
    stages = [sparse_stage(ENDLESS + number) for number in range(3)]
    for stage in stages[:2]:
        start(executor, tmp_path, stage)
        events_until(executor, an_epoch_of(stage))
    start(executor, tmp_path, stages[2])  # which waits for a place
    head = nodes.head_node.all_processes[PROCESS_TYPE_GCS_SERVER][0].process.pid
    os.kill(head, signal.SIGSTOP)
    try:
        with pytest.raises(ExecutorDiedError, match=r"the head of .* has not answered for 2 seconds, which"):
            executor.stop(stages[2].key)
        executor.close()
        other = replace(cluster, head=replace(cluster.head))
        with pytest.raises(ExecutorDiedError, match=r"the head of .* has not answered for 2 seconds, which"):
            wait_until(lambda: other.room() > 2)  # which it never has
        assert ray_head.hangs()
    finally:
        os.kill(head, signal.SIGCONT)
    wait_until(lambda: not ray_head.hangs())
    wait_until(lambda: cluster.room() == 2 and not cluster.head.is_silent())


@pytest.mark.parametrize("runs_here", [True, False])
def test_a_head_that_does_not_answer_is_none_where_nothing_of_its_cluster_runs(
    with_ray: None, monkeypatch: pytest.MonkeyPatch, runs_here: bool
) -> None:
    from ray._private import services

    from sweeps.config.sections import Executor
    from sweeps.executors import ray_cluster

    def begin(address: str, **options: Any) -> None:
        raise InterruptedError(address)

    address = "10.0.0.1:6379"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: {address} if runs_here else set())
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: address)  # left by one that ran
    monkeypatch.setattr(socket, "create_connection", is_out_of_reach)
    monkeypatch.setattr("ray.init", begin)
    expected = r"at 10\.0\.0\.1:6379 cannot be joined \(timed out\)" if runs_here else "^local$"
    with pytest.raises(SlimnetError if runs_here else InterruptedError, match=expected):
        ray_cluster.join(Executor(kind="ray"), gpus=False)


def test_a_question_waits_for_a_place_from_when_there_is_none(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeps.executors import ray_cluster

    for name, seconds in (("LOOK_EVERY", 0.05), ("PATIENT", 0.0), ("GIVES_UP", 0.5)):
        monkeypatch.setattr(ray_cluster, name, seconds)
    began = time.monotonic()
    lacking: list[float] = []

    def room(self: Any) -> int:
        if time.monotonic() - began < 1.0:
            return 1
        lacking.append(time.monotonic())
        return 0

    monkeypatch.setattr(ray_cluster.Cluster, "room", room)
    with pytest.raises(SlimnetError, match=r"no node of the Ray cluster at .* has 9 CPUs; lower"):
        replace(cluster, cpus=9.0).ask(core_count)
    assert lacking[-1] - lacking[0] > 0.4


def test_an_address_at_which_there_is_no_cluster_is_an_error(
    with_ray: None, command: Command, tmp_path: Path
) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"  # at which nobody listens
        given = ("--executor", "ray", "--set", f"executor.address={address}", "--runs", tmp_path / "runs")
        status, _, err = command("run", "smoke", *given)
    assert status == 2
    assert f"the Ray cluster at {address} cannot be joined (Connection refused); see that it runs" in err
    assert not (tmp_path / "runs").exists()


def test_as_many_stages_as_are_to_share_a_gpu_fit_on_it(with_ray: None) -> None:
    from sweeps.executors.ray_cluster import Cluster, _part
    from sweeps.executors.ray_head import Head

    node = {"Resources": {"CPU": 100.0, "GPU": 1.0}}
    for share in range(1, 101):
        part = _part(share)
        assert part == round(part, 4)  # as Ray has it
        assert Cluster(Head(""), 1, part)._fit(node) == share


def test_neither_the_config_nor_a_local_run_imports_ray_and_a_driver_on_ray_no_torch(with_ray: None) -> None:
    modules = "sweeps.config, sweeps.driver, sweeps.cli, sweeps.executors.local"
    program = (
        f"import sys, {modules}; assert 'ray' not in sys.modules\n"
        "import sweeps.executors.ray; assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=PATIENCE).returncode == 0


def test_a_token_in_the_home_folder_is_shown_to_a_cluster_that_asks_for_one(
    nodes: Any, tmp_path: Path
) -> None:
    program = (
        "import sys; from sweeps.config.sections import Executor; from sweeps.executors import ray_cluster\n"
        "print(ray_cluster.join(Executor(kind='ray', address=sys.argv[1]), gpus=False).room())"
    )
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(os.environ["RAY_AUTH_TOKEN"])
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    joined = subprocess.run(
        [sys.executable, "-c", program, nodes.address],
        env={**plain, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert joined.stdout == "2\n", joined.stderr
