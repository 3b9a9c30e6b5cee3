"""What an operation on the store is: one script call, and how to read its reply.

Operations are values. The synchronous and the asynchronous client run the same ones, and the
transport sends them over a connection of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from relier.store.scripts import Script

T = TypeVar("T")

Argument = str | bytes | int | float


class Operation(NamedTuple, Generic[T]):
    """One call of one script; running it twice with the same arguments is safe."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Argument]
    parse: Callable[[Any], T]

    def command(self) -> tuple[Argument, ...]:
        """Return the words of the EVALSHA that runs it."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.arguments)


def pairs(fields: Mapping[str, Argument]) -> list[Argument]:
    """Return a hash's fields as a script takes them: name, value, name, value."""
    return [word for pair in fields.items() for word in pair]


def text(value: bytes | str) -> str:
    """Return a reply's text."""
    return value.decode() if isinstance(value, bytes) else value
