"""Times, ids and tables in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from relier.ops.events import CLAIMED
from relier.ops.steps import said

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.segment import Segment
    from rich.table import Table
    from rich.text import Text

    from relier.ops.events import Event
    from relier.ops.messages import Signature
    from relier.ops.saved import Saved

WIDE = 110
"""Columns of a terminal that has room for everything beside a whole id."""

_MISLEADING = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE = re.compile(rf"[\x00-\x1f{_MISLEADING}]")
_UNSAFE_IN_LINES = re.compile(rf"[\x00-\x08\x0b-\x1f{_MISLEADING}]")

_NEVER_CUT = ("id", "state", "what", "when", "died")

STYLES = {
    "running": "cyan",
    "committed": "blue",
    "claimed": "yellow",
    "queued": "yellow",
    "scheduled": "yellow",
    "replay": "magenta",
    "dead": "bold red",
    "ended": "green",
    "ok": "green",
    "warning": "yellow",
    "failure": "bold red",
    "unknown": "dim",
    "paused": "bold yellow",
    "page": "bold red",
    "missed": "bold red",
    "ticket": "yellow",
    "too few": "dim",
    "no data": "dim",
    "busy": "cyan",
    "draining": "yellow",
    "dying": "bold red",
    "silent": "bold red",
}


def safe(text: str, *, lines: bool = False) -> str:
    """Return text that may go to a terminal, whoever wrote it.

    Control characters, what turns the direction of writing round, and halves of characters are
    shown as escapes, so that no payload moves the cursor or hides what stands beside it.

    Args:
        lines: leave line breaks and tabs as they are.
    """
    unsafe = _UNSAFE_IN_LINES if lines else _UNSAFE
    return unsafe.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def span(ms: int | float | None) -> str:
    """Return a duration: 0.4 s, 12 s, 3 min, 2 h, 5 d."""
    if ms is None:
        return "-"
    seconds = max(ms, 0) / 1000
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: 1 worker, 2 workers."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def ago(at_ms: int | None, now_ms: int) -> str:
    """Return when something was or will be, seen from the server's now."""
    if at_ms is None:
        return "-"
    return f"in {span(at_ms - now_ms)}" if at_ms > now_ms else f"{span(now_ms - at_ms)} ago"


def clock(at_ms: int) -> str:
    """Return a moment in this machine's time zone, to the millisecond."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().isoformat(" ", "milliseconds")


def checkpoint(saved: Saved | None, now_ms: int) -> str:
    """Return how much a task has saved, where, and when; "" for nothing."""
    if saved is None:
        return ""
    return f"{saved.size_bytes:,} bytes, {saved.where}, {ago(saved.at_ms, now_ms)}"


def styled(word: str) -> Text:
    """Return a state in its colour."""
    from rich.text import Text

    return Text(word, style=STYLES.get(word, ""))


def signature(found: Signature | None) -> str:
    """Return a message's envelope in words; "" when there is no message."""
    if found is None:
        return ""
    by = f", key {found.key_id} (envelope {found.version})" if found.key_id else ""
    return f"{found.verdict}{by}"


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Columns:
    """Return a table without lines; what is too wide is cut, but never an id: ids are copied."""
    return Columns(headers, [[_cell(each) for each in row] for row in rows])


class Columns:
    """Rows under headers: laid out by rich in a terminal, written as they are elsewhere.

    Ten thousand rows take rich several seconds, and into a pipe nothing is to be laid out.
    """

    def __init__(self, headers: Sequence[str], cells: Sequence[Sequence[Text]]) -> None:
        self._headers = headers
        self._cells = cells

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.is_terminal:
            yield self._laid_out()
        else:
            yield from self._written()

    def _laid_out(self) -> Table:
        from rich.table import Table

        made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for index, header in enumerate(self._headers):
            longest = max((len(row[index]) for row in self._cells), default=0)
            least = longest if header in _NEVER_CUT else None
            made.add_column(header, no_wrap=True, overflow="ellipsis", min_width=least)
        for row in self._cells:
            made.add_row(*row)
        return made

    def _written(self) -> Iterator[Segment]:
        from rich.cells import cell_len
        from rich.segment import Segment

        lines = [list(self._headers), *([each.plain for each in row] for row in self._cells)]
        widths = [max(map(cell_len, column)) + 2 for column in zip(*lines, strict=True)]
        for line in lines:
            padded = (
                cell + " " * (width - cell_len(cell))
                for cell, width in zip(line, widths, strict=True)
            )
            yield Segment("".join(padded).rstrip() + "\n")


def paragraphs(rows: Iterable[Sequence[object]]) -> Table:
    """Return rows whose last cell is wrapped rather than cut."""
    from rich.table import Table

    cells = [[_cell(each) for each in row] for row in rows]
    made = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for index, _ in enumerate(cells[0] if cells else ()):
        made.add_column(no_wrap=index < len(cells[0]) - 1, overflow="fold")
    for row in cells:
        made.add_row(*row)
    return made


def facts(pairs: Iterable[tuple[str, object]]) -> Table:
    """Return names and values, one pair a line, those without a value left out."""
    from rich.table import Table

    made = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value not in ("", None):
            made.add_row(name, _cell(value))
    return made


def _cell(value: object) -> Text:
    from rich.text import Text

    return value if isinstance(value, Text) else Text(safe(str(value)))


def timeline(events: Sequence[Event]) -> Text:
    """Return what happened, oldest first, each with the time since the first."""
    from rich.text import Text

    first_ms = events[0].at_ms if events else 0
    lines, before = [], None
    for event in events:
        since_s = (event.at_ms - first_ms) / 1000
        what = safe(said(event, before))
        lines.append(f"{clock(event.at_ms)[11:23]}  {f'+{since_s:.3f} s':>12}  {what}")
        before = event if event.kind != CLAIMED else before
    return Text("\n".join(lines))
