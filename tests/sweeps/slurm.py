"""A SLURM of the tests' own, with two nodes on this machine; tests are skipped without its programs."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from ports import free_port
from running import survived_by

STARTING = 60.0  # seconds that the daemons may take
NODES = ("one", "two")
CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{announced}
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[0]} CPUs=1
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
PartitionName=spare Nodes=ALL PriorityTier=1 GraceTime=300 Default=YES
PartitionName=urgent Nodes=ALL PriorityTier=9
"""
"""Authentication by user names and a short wait before a job is queued again; else as clusters have it."""


class Slurm:
    """A cluster of two nodes with one core each; a job in `urgent` takes the place of one in `spare`.

    Attributes:
        folder: with the logs of its daemons.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        config = folder / "slurm.conf"
        self._environment = {**os.environ, "SLURM_CONF": str(config)}
        for name in ("state", *(f"spool.{node}" for node in NODES)):
            (folder / name).mkdir()
        host = socket.gethostname().partition(".")[0]
        release = int(self.call("slurmctld", "-V").split()[-1].split(".")[0])
        announced = (
            "PreemptParameters=send_user_signal"
            if release >= 23
            else "SlurmctldParameters=preempt_send_user_signal"
        )
        facts = {"announced": announced, "host": host, "user": getpass.getuser(), "folder": folder}
        config.write_text(CONFIG.format(controller=free_port(), ports=[free_port() for _ in NODES], **facts))
        self.call("slurmctld")
        for node in NODES:
            self.call("slurmd", "-N", node)

    def submit(self, *arguments: object, cwd: Path, **environment: str) -> str:
        """Submit a job; returns its number."""
        return self.call("sbatch", "--parsable", *arguments, cwd=cwd, **environment).strip()

    def state(self, job: str) -> str:
        """A job's state and why it waits, such as "PENDING BeginTime"; "" once it has ended."""
        return self.call(
            "squeue", "-h", "-j", job, "-o", "%T %r", "--states=PENDING,RUNNING,COMPLETING"
        ).strip()

    def outcome(self, job: str) -> tuple[str, int]:
        """How a job is now, such as "CANCELLED", and how often it was queued again."""
        facts = dict(
            word.split("=", 1) for word in self.call("scontrol", "show", "job", job).split() if "=" in word
        )
        return facts["JobState"], int(facts["Restarts"])

    def is_ready(self) -> bool:
        """Whether the node takes jobs, or does so within a while."""
        end = time.monotonic() + STARTING
        while self.call("sinfo", "-h", "-p", "spare", "-o", "%T").split() != ["idle"]:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def log(self, daemon: str) -> str:
        return (self.folder / f"{daemon}.log").read_text()

    def guarded(self) -> AbstractContextManager[None]:
        """Ends its jobs and its daemons at the end."""
        script = 'scancel --full --user "$1"; sleep 1; cd "$2" && kill $(cat *.pid)'
        return survived_by(script, getpass.getuser(), str(self.folder), env=self._environment)

    def call(self, *command: object, cwd: Path | None = None, **environment: str) -> str:
        done = subprocess.run(
            list(map(str, command)),
            env={**self._environment, **environment},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0 and command[0] in ("slurmctld", "slurmd"):
            pytest.skip(f"{command[0]} does not start here: {done.stderr[-300:]}")
        assert done.returncode == 0 or command[0] == "squeue", f"{command}: {done.stderr}"
        return done.stdout


@contextmanager
def running_slurm() -> Iterator[Slurm]:
    """A cluster; the test is skipped where there is none to be had."""
    for program in ("slurmctld", "slurmd", "sbatch"):
        if shutil.which(program) is None:
            pytest.skip(f"SLURM is not installed ({program}); scripts/test-extras.sh does")
    with TemporaryDirectory(prefix="slimnet-slurm-", ignore_cleanup_errors=True) as folder:
        cluster = Slurm(Path(folder))
        with cluster.guarded():
            if not cluster.is_ready():
                pytest.skip(f"slurmd does not start here: {cluster.log(NODES[0])[-300:]}")
            yield cluster
