"""The channel by which commands reach a running cluster: a unix socket in its state folder.

One connection is one question, a line of JSON, and its answer, another. The folder and the socket
are their owner's alone. Whether somebody answers is also how a command learns that a cluster runs:
the socket of a supervisor that was killed refuses every connection.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Literal, TypeVar

import msgspec

from relier.errors import RelierError

VERSION = 1
_PATIENCE_S = 5.0
_MOST_BYTES = 1 << 20

_T = TypeVar("_T")


class Request(msgspec.Struct, frozen=True):
    """What is asked: how it is, another number of workers, or its end.

    Args:
        what: `end` is answered when all has ended.
        size: how many workers, with `scale`.
        purge: whether the server's data goes, with `end`.
        version: of this format.
    """

    what: Literal["status", "scale", "end"]
    size: int = 0
    purge: bool = False
    version: int = VERSION


class PartFacts(msgspec.Struct, frozen=True):
    """One process as `rl cluster status` shows it; pid and uptime are None while it has none."""

    name: str
    pid: int | None
    state: str
    restarts: int
    uptime_s: float | None
    why: str


class Facts(msgspec.Struct, frozen=True):
    """A cluster as it is.

    Args:
        pid: the supervisor's.
        app: as `celery -A` takes it.
        server: its address, without a password.
        embedded: whether the server is the cluster's own.
        folder: its state folder.
        size: the wished number of workers.
        ready: whether every part works.
        ending: whether it is being ended.
        uptime_s: how long the supervisor runs.
        parts: the processes.
    """

    pid: int
    app: str
    server: str
    embedded: bool
    folder: str
    size: int
    ready: bool
    ending: bool
    uptime_s: float
    parts: list[PartFacts]
    version: int = VERSION


class Account(msgspec.Struct, frozen=True):
    """How a cluster ended.

    Args:
        drained: workers that ended by themselves.
        killed: those that had to be killed, or ended badly; what they ran comes back as after any
            death.
        kept: tasks that the embedded server keeps for the next run, by place; None: not known.
        why: why it ended unasked; "" if asked.
        took_s: how long ending took.
    """

    drained: int
    killed: int
    kept: dict[str, int] | None
    why: str
    took_s: float

    @property
    def clean(self) -> bool:
        """Return whether it ended when asked, and nothing had to be killed."""
        return not self.killed and not self.why


class Refusal(msgspec.Struct, frozen=True):
    """An answer that says why there is none."""

    refused: str


class Control:
    """The supervisor's end. Only the owner of the state folder may make one.

    Args:
        path: the socket; one that a killed supervisor left is replaced.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with suppress(FileNotFoundError):
            os.unlink(path)
        self._listening = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            self._listening.bind(path)
        finally:
            os.umask(before)
        self._listening.listen(16)
        self._listening.setblocking(False)

    def fileno(self) -> int:
        """Return what to wait for."""
        return self._listening.fileno()

    def next(self) -> tuple[Request, Asker] | None:
        """Return one question and who asks; None: there is none, or it was nonsense."""
        try:
            connection, _ = self._listening.accept()
        except OSError:
            return None
        connection.settimeout(1.0)
        asker = Asker(connection)
        try:
            request = msgspec.json.decode(_line(connection), type=Request)
        except (OSError, msgspec.DecodeError):
            asker.answer(Refusal("not understood: use the rl of the same version"))
            return None
        if request.version != VERSION:
            asker.answer(Refusal("the cluster runs another version of relier: use its rl"))
            return None
        return request, asker

    def close(self) -> None:
        """Answer no more."""
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        self._listening.close()


class Asker:
    """Who asked, and waits for one answer."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def answer(self, answer: Facts | Account | Refusal) -> None:
        """Send the answer; nobody may be there any more."""
        with suppress(OSError), self._connection as connection:
            connection.sendall(msgspec.json.encode(answer) + b"\n")


def status(path: str) -> Facts | None:
    """Return how the cluster is; None when none runs."""
    answer = _ask(path, Request("status"), _PATIENCE_S)
    return None if answer is None else _read(answer, Facts)


def scale(path: str, size: int) -> Facts | None:
    """Wish for another number of workers; return how it is now, None when none runs."""
    answer = _ask(path, Request("scale", size=size), _PATIENCE_S)
    return None if answer is None else _read(answer, Facts)


def end(path: str, *, purge: bool) -> Account | None:
    """Have the cluster end, and wait until it has; None when none runs."""
    answer = _ask(path, Request("end", purge=purge), None)
    return None if answer is None else _read(answer, Account)


def _ask(path: str, request: Request, timeout_s: float | None) -> bytes | None:
    """Return the answer; None: nobody listens there."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(path)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return None
        except PermissionError as error:
            raise RelierError(
                f"the cluster at {path} is another user's: ask as that one"
            ) from error
        try:
            connection.sendall(msgspec.json.encode(request) + b"\n")
            return _line(connection)
        except OSError as error:
            raise RelierError(
                f"the cluster did not answer ({error}): try again; see `rl cluster logs cluster`"
            ) from error


def _read(answer: bytes, wanted: type[_T]) -> _T:
    try:
        found = msgspec.json.decode(answer, type=dict)
        if "refused" in found:
            raise RelierError(f"the cluster refused: {found['refused']}")
        return msgspec.convert(found, wanted)
    except msgspec.DecodeError as error:
        raise RelierError(
            "the cluster ended before it answered: see `rl cluster logs cluster`"
        ) from error


def _line(connection: socket.socket) -> bytes:
    heard = b""
    while not heard.endswith(b"\n") and len(heard) < _MOST_BYTES:
        more = connection.recv(65536)
        if not more:
            break
        heard += more
    return heard
