"""The logs of a cluster's parts: one file each, read as one stream of lines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

MOST_BYTES = 16 << 20
"""A log that has become longer is set aside as `<name>.log.1` and begins anew."""
_CHUNK_BYTES = 1 << 16
_LINE_BYTES = 200
"""What a line is taken to have at most, on average, when the last ones are looked for."""


class Line(NamedTuple):
    """A line and whose it is."""

    name: str
    text: str


def names(folder: Path) -> list[str]:
    """Return the parts that have a log."""
    return sorted(path.stem for path in folder.glob("*.log"))


def trim(folder: Path) -> None:
    """Set aside what has become too long.

    Programs go on appending to the same file; what they write in this very moment may be missing.
    """
    for path in folder.glob("*.log"):
        if path.stat().st_size > MOST_BYTES:
            try:
                shutil.copyfile(path, path.with_name(f"{path.name}.1"))
            except OSError:
                pass  # a full disk needs the room more than the old lines
            os.truncate(path, 0)


class Tail:
    """Reads on where it was, in all logs of a folder, new ones included.

    Args:
        folder: where the logs are.
        only: the parts to read; None: all.
        last: how many of the lines that are there already to begin with, of each log.
    """

    def __init__(self, folder: Path, only: Collection[str] | None = None, last: int = 0) -> None:
        self._folder = folder
        self._only = only
        self._at: dict[str, int] = {}
        self._begun: dict[str, bytes] = {}
        for name in self._names():
            self._at[name] = _start_of_last(self._folder / f"{name}.log", last)

    def lines(self) -> Iterator[Line]:
        """Yield what is new: whole lines, or pieces of one that is very long."""
        for name in self._names():
            while chunk := self._read(name):
                *lines, rest = (self._begun.pop(name, b"") + chunk).split(b"\n")
                if len(rest) > _CHUNK_BYTES:
                    lines, rest = [*lines, rest], b""
                self._begun[name] = rest
                yield from (Line(name, line.decode(errors="replace")) for line in lines)

    def _names(self) -> list[str]:
        return [each for each in names(self._folder) if self._only is None or each in self._only]

    def _read(self, name: str) -> bytes:
        path, at = self._folder / f"{name}.log", self._at.get(name, 0)
        try:
            size = path.stat().st_size
            if size == at:
                return b""
            if size < at:
                at = 0  # it was set aside, and began anew
            with path.open("rb") as log:
                log.seek(at)
                chunk = log.read(_CHUNK_BYTES)
        except FileNotFoundError:
            return b""
        self._at[name] = at + len(chunk)
        return chunk


def _start_of_last(path: Path, last: int) -> int:
    """Return where the last so many lines begin."""
    size = path.stat().st_size
    if not last:
        return size
    reach = min(size, max(_CHUNK_BYTES, last * _LINE_BYTES))
    with path.open("rb") as log:
        log.seek(size - reach)
        tail = log.read(reach)
    end = tail.rfind(b"\n")
    for _ in range(last):
        end = tail.rfind(b"\n", 0, end) if end > 0 else -1
        if end < 0:
            return size - reach
    return size - reach + end + 1
