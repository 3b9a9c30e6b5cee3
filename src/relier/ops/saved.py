"""A task's checkpoint, as people are told of it: never its state."""

from __future__ import annotations

from dataclasses import dataclass

from relier.protocol import checkpoint


@dataclass(frozen=True, slots=True)
class Saved:
    """What a task saved last.

    Args:
        at_ms: when, on the server's clock.
        size_bytes: of the encoded state.
        where: "in Redis", or a backend's file.
    """

    at_ms: int
    size_bytes: int
    where: str


def read(described: str) -> Saved | None:
    """Read what the server says of a checkpoint; None for nothing."""
    if not described:
        return None
    found = checkpoint.read(described)
    return Saved(found.at_ms, found.size_bytes, str(found.place) if found.place else "in Redis")
