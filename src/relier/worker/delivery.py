"""Turn a claimed element into the message that kombu delivers, or say why it cannot be one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import msgspec
from kombu.utils.json import loads

from relier.protocol import envelope, identity
from relier.protocol.envelope import Keyring, Seal, Verdict
from relier.protocol.identity import TOKEN_HEADER
from relier.store.claiming import Claimed, Unread
from relier.worker.grip import ETA_KEY, REQUEST_KEY
from relier.worker.membership import Held


class UnreadableError(ValueError):
    """The element is no message of kombu's; the text says what is wrong with it."""


class UntrustedError(ValueError):
    """Nobody who is trusted here vouches for the message; the text says why, and what to do.

    Args:
        seal: what came of verifying it.
    """

    def __init__(self, why: str, seal: Seal) -> None:
        super().__init__(why)
        self.seal = seal

    @property
    def newer(self) -> bool:
        """Return whether a newer worker may be able to verify it."""
        return self.seal.verdict is Verdict.NEWER


def read(claimed: Claimed, *, plain: bool = False) -> dict[str, Any]:
    """Decode an element of a list.

    Args:
        plain: make nothing but JSON's own types of it, whatever types it names.

    Raises:
        UnreadableError: it is not JSON, or lacks what every kombu message has.
    """
    try:
        payload = loads(claimed.raw, object_hook=None) if plain else loads(claimed.raw)
    except (ValueError, TypeError, RecursionError) as error:
        raise UnreadableError(f"not JSON: {error}") from error
    if not isinstance(payload, dict):
        raise UnreadableError("not a JSON object")
    properties = payload.get("properties")
    if not isinstance(properties, dict):
        raise UnreadableError("no properties")
    if not properties.get("delivery_tag"):
        raise UnreadableError("no delivery_tag among its properties")
    if not isinstance(properties.get("delivery_info"), dict):
        raise UnreadableError("no delivery_info among its properties")
    return payload


def verify(claimed: Claimed, keyring: Keyring) -> None:
    """Refuse a task message that nobody vouches for, before anything of it is believed.

    Raises:
        UntrustedError: its envelope is not one of ours, or there is none and there must be.
    """
    if not keyring.signs:
        return
    seal = keyring.judge(claimed.raw)
    if why := envelope.refusal(seal, keyring):
        raise UntrustedError(why, seal)


def adopt(claimed: Claimed, payload: dict[str, Any]) -> Held:
    """Let the claim's tag stand in for the message's, and the claim travel with the message.

    Two deliveries must never share a tag; and whoever handles the message must hold the right to
    it in hand, however often this process has changed its name meanwhile.

    Raises:
        UnreadableError: what a worker would trust is not what it must be.
    """
    properties = payload["properties"]
    tag = str(properties["delivery_tag"])
    who = Unread(*named(payload)[:2])
    held = Held(claimed.claim, tag, claimed.outcome, claimed.replays, who)
    properties["delivery_tag"] = claimed.claim.tag
    properties[REQUEST_KEY] = held
    return held


class Named(NamedTuple):
    """What a message says it is; all "" when it carries no task."""

    task_id: str
    token: str
    name: str


def named(payload: dict[str, Any]) -> Named:
    """Return which task a message says it is, and by which publish.

    Raises:
        UnreadableError: its headers are not a task's.
    """
    headers = payload.get("headers")
    if headers is None or (isinstance(headers, dict) and "task" not in headers):
        return Named("", "", "")
    try:
        found = msgspec.convert(headers, _Headers)
        f"{found.id}{found.task}".encode()
        who = identity.identify(headers, str(payload["properties"]["delivery_tag"]))
    except (msgspec.ValidationError, UnicodeEncodeError, ValueError, OverflowError) as error:
        raise UnreadableError(f"its headers are not a task's: {error}") from error
    return Named(who.task_id, who.token, who.name)


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)] | None


class _Headers(msgspec.Struct):
    """What Celery and the scripts trust in a task message's headers; the rest is free."""

    id: _Name
    task: _Name
    retries: Annotated[int, msgspec.Meta(ge=0, le=2**31)] | None = None
    replaced_task_nesting: Annotated[int, msgspec.Meta(ge=0, le=2**20)] | None = None
    timelimit: tuple[_Seconds, _Seconds] | None = None
    headers: dict[str, Any] | None = None
    stamps: dict[str, Any] | None = None
    stamped_headers: list[str] | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    shadow: str | None = None
    rl_v: Annotated[int, msgspec.Meta(ge=1, le=2**31)] | None = None


def early_by_ms(payload: dict[str, Any]) -> int:
    """Return how long a delivered task message should still wait, and strip its eta if it need not.

    What relier enqueued waited on the server's clock and is due, whatever the eta says: Celery's
    own timer would hold it again. A stock producer's eta is read by this machine's clock, as a
    stock worker would.

    Raises:
        UnreadableError: its eta is no time.
    """
    headers = payload.get("headers")
    if not isinstance(headers, dict) or not headers.get("eta"):
        return 0
    if headers.get(TOKEN_HEADER):
        _set_aside_eta(payload)
        return 0
    try:
        early_ms = until_ms(headers["eta"])
    except ValueError as error:
        raise UnreadableError(f"its eta is no time: {error}") from error
    if early_ms <= 0:
        _set_aside_eta(payload)
    return max(early_ms, 0)


def _set_aside_eta(payload: dict[str, Any]) -> None:
    """Hide the eta from Celery's timer; the task is to see it all the same."""
    headers = payload["headers"]
    payload["properties"][ETA_KEY], headers["eta"] = headers["eta"], None


def until_ms(eta: object) -> int:
    """Return the ms from now until an ISO 8601 eta.

    Raises:
        ValueError: it is none.
    """
    due = datetime.fromisoformat(str(eta))
    if due.tzinfo is None:
        due = due.replace(tzinfo=UTC)
    return int((due - datetime.now(UTC)).total_seconds() * 1000)
