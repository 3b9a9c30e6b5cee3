"""What a raw message says about itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


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
        size_bytes: of the whole message.
    """

    task_id: str
    name: str
    args: str
    kwargs: str
    retries: int
    origin: str
    size_bytes: int


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
        task_id=str(headers["id"]),
        name=str(headers["task"]),
        args=_shown(headers.get("argsrepr")),
        kwargs=_shown(headers.get("kwargsrepr")),
        retries=int(headers["retries"]) if str(headers.get("retries")).isdigit() else 0,
        origin=_shown(headers.get("origin")),
        size_bytes=len(raw),
    )


def _shown(value: Any) -> str:
    return "" if value is None else str(value)
