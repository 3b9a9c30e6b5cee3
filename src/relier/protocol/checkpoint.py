"""What the server says of a checkpoint: when it was saved, and where its state is."""

from __future__ import annotations

from typing import NamedTuple

INLINE = "inline"


class Place(NamedTuple):
    """A file of a backend.

    Args:
        backend: the backend's name.
        home: the folder of one server's files.
        name: the file, unique within it.
    """

    backend: str
    home: str
    name: str

    def __str__(self) -> str:
        return f"{self.backend}:{self.home}/{self.name}"

    @classmethod
    def read(cls, described: str) -> Place:
        """Read a place as it is written."""
        backend, _, path = described.partition(":")
        home, _, name = path.partition("/")
        return cls(backend, home, name)


class Checkpoint(NamedTuple):
    """A saved checkpoint.

    Args:
        at_ms: when it was saved, on the server's clock.
        size_bytes: of the encoded state.
        place: the file that holds it, or None when the server itself does.
        state: the encoded state, when the server holds it and was asked for it.
    """

    at_ms: int
    size_bytes: int
    place: Place | None
    state: bytes | None = None


def read(described: str, state: bytes | None = None) -> Checkpoint:
    """Read a checkpoint as lua/lib/checkpoint.lua describes it."""
    _replacements, _fence, _number, at_ms, size, where = described.split("|", 5)
    if where == INLINE:
        return Checkpoint(int(at_ms), int(size), None, state)
    return Checkpoint(int(at_ms), int(size), Place.read(where))
