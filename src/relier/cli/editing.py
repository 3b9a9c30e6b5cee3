"""Other arguments for a task: as options, or changed in an editor."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from relier.errors import ConfigurationError, PayloadError
from relier.ops import payload
from relier.ops.revival import Found


def a_list(text: str | None) -> list[Any] | None:
    """Read --args.

    Raises:
        ConfigurationError: it is no JSON list.
    """
    if text is None:
        return None
    value = _json(text, "--args")
    if not isinstance(value, list):
        raise ConfigurationError(f'--args takes a JSON list such as [1, "two"], not {text}')
    return value


def an_object(text: str | None) -> dict[str, Any] | None:
    """Read --kwargs.

    Raises:
        ConfigurationError: it is no JSON object.
    """
    if text is None:
        return None
    value = _json(text, "--kwargs")
    if not isinstance(value, dict):
        raise ConfigurationError(f'--kwargs takes a JSON object such as {{"n": 1}}, not {text}')
    return value


def edited(
    found: Found, args: list[Any] | None, kwargs: dict[str, Any] | None
) -> tuple[list[Any], dict[str, Any]]:
    """Have a person change the arguments; ask again for as long as they cannot be read.

    Args:
        args, kwargs: what to begin with, if not with what the message has.

    Raises:
        PayloadError: they cannot be edited, or were not.
    """
    now = payload.read(found.message)
    if now is None:
        raise PayloadError(
            f"the arguments of {found.letter_id} are no plain JSON and cannot be edited: "
            "dispatch the task anew from code"
        )
    before = {
        "args": now.args if args is None else args,
        "kwargs": now.kwargs if kwargs is None else kwargs,
    }
    text = json.dumps(before, indent=2, ensure_ascii=False) + "\n"
    while True:
        saved = click.edit(text, extension=".json")
        if saved is None:
            raise PayloadError("nothing was saved in the editor: nothing was released")
        try:
            after = json.loads(saved)
            if isinstance(after["args"], list) and isinstance(after["kwargs"], dict):
                return after["args"], after["kwargs"]
            why = '"args" must be a list, "kwargs" an object'
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            why = f"{type(error).__name__}: {error}"
        if not sys.stdin.isatty() or not click.confirm(f"That cannot be read ({why}). Edit again?"):
            raise PayloadError(f"what was edited cannot be read ({why}): nothing was released")
        text = saved


def _json(text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{option} is no JSON ({error}): nothing was released") from None
