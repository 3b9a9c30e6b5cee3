"""The saved outcome of a task: enough to send all that follows from it, again and elsewhere.

It is written beside the claim by ``commit`` (or by whoever buries a dead process's task) and read
back by the process that replays it. The format carries its version: an outcome of a newer version
is left for a newer worker.
"""

from __future__ import annotations

from typing import Any

import msgspec

VERSION = 1
FAILED = "failed"
"""Why a task that failed for good is a dead letter."""
HARD_TIMEOUT = "hard_timeout"
"""Why a task that was stopped is one."""
REJECTED = "rejected"
"""Why a task that raised ``Reject(requeue=False)`` is one."""
MIGRATION = "migration"
"""Why a task is one whose arguments could not be brought into their present shape."""


class Failure(msgspec.Struct, frozen=True):
    """An exception in the form Celery's JSON backends store it.

    Args:
        exc_type: class name.
        exc_module: its module.
        exc_message: its arguments, or its text.
        traceback: as text.
    """

    exc_type: str
    exc_module: str
    exc_message: list[str]
    traceback: str = ""


class Value(msgspec.Struct, frozen=True):
    """A return value, serialised as the result backend would."""

    content_type: str
    content_encoding: str
    data: bytes


class Message(msgspec.Struct, frozen=True):
    """A publish that was held back until the commit."""

    queue: str
    task_id: str
    token: str
    generation: int
    suffix: str
    delay_ms: int
    name: str
    raw: bytes
    expires_ms: int | str = ""


class Outcome(msgspec.Struct, frozen=True):
    """How an execution ended.

    Args:
        state: Celery's: SUCCESS, FAILURE, RETRY, IGNORED, REJECTED, REVOKED.
        value: of a success.
        failure: of a failure, or what caused a retry.
        next: the next generation of the same task.
        published: other publishes that the task held back (the header of a replacing chord).
        continued: the id goes on elsewhere, as a chord's body or a chain's end took it over.
        letter: why the task goes to the dead letters, or "" when it does not.
        children: the results of what the body dispatched, as Celery's tuples.
    """

    state: str
    value: Value | None = None
    failure: Failure | None = None
    next: Message | None = None
    published: list[Message] = []
    continued: bool = False
    letter: str = ""
    children: list[Any] = []
    version: int = VERSION


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Outcome)
_value_decoder = msgspec.msgpack.Decoder(Value)
_version = msgspec.msgpack.Decoder(dict[str, object])


class NewerOutcomeError(ValueError):
    """The outcome was written by a newer relier; a newer worker must replay it."""


def encode(outcome: Outcome) -> bytes:
    """Return the outcome as bytes."""
    return _encoder.encode(outcome)


def encode_value(value: Value) -> bytes:
    """Return a return value as bytes."""
    return _encoder.encode(value)


def decode_value(data: bytes) -> Value:
    """Read a return value."""
    return _value_decoder.decode(data)


def decode(data: bytes) -> Outcome:
    """Read an outcome.

    Raises:
        NewerOutcomeError: its version is beyond ours.
        msgspec.DecodeError: it is not an outcome at all.
    """
    try:
        outcome = _decoder.decode(data)
    except msgspec.ValidationError:
        found = _version.decode(data).get("version", 0)
        if isinstance(found, int) and found > VERSION:
            raise NewerOutcomeError(f"outcome version {found}, ours is {VERSION}") from None
        raise
    if outcome.version > VERSION:
        raise NewerOutcomeError(f"outcome version {outcome.version}, ours is {VERSION}")
    return outcome


def printable(text: str, most: int = 500) -> str:
    """Return text that every encoder takes: file names and exceptions may hold lone surrogates."""
    return text[:most].encode("utf-8", "backslashreplace").decode()


def timed_out(message: str) -> Outcome:
    """Return the outcome of a task that was stopped at its hard timeout."""
    failure = Failure("HardTimeoutError", "relier.errors", [message])
    return Outcome(state="FAILURE", failure=failure, letter=HARD_TIMEOUT)


def exhausted(reason: str, message: str) -> Outcome:
    """Return the outcome of a task that came back from the dead too often."""
    return Outcome(
        state="FAILURE",
        failure=Failure("MaxResurrectionsExceededError", "relier.errors", [message]),
        letter=reason,
    )
