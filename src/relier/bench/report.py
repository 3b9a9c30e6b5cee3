"""Print the table, and write it as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import celery
import kombu
from rich import box
from rich.console import Console
from rich.table import Table

import relier
from relier.bench.figures import Figure

_PLAIN_WIDTH = 200
_COLUMNS = ("figure", "vanilla", "relier", "ratio", "bar", "")


def show(figures: Sequence[Figure], server: str, note: str) -> None:
    """Print one table to stdout; without lines and colours when nobody looks at a terminal."""
    console = Console()
    live = console.is_terminal
    if not live:
        console = Console(width=_PLAIN_WIDTH)
    table = Table(box=box.SIMPLE_HEAD if live else None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for figure in figures:
        style = "bold red" if figure.met is False else ""
        table.add_row(
            figure.name,
            "-" if figure.vanilla is None else str(figure.vanilla),
            str(figure.relier),
            "-" if figure.ratio is None else str(figure.ratio),
            figure.bar,
            figure.verdict,
            style=style,
        )
    console.print(table)
    facts = machine(server)
    console.print(
        f"medians, (min..max); {facts['cores']} cores, Python {facts['python']}, "
        f"Celery {facts['celery']}, kombu {facts['kombu']}, {server}, AOF everysec. {note}",
        highlight=False,
    )


def write(figures: Sequence[Figure], server: str, note: str, path: Path) -> None:
    """Write everything that was measured as JSON."""
    content = {
        "machine": machine(server),
        "note": note,
        "figures": [figure.as_json() for figure in figures],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


def machine(server: str) -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "relier": relier.__version__,
        "celery": celery.__version__,
        "kombu": kombu.__version__,
        "server": server,
    }
