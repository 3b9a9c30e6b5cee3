"""Give a dead letter a new life, as it was or with other arguments."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from relier.errors import PayloadError, PayloadIntegrityError
from relier.ops import messages, payload
from relier.protocol.envelope import Keyring, Verdict, refusal
from relier.protocol.identity import TOKEN_HEADER, generation, mint_token
from relier.store import fleet, letters, reading
from relier.store.client import Store
from relier.store.publishing import Outgoing


@dataclass(frozen=True, slots=True)
class Order:
    """How letters are to live again.

    Args:
        raw: put a message that cannot be read back byte by byte.
        trust: vouch for a message that does not verify: sign it, or, without a key, strip it of
            its envelope.
        late: let one run whose `expires` has passed.
        max_resurrections: the new life's own limit; None leaves the task's.
        args: other positional arguments, in the shape of the message's own schema version.
        kwargs: other keyword arguments, likewise.
    """

    raw: bool = False
    trust: bool = False
    late: bool = False
    max_resurrections: int | None = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One dead letter as it was found; its name may be another's by the time it is released."""

    letter_id: str
    queue: str
    at_ms: int
    suffix: str
    message: bytes


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


def find(store: Store, letter_id: str, queues: list[str] | None = None) -> Found | None:
    """Find a dead letter in some queues, or in all."""
    for queue in fleet.known_queues(store) if queues is None else queues:
        found = reading.letter_message(store, queue, letter_id)
        if found is not None:
            suffix, message = reading.unwrap(found[1])[:2]
            return Found(letter_id, queue, found[0], suffix, message)
    return None


def release(store: Store, found: Found, keyring: Keyring, order: Order) -> Release:
    """Put a dead letter back into its queue, as a new life of its task.

    Its publish gets a new token, and so does all that follows from it: nothing is taken for a
    repeat of what the old life did. What was signed is signed anew. Of two that release one letter
    one does.

    Args:
        keyring: the keys to verify its message with, and to sign it.

    Raises:
        PayloadError: the message is not readable and ``raw`` was not asked for, its arguments
            cannot be changed, or it has expired and ``late`` was not asked for.
        PayloadIntegrityError: the message does not verify and ``trust`` was not asked for.
    """
    outgoing = _renewed(store, found, keyring, order)
    if outgoing is None and order.raw and order.args is None and order.kwargs is None:
        outgoing = Outgoing(found.letter_id, mint_token(), 0, found.suffix, 0, "", found.message)
    if outgoing is None:
        raise PayloadError(
            f"the message of {found.letter_id} is no task message and would only come back here; "
            "--raw releases it as it came"
        )
    done = store.run(
        letters.revive(
            store.keys,
            found.queue,
            found.letter_id,
            outgoing,
            found.at_ms,
            order.max_resurrections,
        )
    )
    return Release(found.letter_id, found.queue, outgoing.name, done == 1, done == -1, order.raw)


def _renewed(store: Store, found: Found, keyring: Keyring, order: Order) -> Outgoing | None:
    """Return the message with a token and a delivery tag of its own."""
    message = messages.read(found.message)
    if message is None:
        return None
    outer = json.loads(found.message)
    headers, properties = outer["headers"], outer.get("properties")
    if not isinstance(properties, dict):
        return None
    try:
        position = generation(headers)
    except (ValueError, TypeError):
        return None
    vouched = order.trust or _verifies(found.message, keyring, message.task_id)
    token = mint_token()
    headers[TOKEN_HEADER] = token
    properties["delivery_tag"] = token
    left_ms = _left_ms(headers.get("expires"), reading.now_ms(store))
    if left_ms != "" and left_ms < 0:
        if not order.late:
            raise PayloadError(
                f"{found.letter_id} expired on {headers['expires']} and would end at once as "
                "expired: --late lets it run all the same"
            )
        headers["expires"], left_ms = None, ""
    if order.args is not None or order.kwargs is not None:
        payload.change(outer, order.args, order.kwargs)
    renewed = json.dumps(outer)
    if vouched:
        renewed = messages.signed_anew(renewed, keyring)
    return Outgoing(
        message.task_id, token, position, found.suffix, 0, message.name, renewed, left_ms
    )


def _left_ms(expires: object, now_ms: int) -> int | Literal[""]:
    """Return the ms until a moment; "" without one that can be read: the worker judges that."""
    try:
        moment = datetime.fromisoformat(str(expires))
    except ValueError:
        return ""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1000) - now_ms


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
