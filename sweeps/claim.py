"""Who works in a folder: a lock among the processes of one machine, and a lease among machines.

Locks are quick and end with their process, but on storage that machines share they may not reach the other
machines, or outlive a machine that died. There a lease counts: a file with its owner and a number that the
owner raises every few seconds. Who wants the folder watches the file. If it does not change for a while, by
the watcher's own clock, its owner is dead, and the folder is taken over; clocks of machines are never
compared. An owner looks before it writes. On a disk of its own, a machine that was started again knows its
former leases by its name, and one that was renamed, or a new container, by the kernel that still runs: locks
reach all processes of a kernel.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from slimnet.errors import SlimnetError
from sweeps.file_system import is_local, network_file_system
from sweeps.files import write_json

LOOK_EVERY = 0.2  # seconds between two tries
BEAT, EXPIRY = 5.0, 30.0  # seconds between two signs of life, and without any until an owner counts as dead


class ClaimLostError(SlimnetError):
    """Another machine has taken a folder over, as this process gave no sign of life."""


@cache
def machine() -> str:
    """What this machine is told from others by, until it is started again."""
    boot = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    return f"{platform.node()}-{boot}"


def lock_of(folder: Path, name: str = "") -> FileLock:
    """The lock of a folder among the processes of this machine.

    On storage that machines share, each has a file of its own for it.
    """
    shared = network_file_system(folder) is not None
    return FileLock(folder / f"{name}.lock{f'-{machine()}' if shared else ''}")


def _clock() -> float:
    """Seconds, also those in which the machine was suspended, which `time.monotonic` leaves out on Linux."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Claim:
    """One process's claim to a folder.

    Args:
        folder: the folder, which exists once the claim is taken.
        name: what the files of the claim are called before their endings.
        on_lost: called, in a thread, once another machine has taken the folder over.
    """

    def __init__(self, folder: Path, name: str = "", on_lost: Callable[[], None] = lambda: None) -> None:
        self._on_lost = on_lost
        self._machine = machine()
        self._lock = lock_of(folder, name)
        self._on_own_disk = is_local(folder)
        self._lease = folder / f"{name}.lease"
        self._owner = f"{self._machine}-{os.getpid()}-{os.urandom(4).hex()}"
        self._beats = 0
        self._beaten = 0.0
        self._lost = False
        self._seen: tuple[dict[str, Any] | None, float] = (None, 0.0)  # of another's lease, and since when
        self._over = threading.Event()
        self._writing = threading.Lock()

    def take(
        self,
        stop: Callable[[], bool] = lambda: False,
        *,
        wait: bool = True,
        on_wait: Callable[[str], None] = lambda text: None,
    ) -> bool:
        """Take the folder.

        Args:
            stop: ends the wait.
            wait: for an owner that is alive; else for the time only that it takes to tell.
            on_wait: told, in a sentence, once another machine is waited for.

        Returns:
            Whether it was taken.
        """
        while not (stop() or self._lock.is_locked):
            try:
                self._lock.acquire(timeout=LOOK_EVERY if wait else 0)
            except Timeout:
                if not wait:
                    return False
        if not self._lock.is_locked:
            return False
        taken = False
        try:
            taken = self._take_lease(stop, wait, on_wait)
        finally:
            if not taken:
                self._lock.release()
        if not taken:
            return False
        threading.Thread(target=self._keep, daemon=True).start()
        return True

    def release(self) -> None:
        """Give the folder back, if it was taken."""
        if not self._lock.is_locked:
            return
        self._over.set()
        with self._writing, suppress(OSError):
            if (self._read() or {}).get("owner") == self._owner:
                self._lease.unlink()
        self._lock.release()

    def check(self) -> None:
        """See that the folder is still this process's, before something is written into it.

        Raises:
            ClaimLostError: it is not.
        """
        with self._writing:
            if self._is_late():  # this process was asleep
                self._beat()
            else:
                self._look()
            if not self._lost and not self._is_late():
                return
        raise ClaimLostError(
            f"another machine took {self._lease.parent} over, as this process gave no sign of life"
        )

    def is_taken(self) -> bool:
        """Whether a process seems to have the folder; changes nothing.

        One of another machine may be dead. It is known to be once this has been asked again and again for a
        while, without a sign of life from it.
        """
        with suppress(Timeout, OSError), self._lock.acquire(timeout=0):
            found, now = self._read(), time.monotonic()
            if found != self._seen[0]:
                self._seen = found, now
            return found is None or not (self._is_own(found) or now - self._seen[1] > EXPIRY)
        return True  # or it is someone else's

    def _take_lease(self, stop: Callable[[], bool], wait: bool, on_wait: Callable[[str], None]) -> bool:
        """Write the lease once nobody else has one."""
        seen: dict[str, Any] | None = None
        since, changed, contested = time.monotonic(), False, False
        while not stop():
            now = self._read()
            if now is None:
                if not wait and time.monotonic() - since > EXPIRY:
                    return False
                time.sleep(LOOK_EVERY)
                continue
            if now != seen:
                changed = seen is not None
                seen, since = now, time.monotonic()
            if not now and self._create() and not (contested and self._is_replaced()):
                return True
            if not (contested or self._is_own(now)):
                contested = True
                on_wait(self._wait_for(now))
            if now and (self._is_own(now) or time.monotonic() - since > EXPIRY):
                self._remove(now)
                continue
            if changed and not wait:
                return False
            time.sleep(LOOK_EVERY)
        return False

    def _wait_for(self, lease: dict[str, Any]) -> str:
        host = str(lease.get("machine", "")).rpartition("-")[0] or "another machine"
        return (
            f"{self._lease.parent.name} was last held by {host}; "
            f"it is taken over if that gives no sign of life for {EXPIRY:.0f} seconds"
        )

    def _is_replaced(self) -> bool:
        """Whether another, who wanted a dead owner's folder too, has put back the lease that it found."""
        time.sleep(LOOK_EVERY)
        return (self._read() or {}).get("owner") != self._owner

    def _is_own(self, lease: dict[str, Any]) -> bool:
        """Whether a lease, if there is one, is of this machine: who has the lock need not mind it.

        A disk of this machine may be seen by others too, which have other names and kernels.
        """
        if not lease or lease.get("machine") == self._machine:
            return True
        name, _, boot = str(lease.get("machine", "")).rpartition("-")
        mine, _, now = self._machine.rpartition("-")
        return self._on_own_disk and (name == mine or (boot == now != ""))

    def _create(self) -> bool:
        """Write a lease where there is none, whole or not at all."""
        aside, began = self._aside, _clock()
        write_json(aside, self._content())
        try:
            os.link(aside, self._lease)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with self._lease.open("x") as file:
                    json.dump(self._content(), file)
            except FileExistsError:
                return False
        finally:
            aside.unlink(missing_ok=True)
        self._beaten, self._lost = began, False
        self._over.clear()
        for pattern in (f"*{self._lease.name}-{self._machine}-*", f".{self._lease.name}.*"):
            for half in self._lease.parent.glob(pattern):  # which the killed have left
                half.unlink(missing_ok=True)
        return True

    @property
    def _aside(self) -> Path:
        return self._lease.with_name(f"{self._lease.name}-{self._owner}")

    def _remove(self, dead: dict[str, Any]) -> None:
        """Remove the lease of an owner that is dead, unless another has removed it and taken the folder."""
        with suppress(FileNotFoundError):
            aside = self._lease.rename(self._aside)
            if self._read(aside) == dead:  # else its owner has given a sign of life in this moment
                aside.unlink()
            else:
                aside.rename(self._lease)

    def _keep(self) -> None:
        while not self._over.wait(BEAT) and not self._lost:
            with self._writing, suppress(OSError, SlimnetError):  # a file system that is away may come back
                if not self._over.is_set():
                    self._beat()
        if self._lost:
            self._on_lost()

    def _beat(self) -> None:
        """Give a sign of life, or find that the folder is another's."""
        began = _clock()
        if not self._look():
            return  # who has it shows once it can be read again
        self._beats += 1
        write_json(self._lease, self._content())
        if not self._on_own_disk and _clock() - began > EXPIRY - BEAT:
            self._lost = True  # it may be another's lease that was replaced
        self._beaten = began

    def _look(self) -> bool:
        """Look whether the folder is another's; False if it is, or cannot be told now.

        Without a lease it was given back by another, if there was the time to take it over; else someone has
        deleted the file.
        """
        found = self._read()
        if found is None or (found and found.get("owner") is None):
            return False
        self._lost = self._lost or (found["owner"] != self._owner if found else self._is_late())
        return not self._lost

    def _is_late(self) -> bool:
        """Whether so long without a sign of life from here that another may have taken the folder over."""
        return _clock() - self._beaten > EXPIRY - BEAT

    def _content(self) -> dict[str, Any]:
        return {"machine": self._machine, "owner": self._owner, "beats": self._beats}

    def _read(self, path: Path | None = None) -> dict[str, Any] | None:
        """What a lease holds; empty without one, and None while it cannot be read."""
        try:
            content = json.loads((path or self._lease).read_bytes())
            return content if isinstance(content, dict) else {"owner": None}
        except FileNotFoundError:
            return {}
        except ValueError:  # it is being written
            return {"owner": None}
        except OSError:  # a disk that is away for a moment, or too many open files
            return None
