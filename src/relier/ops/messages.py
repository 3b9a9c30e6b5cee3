"""What a raw message says about itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from relier.protocol import envelope
from relier.protocol.envelope import Keyring, Verdict
from relier.protocol.migrations import VERSION_HEADER


class _Headers(msgspec.Struct):
    id: object = None
    task: object = None


class _Payload(msgspec.Struct):
    headers: _Headers


_READ_HEADERS = msgspec.json.Decoder(_Payload).decode


@dataclass(frozen=True, slots=True)
class Message:
    """A task message in words.

    Args:
        task_id: the task.
        name: the task's name.
        args: its positional arguments as its producer printed them.
        kwargs: its keyword arguments, likewise.
        retries: which retry it is; 0 for the first run.
        origin: the process that dispatched it.
        schema_version: of its arguments.
        raw: the whole message.
    """

    task_id: str
    name: str
    args: str
    kwargs: str
    retries: int
    origin: str
    schema_version: int
    raw: bytes


def read(raw: bytes) -> Message | None:
    """Read a raw message; None when it is no task message."""
    try:
        payload = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    headers = payload.get("headers") if isinstance(payload, dict) else None
    if not isinstance(headers, dict) or not headers.get("id") or not headers.get("task"):
        return None
    return Message(
        task_id=_shown(headers["id"]),
        name=_shown(headers["task"]),
        args=_shown(headers.get("argsrepr")),
        kwargs=_shown(headers.get("kwargsrepr")),
        retries=_number(headers.get("retries")),
        origin=_shown(headers.get("origin")),
        schema_version=_number(headers.get(VERSION_HEADER)) or 1,
        raw=raw,
    )


def task_id(raw: bytes) -> str:
    """Return the id in a raw message, read as quickly as can be; "" when it is no task message."""
    try:
        headers = _READ_HEADERS(raw).headers
    except msgspec.MsgspecError:
        return ""
    return str(headers.id) if headers.id and headers.task else ""


@dataclass(frozen=True, slots=True)
class Signature:
    """A message's envelope in words.

    Args:
        verdict: what came of verifying it with the keys of this process.
        version: of the envelope; 0 when there is none.
        key_id: of the key that signed it, or "".
    """

    verdict: str
    version: int
    key_id: str


def signature(raw: bytes, keyring: Keyring) -> Signature | None:
    """Verify a raw message; None when it is no task message."""
    seal = keyring.judge(raw)
    if seal.verdict is Verdict.NO_TASK:
        return None
    return Signature(seal.verdict.value, seal.version, seal.key_id)


def signed_anew(raw: str, keyring: Keyring) -> str:
    """Return a task message with an envelope of ours in place of any other."""
    payload = json.loads(raw)
    payload["headers"].pop(envelope.HEADER, None)
    if keyring.signs:
        payload["headers"][envelope.HEADER] = keyring.seal_raw(json.dumps(payload))
    return json.dumps(payload)


def _number(value: Any) -> int:
    return int(value) if str(value).isdecimal() else 0


def _shown(value: Any) -> str:
    # Half a character can stand in JSON, but in no text that is to be encoded.
    return "" if value is None else str(value).encode(errors="backslashreplace").decode()
