"""Standard output whose reader may go away."""

from __future__ import annotations

from io import TextIOWrapper


class ReaderGoneError(Exception):
    """Nobody reads what is printed; no OSError, for click and rich make a failure of those."""


class Pipe(TextIOWrapper):
    """Standard output into a pipe that its reader may close at any time."""

    def __init__(self, stream: TextIOWrapper) -> None:
        encoding, errors = stream.encoding, stream.errors
        buffered, through = stream.line_buffering, stream.write_through
        super().__init__(
            stream.detach(),
            encoding=encoding,
            errors=errors,
            line_buffering=buffered,
            write_through=through,
        )

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            raise ReaderGoneError from None

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise ReaderGoneError from None
