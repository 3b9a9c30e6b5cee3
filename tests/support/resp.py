"""Cut a stream of bytes in Redis's protocol into whole commands and whole replies."""

from __future__ import annotations

AGGREGATES = {b"*": 1, b"~": 1, b">": 1, b"%": 2, b"|": 2}
BULKS = (b"$", b"=", b"!")


class Incomplete(Exception):
    """The buffer ends in the middle of a value."""


class Splitter:
    """Collects bytes and gives back each whole value with its bytes.

    A value is `bytes` for a scalar or bulk string and a list for an aggregate.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, object]]:
        """Add bytes; return the values now whole, each as (its raw bytes, the value)."""
        self._buffer += data
        whole = []
        while self._buffer:
            try:
                value, end = _parse(self._buffer, 0)
            except Incomplete:
                break
            whole.append((bytes(self._buffer[:end]), value))
            del self._buffer[:end]
        return whole


def _parse(buffer: bytearray, start: int) -> tuple[object, int]:
    line_end = buffer.find(b"\r\n", start)
    if line_end < 0:
        raise Incomplete
    kind = bytes(buffer[start : start + 1])
    line = bytes(buffer[start + 1 : line_end])
    end = line_end + 2
    if kind in BULKS:
        length = int(line)
        if length < 0:
            return b"", end
        if len(buffer) < end + length + 2:
            raise Incomplete
        return bytes(buffer[end : end + length]), end + length + 2
    if kind not in AGGREGATES:
        return line, end
    items = []
    for _ in range(max(0, int(line)) * AGGREGATES[kind]):
        item, end = _parse(buffer, end)
        items.append(item)
    return items, end
