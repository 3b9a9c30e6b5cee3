"""Dead letters: look at them, and give them another life."""

from __future__ import annotations

import json
from dataclasses import dataclass

from relier.errors import PayloadError, PayloadIntegrityError
from relier.ops import events, messages, saved
from relier.ops.events import Event
from relier.ops.messages import Signature
from relier.ops.saved import Saved
from relier.protocol.envelope import Keyring, Verdict, refusal
from relier.protocol.identity import TOKEN_HEADER, generation, mint_token
from relier.store import fleet, letters, reading
from relier.store.client import Store
from relier.store.publishing import Outgoing


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter.

    Args:
        readable: whether its message is a task message that can be released as such.
        raw: the message as it came.
        checkpoint: what the task saved last, or None; a release hands it on.
        schema_version: of its arguments; 0 when it cannot be read.
        signature: of a task message: who vouches for it, as far as the keys here can tell.
        timeline: what happened to the task, as far as the event streams reach back.
    """

    letter_id: str
    queue: str
    name: str
    reason: str
    error: str
    traceback: str
    at_ms: int
    readable: bool
    args: str
    kwargs: str
    retries: int
    size_bytes: int
    raw: str
    checkpoint: Saved | None
    schema_version: int
    signature: Signature | None
    timeline: tuple[Event, ...]
    now_ms: int


@dataclass(frozen=True, slots=True)
class Release:
    """What a release did.

    Args:
        released: False when somebody else was quicker.
        alive: the task was dispatched anew and lives; its letter stays until that has ended.
    """

    letter_id: str
    queue: str
    name: str
    released: bool
    alive: bool
    raw: bool


def inspect(store: Store, letter_id: str, keyring: Keyring) -> Letter | None:
    """Read one dead letter and its task's history; None when there is none.

    Args:
        keyring: the keys to verify its message with.
    """
    queues = fleet.known_queues(store)
    found = _find(store, letter_id, queues)
    if found is None:
        return None
    queue, fields = found
    raw = reading.unwrap(fields.get("parcel", b"|")).raw
    message = messages.read(raw)
    return Letter(
        letter_id=letter_id,
        queue=queue,
        name=_text(fields, "name") or (message.name if message else ""),
        reason=_text(fields, "reason"),
        error=_text(fields, "error"),
        traceback=_text(fields, "traceback"),
        at_ms=int(fields.get("at_ms", b"0")),
        readable=message is not None,
        args=message.args if message else "",
        kwargs=message.kwargs if message else "",
        retries=message.retries if message else 0,
        size_bytes=len(raw),
        raw=raw.decode(errors="replace"),
        checkpoint=saved.read(_text(fields, "cp")),
        schema_version=message.schema_version if message else 0,
        signature=messages.signature(raw, keyring),
        timeline=events.of_task(store, queues, message.task_id if message else letter_id),
        now_ms=reading.now_ms(store),
    )


def release(
    store: Store, letter_id: str, keyring: Keyring, *, raw: bool = False, trust: bool = False
) -> Release | None:
    """Put a dead letter back into its queue, as a new life of its task.

    Its publish gets a new token, and so does all that follows from it: nothing is taken for a
    repeat of what the old life did. What was signed is signed anew.

    Args:
        keyring: the keys to verify its message with, and to sign it.
        raw: put a message that cannot be read back byte by byte.
        trust: vouch for a message that does not verify: sign it, or, without a key, strip it of
            its envelope.

    Returns:
        What was done; None when there is no such letter.

    Raises:
        PayloadError: the message is not readable and ``raw`` was not asked for.
        PayloadIntegrityError: the message does not verify and ``trust`` was not asked for.
    """
    found = _find(store, letter_id, fleet.known_queues(store))
    if found is None:
        return None
    queue, fields = found
    suffix, message = reading.unwrap(fields.get("parcel", b"|"))[:2]
    outgoing = _renewed(suffix, message, keyring, trust=trust)
    if outgoing is None and raw:
        outgoing = Outgoing(letter_id, mint_token(), 0, suffix, 0, "", message)
    if outgoing is None:
        raise PayloadError(
            f"the message of {letter_id} is no task message and would only come back here; "
            "--raw releases it as it came"
        )
    at_ms = int(fields.get("at_ms", b"0"))
    done = store.run(letters.revive(store.keys, queue, letter_id, outgoing, at_ms))
    return Release(letter_id, queue, outgoing.name, done == 1, done == -1, raw)


def _renewed(suffix: str, raw: bytes, keyring: Keyring, *, trust: bool) -> Outgoing | None:
    """Return the message with a token and a delivery tag of its own."""
    message = messages.read(raw)
    if message is None:
        return None
    payload = json.loads(raw)
    headers, properties = payload["headers"], payload.get("properties")
    if not isinstance(properties, dict):
        return None
    try:
        position = generation(headers)
    except (ValueError, TypeError):
        return None
    vouched = trust or _verifies(raw, keyring, message.task_id)
    token = mint_token()
    headers[TOKEN_HEADER] = token
    properties["delivery_tag"] = token
    renewed = json.dumps(payload)
    if vouched:
        renewed = messages.signed_anew(renewed, keyring)
    return Outgoing(message.task_id, token, position, suffix, 0, message.name, renewed)


def _verifies(raw: bytes, keyring: Keyring, task_id: str) -> bool:
    """Return whether a message is to be signed anew; one that nobody signed stays so.

    Raises:
        PayloadIntegrityError: to sign it would make a message good that is not.
    """
    seal = keyring.judge(raw)
    if seal.verdict is Verdict.UNCHECKED:
        raise PayloadIntegrityError(
            f"the message of {task_id} is signed by key {seal.key_id} and must be signed anew: "
            "set RELIER_SECRET_KEY here, as in the workers; or --trust releases it unsigned"
        )
    if why := refusal(seal, keyring):
        raise PayloadIntegrityError(
            f"{why}. Look at it with `rl dlq inspect`; --trust releases it all the same, "
            "in your name"
        )
    return seal.verdict is Verdict.VERIFIED


def _find(store: Store, letter_id: str, queues: list[str]) -> tuple[str, dict[str, bytes]] | None:
    for queue in queues:
        fields = reading.letter(store, queue, letter_id)
        if fields is not None:
            return queue, fields
    return None


def _text(fields: dict[str, bytes], name: str) -> str:
    return fields.get(name, b"").decode(errors="replace")
