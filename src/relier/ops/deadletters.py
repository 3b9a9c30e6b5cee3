"""One dead letter: why, with what, and what happened to its task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from relier.errors import CheckpointError
from relier.ops import messages, payload, saved
from relier.ops.events import Event
from relier.ops.messages import Signature
from relier.ops.saved import Saved
from relier.ops.timeline import Subject, of_task
from relier.protocol import checkpoint
from relier.protocol.envelope import Keyring
from relier.store import fleet, reading
from relier.store.checkpoint_files import CheckpointFiles
from relier.store.client import Store

_NEWEST = 1000
_MOST_ALIKE = 3


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter.

    Args:
        fingerprint: of its error; "" in one of an older relier.
        readable: whether its message is a task message that can be released as such.
        args, kwargs: what its task was called with: as JSON where the message has it, else as the
            producer printed it.
        raw: the message as it came; bytes that are no text are written as backslashes.
        size_bytes: of the message.
        checkpoint: what the task saved last, or None; a release hands it on.
        state: that itself, where it can be read here.
        life: which one of this id it was; the runs and deaths are of that one life.
        runs: how often it was begun.
        deaths: how often its own process died under it.
        interruptions: how often its worker died, with others at work in it.
        schema_version: of its arguments; 0 when it cannot be read.
        signature: of a task message: who vouches for it, as far as the keys here can tell.
        timeline: what happened to the task, as far as the event streams reach back.
        left_out: whether something is too large to be read without asking for all of it.
    """

    letter_id: str
    queue: str
    name: str
    reason: str
    error: str
    fingerprint: str
    traceback: str
    at_ms: int
    readable: bool
    args: str
    kwargs: str
    retries: int
    size_bytes: int
    raw: str
    checkpoint: Saved | None
    state: str
    life: int
    runs: int
    deaths: int
    interruptions: int
    schema_version: int
    signature: Signature | None
    timeline: tuple[Event, ...]
    left_out: bool
    now_ms: int


class Alike(NamedTuple):
    """Ids of dead letters: a few that begin with what was given, and the newest."""

    begin_so: list[str]
    newest: list[str]


def inspect(
    store: Store,
    letter_id: str,
    keyring: Keyring,
    *,
    files: CheckpointFiles | None = None,
    whole: bool = False,
) -> Letter | None:
    """Read one dead letter and its task's history; None when there is none.

    Args:
        keyring: the keys to verify its message with.
        files: where large checkpoints are, if they can be read here.
        whole: read it all, whatever its size.
    """
    queues = fleet.known_queues(store)
    found = _find(store, letter_id, queues, whole=whole)
    if found is None:
        return None
    queue, fields = found
    raw = reading.unwrap(fields.get("parcel", b"|")).raw
    message = messages.read(raw)
    args, kwargs = payload.spelled(raw, message.args, message.kwargs) if message else ("", "")
    return Letter(
        letter_id=letter_id,
        queue=queue,
        name=_text(fields, "name") or (message.name if message else ""),
        reason=_text(fields, "reason"),
        error=_text(fields, "error"),
        fingerprint=_text(fields, "fp"),
        traceback=_text(fields, "traceback"),
        at_ms=_number(fields, "at_ms"),
        readable=message is not None,
        args=args,
        kwargs=kwargs,
        retries=message.retries if message else 0,
        size_bytes=len(raw) or reading.letter_sizes(store, queue, letter_id)["parcel"],
        raw=raw.decode(errors="backslashreplace"),
        checkpoint=saved.read(_text(fields, "cp")),
        state=_state(fields, files),
        life=_number(fields, "life") or 1,
        runs=_number(fields, "runs"),
        deaths=_number(fields, "deaths"),
        interruptions=_number(fields, "interruptions"),
        schema_version=message.schema_version if message else 0,
        signature=messages.signature(raw, keyring),
        timeline=of_task(
            store,
            Subject(message.task_id if message else letter_id, queue, _text(fields, "h")),
            queues,
        ),
        left_out="parcel" not in fields,
        now_ms=reading.now_ms(store),
    )


def alike(store: Store, letter_id: str) -> Alike:
    """Return what may be meant by the id of a dead letter that is not there."""
    queues = fleet.known_queues(store)
    begin_so: list[str] = []
    for queue in queues:
        room = _MOST_ALIKE - len(begin_so)
        begin_so += reading.letters_beginning(store, queue, letter_id, room) if room else []
    most = _NEWEST // max(len(queues), 1)
    newest = [each for queue in queues for each, _ in reading.dead(store, queue, most)]
    return Alike(begin_so, newest)


def _find(
    store: Store, letter_id: str, queues: list[str], *, whole: bool
) -> tuple[str, dict[str, bytes]] | None:
    for queue in queues:
        fields = reading.letter(store, queue, letter_id, whole=whole)
        if fields is not None:
            return queue, fields
    return None


def _state(fields: dict[str, bytes], files: CheckpointFiles | None) -> str:
    """Return the encoded state of a checkpoint; "" where it is out of reach."""
    if "cp" not in fields:
        return ""
    place = checkpoint.read(_text(fields, "cp")).place
    if place is None:
        return _text(fields, "cd")
    try:
        return files.read(place).decode(errors="backslashreplace") if files else ""
    except CheckpointError:
        return ""


def _text(fields: dict[str, bytes], name: str) -> str:
    return fields.get(name, b"").decode(errors="backslashreplace")


def _number(fields: dict[str, bytes], name: str) -> int:
    return int(fields.get(name, b"0"))
