"""The arguments in a task message: read them, and put others in their place."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from relier.errors import PayloadError

_JSON = "application/json"
_LONGEST_REPR = 1024


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a task is called with, as JSON has it."""

    args: list[Any]
    kwargs: dict[str, Any]


def read(raw: bytes) -> Arguments | None:
    """Return the arguments of a raw message; None unless they are plain JSON."""
    try:
        args, kwargs, _ = _body(json.loads(raw))
    except (PayloadError, ValueError, RecursionError):
        return None
    return Arguments(args, kwargs)


def spelled(raw: bytes, args: str, kwargs: str) -> tuple[str, str]:
    """Return the arguments of a raw message as JSON, or as its producer printed them.

    Args:
        args, kwargs: what its producer printed, which may be cut.
    """
    found = read(raw)
    if found is None:
        return args, kwargs
    return _json(found.args), _json(found.kwargs)


def _json(value: Any) -> str:
    # Half a character can stand in JSON, but in no text that is to be encoded.
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace").decode()


def change(payload: dict[str, Any], args: list[Any] | None, kwargs: dict[str, Any] | None) -> None:
    """Put other arguments into a task message.

    Args:
        payload: the message as JSON has it; nothing but its arguments changes.
        args: the positional ones; None leaves them.
        kwargs: the keyword ones; None leaves them.

    Raises:
        PayloadError: those it has cannot be read, so that nothing can be put in their place.
    """
    old_args, old_kwargs, embedded = _body(payload)
    new_args = old_args if args is None else args
    new_kwargs = old_kwargs if kwargs is None else kwargs
    body = json.dumps([new_args, new_kwargs, embedded])
    if payload["properties"].get("body_encoding") == "base64":
        body = base64.b64encode(body.encode()).decode()
    payload["body"] = body
    payload["content-encoding"] = "utf-8"
    payload["headers"]["argsrepr"] = repr(tuple(new_args))[:_LONGEST_REPR]
    payload["headers"]["kwargsrepr"] = repr(new_kwargs)[:_LONGEST_REPR]


def _body(payload: Any) -> tuple[list[Any], dict[str, Any], Any]:
    """Return what stands in the body of a message of Celery's protocol 2."""
    try:
        headers, properties = payload["headers"], payload["properties"]
        kind = payload.get("content-type")
        if kind != _JSON or headers.get("compression"):
            raise PayloadError(
                f"its arguments are {'compressed' if kind == _JSON else kind}, and only plain JSON "
                "can be changed here: dispatch the task anew from code"
            )
        body = payload["body"]
        if properties.get("body_encoding") == "base64":
            body = base64.b64decode(body)
        args, kwargs, embedded = json.loads(body)
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error, RecursionError) as why:
        raise PayloadError(
            f"its arguments cannot be read ({why}): dispatch the task anew from code"
        ) from why
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise PayloadError("its arguments are no list and no object: dispatch it anew from code")
    return args, kwargs, embedded
