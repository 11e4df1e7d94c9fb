"""Standard output and standard error, which may go away: a closed pipe or terminal, a full device."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from slimnet.errors import SlimnetError

Loss = Callable[[OSError], None]


class _Stream(io.FileIO):
    """A file descriptor; its first failure to be written is handled, and what it does not take is dropped."""

    def __init__(self, descriptor: int, on_loss: Loss) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.on_loss = on_loss
        self._is_terminal = super().isatty()

    def isatty(self) -> bool:
        """Whether it is or was a terminal: one that is closed is found out by writing to it."""
        return self._is_terminal

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            handle, self.on_loss = self.on_loss, _ignore
            handle(error)
            return memoryview(data).nbytes


def guard_streams() -> None:
    """Let this process print whatever it has to, to whatever there is.

    Characters such as λ that the encoding of an output lacks become "?". When the reader of standard output
    has gone, as that of `| head -1`, the process ends by SIGPIPE, as other tools do; on a full device it ends
    with a SlimnetError. What standard error does not take is dropped.
    """
    for name, descriptor, on_loss in (("stdout", 1, _end), ("stderr", 2, _ignore)):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started this process
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for the life of the process
        elif stream is getattr(sys, f"__{name}__"):
            raw = io.BufferedWriter(_Stream(descriptor, on_loss))
            lines = stream.line_buffering
            guarded = io.TextIOWrapper(raw, stream.encoding, "replace", line_buffering=lines)
            setattr(sys, name, guarded)
        else:
            stream.reconfigure(errors="replace")


def outlive_output(told: Callable[[str], None]) -> None:
    """Let this process go on without its standard output, should that go away.

    A terminal that is closed counts as a SIGHUP, unless SIGHUP is ignored.

    Args:
        told: called once with the reason, if it has.
    """

    stream = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(stream, _Stream):
        return
    is_terminal = stream.isatty()

    def go_on(error: OSError) -> None:
        if error.errno == errno.EIO and is_terminal and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.raise_signal(signal.SIGHUP)
        else:
            told(error.strerror or str(error))

    stream.on_loss = go_on


def _ignore(error: OSError) -> None:
    pass


def _end(error: OSError) -> NoReturn:
    if error.errno == errno.EPIPE:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.raise_signal(signal.SIGPIPE)
    raise SlimnetError(f"the output cannot be written ({error.strerror}); send it somewhere else") from error
