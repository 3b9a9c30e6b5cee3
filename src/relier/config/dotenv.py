"""Settings in a `.env` file: read, and printed as an example."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from relier.config.table import SETTINGS
from relier.errors import ConfigurationError

ENV_PREFIX = "RELIER_"


class Line(NamedTuple):
    """One line that names a variable of ours; ``value`` is None where it has no `=`."""

    number: int
    name: str
    value: str | None


def read_dotenv(path: Path) -> dict[str, str]:
    """Read `NAME=value` lines that name our variables; the rest belongs to other tools."""
    values = {}
    for line in lines_of(path):
        if line.value is None:
            raise ConfigurationError(f"{path}, line {line.number}: write it as {line.name}=value")
        values[line.name] = line.value
    return values


def lines_of(path: Path) -> list[Line]:
    """Return the lines that name our variables.

    Raises:
        ConfigurationError: there is such a file, and it cannot be read.
    """
    try:
        return parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigurationError(
            f"{path} cannot be read ({problem}): make it a readable UTF-8 file, or remove it"
        ) from None


def parsed(text: str) -> list[Line]:
    """Return the lines of a file's text that name our variables."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip().removeprefix("export ").lstrip()
        if stripped.startswith(ENV_PREFIX):
            name, equals, raw = stripped.partition("=")
            found.append(Line(number, name.strip(), _unquoted(raw.strip()) if equals else None))
    return found


def _unquoted(raw: str) -> str:
    """Take the quotes off, or a trailing comment (` # ...`) where there are none."""
    if raw[:1] in ("'", '"'):
        value, closing, _ = raw[1:].partition(raw[0])
        return value if closing else raw
    return "" if raw.startswith("#") else raw.partition(" #")[0].rstrip()


def example_dotenv() -> str:
    """Print the table as a `.env` file in which every line is commented out."""
    lines = [
        "# Settings of relier, with their defaults. Copy to .env and uncomment what you change."
    ]
    for row in SETTINGS:
        lines += ["", f"# {row.why}", f"# Takes {row.takes}."]
        lines += [f"#{row.variable}={_written(row.default)}"]
    return "\n".join(lines) + "\n"


def _written(default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, int | float) else str(default)
