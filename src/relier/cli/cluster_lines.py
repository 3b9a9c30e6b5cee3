"""The log lines of a cluster, printed with their names before them."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import click

from relier.cli import common, words
from relier.cli.pipe import ReaderGoneError

if TYPE_CHECKING:
    from relier.cluster.logs import Line, Tail

_COLOURS = ("cyan", "green", "magenta", "yellow", "blue")
_LOOK_AGAIN_S = 0.1
_LAST_LINES_WITHIN_S = 2.0


class Lines:
    """Prints lines, in colour in a terminal.

    Args:
        as_json: print each as an object.
        width: of the names.
    """

    def __init__(self, as_json: bool, width: int) -> None:
        self._as_json, self._width = as_json, width
        self._console = common.console()

    def say(self, line: Line) -> None:
        """Print one."""
        if self._as_json:
            click.echo(json.dumps({"name": line.name, "line": line.text}))
            return
        from rich.text import Text

        shown = Text(f"{line.name:<{self._width}} | ", style=_colour(line.name))
        shown.append(words.safe(line.text), style="default")
        self._console.print(shown, soft_wrap=True)


class Printer(threading.Thread):
    """Prints what is logged beside a supervisor, which a stopped terminal must not hold up.

    It ends when nobody reads any more; the supervisor goes on.

    Args:
        tail: what to print.
        lines: what prints it.
    """

    def __init__(self, tail: Tail, lines: Lines) -> None:
        super().__init__(name="cluster-lines", daemon=True)
        self._tail, self._lines = tail, lines
        self._over = threading.Event()

    def run(self) -> None:
        """Print until told that it is over, or until nobody reads."""
        over = False
        try:
            while True:
                for line in self._tail.lines():
                    self._lines.say(line)
                if over:
                    return
                over = self._over.wait(_LOOK_AGAIN_S)
        except (OSError, ReaderGoneError):
            return

    def close(self) -> None:
        """Print the last lines."""
        self._over.set()
        self.join(_LAST_LINES_WITHIN_S)


def _colour(name: str) -> str:
    return _COLOURS[sum(name.encode()) % len(_COLOURS)]
