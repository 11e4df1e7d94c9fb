"""Objects at a URL, through fsspec: each appears whole or not at all, and every wait has an end.

Credentials are those that the library of the protocol finds in its environment; none is held here.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from slimnet.errors import SlimnetError
from slimnet.files import aside_of
from slimnet.wording import first_line

ANSWER = 20.0  # seconds for an answer about a small object
STILL = 60.0  # seconds without any progress of a large one
PATIENCE = 10.0  # seconds in which what has failed is tried again
PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before the next try, which doubles up to the longest
REST = 20.0  # seconds for which a place that was out of reach is not asked again, as others wait meanwhile
TELLS_AGAIN = 300.0  # seconds between two sentences on an outage
CHUNK = 5 * 2**20  # bytes of a large object that are moved at once; S3 takes no smaller parts

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
PACKAGES |= dict.fromkeys(("abfs", "abfss", "az"), "adlfs")
WHOLE = {*PACKAGES, "memory", "oss", "oci"}  # where a write is seen at its end, and there are no folders
CONDITIONAL = {"s3", "s3a"}  # where a write may depend on what is there
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2}}}
}
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile; AWS_ENDPOINT_URL if not Amazon's",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}

Answer = TypeVar("Answer")
Progress = Callable[[], None]  # says that an answer comes nearer; raises once nobody waits for it
Warn = Callable[[str], None]

logger = logging.getLogger("sweeps.stages")


class UnreachableError(SlimnetError):
    """A place cannot be reached now, or refuses what is asked of it.

    Attributes:
        what: that, as a sentence.
    """

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(f"{what}; {advice}" if advice else what)
        self.what = what


class OpenFile:
    """A file as it was when it was opened, whatever takes its place; closed once nobody refers to it.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._number = -1
        self._number = os.open(path, os.O_RDONLY)
        found = os.fstat(self._number)
        self.stat = (found.st_size, found.st_mtime_ns)

    def __del__(self) -> None:
        if self._number >= 0:
            os.close(self._number)

    def chunks(self) -> Iterator[bytes]:
        """The content, also for several threads at once."""
        at = 0
        while chunk := os.pread(self._number, CHUNK, at):
            at += len(chunk)
            yield chunk


class Remote:
    """The objects below a URL, by their names.

    Methods raise UnreachableError once they have tried for a while, and SlimnetError if a package is missing.

    Args:
        url: such as s3://bucket/prefix.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.protocol = url.partition("://")[0].lower()
        self._files: Any = None
        self._root = ""
        self._out: tuple[float, str] = (-REST, "")  # when it was out of reach, and why
        self._fetched: dict[str, bytes | None] = {}  # in advance
        self._late: dict[str, _Try[Any]] = {}  # writes that had no answer in time, by what they write

    def __reduce__(self) -> tuple[Any, ...]:
        return Remote, (self.url,)  # connections belong to a process

    def __str__(self) -> str:
        return self.url

    @property
    def module(self) -> str:
        """The module of the protocol, which takes a while to import; empty if it is not known."""
        from fsspec.registry import known_implementations

        return str(known_implementations.get(self.protocol, {}).get("class", "")).rpartition(".")[0]

    def read(self, name: str) -> bytes | None:
        """A small object; None if there is none."""
        if name in self._fetched:
            return self._fetched.pop(name)
        try:
            return bytes(self._ask(lambda _: self._files.cat_file(self._path(name), start=0)))
        except FileNotFoundError:
            return None

    def fetch(self, names: Sequence[str]) -> None:
        """Get many small objects at once; the next `read` of each takes it from here."""
        paths = [self._path(name) for name in names] if self._opened() else []
        for begin in range(0, len(paths), 500):
            part = paths[begin : begin + 500]
            found = self._ask(lambda _, part=part: self._files.cat(part, on_error="return", start=0))  # type: ignore[misc]
            for name, path in zip(names[begin:], part, strict=False):
                content = found.get(path, FileNotFoundError())
                if isinstance(content, bytes):
                    self._fetched[name] = content
                elif isinstance(content, FileNotFoundError):
                    self._fetched[name] = None  # other errors are met by `read`, which tries again

    def write(self, name: str, content: bytes) -> None:
        """Write a small object in place of the one that is there, if any."""
        self._fetched.pop(name, None)
        self._ask(lambda go: self._put(name, lambda path: self._files.pipe_file(path, content), go), name)

    def create(self, name: str, content: bytes) -> bool:
        """Write a small object; False if there is another, which stays."""

        def put(progress: Progress) -> None:
            self._make_parent(name)
            progress()
            self._files.pipe_file(self._path(name), content, mode="create")

        try:
            self._ask(put, name)
        except FileExistsError:
            return self.look(name)[0] == content  # the answer to an earlier try was lost
        return True

    def look(self, name: str) -> tuple[bytes | None, str | None]:
        """A small object as it is now, None if there is none; and what `replace` knows it by."""
        self._fetched.pop(name, None)
        tag = None
        if self.protocol in CONDITIONAL:  # before the content, so that a change in between is noticed
            try:
                tag = str(self._ask(lambda _: self._files.info(self._path(name)))["ETag"])
            except FileNotFoundError:
                return None, None
        return self.read(name), tag

    def replace(self, name: str, content: bytes, tag: str | None) -> bool:
        """Write a small object in place of the one that `look` has seen, or where it has seen none.

        Returns:
            False if there is another by now, where the place can tell: then that stays.
        """
        if self.protocol not in CONDITIONAL:
            self.write(name, content)
            return True
        condition = {"mode": "create"} if tag is None else {"IfMatch": tag}

        def put(progress: Progress) -> None:
            try:
                self._files.pipe_file(self._path(name), content, **condition)
            except OSError as error:
                if (tag is None or not isinstance(error, FileNotFoundError)) and not _is_refused(error):
                    raise
                raise FileExistsError from error

        try:
            self._ask(put, name)
        except FileExistsError:
            return self.look(name)[0] == content  # the answer to an earlier try was lost
        return True

    def delete(self, *names: str) -> None:
        """Delete objects; those that are not there are none."""
        for name in names:
            try:
                self._ask(lambda _, name=name: self._files.rm_file(self._path(name)), name)  # type: ignore[misc]
            except FileNotFoundError:
                continue

    def names(self, folder: str) -> list[str]:
        """The names of the objects in a folder."""
        try:
            found = self._ask(lambda _: self._files.ls(self._path(folder), detail=False))
        except FileNotFoundError:
            return []
        return [f"{folder}/{path.rstrip('/').rpartition('/')[2]}" for path in found]

    def upload(self, name: str, file: OpenFile) -> None:
        """Write a large object, under a name that none has; of a folder, one at a time."""

        def put(progress: Progress) -> None:
            def write(path: str) -> None:
                with self._files.open(path, "wb", block_size=CHUNK) as target:
                    for chunk in file.chunks():
                        target.write(chunk)
                        progress()

            self._put(name, write, progress)

        self._ask(put, name.rpartition("/")[0], STILL)

    def download(self, name: str, path: Path, size: int) -> None:
        """Write a large object to a file of this disk.

        Raises:
            FileNotFoundError: there is none.
            UnreachableError: what has come is not of this size.
        """

        def get(progress: Progress) -> Path:
            aside = aside_of(path)
            with (
                aside.open("xb") as target,
                self._files.open(self._path(name), "rb", block_size=CHUNK, cache_type="none") as source,
            ):
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    progress()
                if target.tell() != size:
                    raise OSError(f"{name} came with {target.tell()} of {size} bytes")
            return aside

        self._ask(get, str(path), STILL).replace(path)  # here, as nobody waits for a late answer

    def check(self) -> None:
        """See that objects can be written, and read and deleted again."""
        name = f".probe-{secrets.token_hex(4)}"
        try:
            self.write(name, b"slimnet")
        except FileNotFoundError as error:
            raise self._unreachable(f"there is no such bucket or folder: {error}") from error
        if self.read(name) != b"slimnet":
            raise self._unreachable("what was written is not what is read")
        self.delete(name)

    def _path(self, name: str) -> str:
        self._opened()
        return f"{self._root}/{name}"

    def _put(self, name: str, write: Callable[[str], object], progress: Progress) -> None:
        """Have an object written; where a write is seen before its end, aside, and renamed."""
        path = self._path(name)
        if self.protocol in WHOLE:
            write(path)
            return
        self._make_parent(name)
        aside = f"{path}.{secrets.token_hex(4)}.part"
        try:
            write(aside)
            progress()
        except TimeoutError:
            self._files.rm_file(aside)
            raise
        self._files.mv(aside, path)

    def _make_parent(self, name: str) -> None:
        if self.protocol not in WHOLE:
            self._files.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)

    def _opened(self) -> bool:
        """Have the library of the protocol ready, which reads its credentials."""
        if self._files is None:
            self._files, self._root = _open(self.url, self.protocol)
        return True

    def _ask(
        self, question: Callable[[Progress], Answer], writes: str = "", bound: float | None = None
    ) -> Answer:
        """The answer to a question, which is asked again for a while if there is none.

        Args:
            question: asked in a thread, which is left alone if it has no answer in time.
            writes: what it writes, if anything. Of two that write the same, the second begins when the first
                has ended, as what comes late would undo it.
            bound: seconds without an answer or progress; ANSWER if not given.

        Raises:
            FileNotFoundError, FileExistsError: as the question.
            UnreachableError: there is no answer.
        """
        self._opened()
        began, pause = time.monotonic(), PAUSE
        if began - self._out[0] < REST:
            raise self._unreachable(self._out[1])
        while True:
            try:
                return self._tried(question, writes, ANSWER if bound is None else bound)
            except (FileNotFoundError, FileExistsError):
                raise
            except Exception as error:  # each library has its own
                now = time.monotonic()
                if isinstance(error, PermissionError) or now - began + pause > PATIENCE:
                    self._out = now, first_line(error)
                    raise self._unreachable(self._out[1]) from error
            time.sleep(pause)
            pause *= 2

    def _tried(self, question: Callable[[Progress], Answer], writes: str, bound: float) -> Answer:
        """The answer to a question that is asked once.

        Raises:
            TimeoutError: there is none in time.
        """
        former = self._late.get(writes)
        if former is not None:
            if not former.has_ended(bound):
                raise TimeoutError(f"no answer within {bound:.0f} seconds")
            del self._late[writes]
        asked = _Try(question)
        try:
            return asked.answer(bound)
        except TimeoutError:
            if writes and not asked.has_ended(0):
                self._late[writes] = asked
            raise

    def _unreachable(self, reason: str) -> UnreachableError:
        hint = CREDENTIALS.get(self.protocol)
        where = f", and that its credentials are in the environment ({hint})" if hint else ""
        return UnreachableError(
            f"the stages at {self.url} cannot be reached ({reason})", f"see that the address is right{where}"
        )


def when_reachable(
    action: Callable[[], None], stop: Callable[[], bool], warn: Warn, meanwhile: str = "it is waited for"
) -> bool:
    """Do something once a place can be reached.

    Args:
        action: raises UnreachableError while it cannot.
        stop: whether to give up.
        warn: told, in a sentence, of an outage; again after a while, so that the wait is no stall.
        meanwhile: what happens, for that sentence.

    Returns:
        False if `stop` ended the wait.
    """
    pause, told = PAUSE, -TELLS_AGAIN
    while not stop():
        try:
            action()
        except UnreachableError as error:
            if time.monotonic() - told >= TELLS_AGAIN:
                told = time.monotonic()
                warn(f"{error.what}; {meanwhile}")
            end = time.monotonic() + pause
            while time.monotonic() < end and not stop():
                time.sleep(min(0.2, pause))
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            return True
    return False


def _open(url: str, protocol: str) -> tuple[Any, str]:
    """The file system of a URL, and the path of it there."""
    try:
        import fsspec
    except ImportError:
        raise SlimnetError(f"stages at {url} need the package fsspec: pip install fsspec s3fs") from None
    options = {} if protocol in fsspec.config.conf else OPTIONS.get(protocol, {})
    try:
        files, path = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:
        package = PACKAGES.get(protocol)
        how = f"need the package {package}: pip install {package}" if package else f"need a package: {error}"
        raise SlimnetError(f"stages at {url} {how}") from None
    except ValueError as error:
        raise SlimnetError(f"stages are at {url}, which cannot be read: {error}") from None
    return files, str(path).rstrip("/")


class _Try(Generic[Answer]):
    """A question in a thread of its own, as it may never be answered."""

    def __init__(self, question: Callable[[Progress], Answer]) -> None:
        self._question = question
        self._answers: SimpleQueue[tuple[Answer | None, BaseException | None]] = SimpleQueue()
        self._moved = time.monotonic()
        self._given_up = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def answer(self, bound: float) -> Answer:
        """The answer.

        Args:
            bound: seconds without progress, after which it is given up.

        Raises:
            TimeoutError: it was given up.
        """
        while True:
            try:
                answer, error = self._answers.get(timeout=max(self._moved + bound - time.monotonic(), 0))
                break
            except Empty:
                if time.monotonic() - self._moved >= bound:
                    self._given_up = True
                    raise TimeoutError(f"no answer within {bound:.0f} seconds") from None
        if error is not None:
            raise error
        return answer  # type: ignore[return-value]

    def has_ended(self, bound: float) -> bool:
        """Whether the thread ends within some seconds."""
        self._thread.join(bound)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._answers.put((self._question(self._progress), None))
        except BaseException as error:
            self._answers.put((None, error))

    def _progress(self) -> None:
        if self._given_up:
            raise TimeoutError("it was given up")
        self._moved = time.monotonic()


def _is_refused(error: OSError) -> bool:
    """Whether a write was refused, as what is there is not what it should take the place of."""
    response = getattr(error.__cause__, "response", None) or {}
    return isinstance(error, FileExistsError) or response.get("Error", {}).get("Code") in (
        "PreconditionFailed",
        "412",
    )
