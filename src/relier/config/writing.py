"""Write one setting into a `.env` file, and leave everything else in it as it is."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relier.errors import ConfigurationError

_PLAIN = re.compile(r"[\w.,:/@%+=-]*", re.ASCII)
_ASSIGNS = r"(?P<before>[ \t]*(?:export +)?{name}[ \t]*=[ \t]*)(?P<value>.*?)(?P<after>\s*)"
_COMMENT = re.compile(r"\s* #.*$")
_PRIVATE = 0o600


def write_setting(path: Path, variable: str, value: str) -> None:
    """Set a variable in a `.env` file, whole or not at all.

    The line that counts, the last one that sets it, gets the new value; without one the line comes
    after a commented-out one of its name, or at the end. A new file is its owner's alone.

    Args:
        value: the text as it is to be read again; "" unsets it.

    Raises:
        ConfigurationError: the value cannot be written on one line, or the file not at all.
    """
    written = _quoted(value)
    # What a symbolic link leads to is what is read.
    target = Path(os.path.realpath(path))
    try:
        with _alone(target.parent):
            text = _text_of(target)
            _replace(target, _edited(text, variable, written))
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigurationError(
            f"{path} cannot be written ({problem}): make it a UTF-8 file that you may write"
        ) from None


def _quoted(value: str) -> str:
    """Return a value as our reader, a shell and other tools read it back.

    Raises:
        ConfigurationError: there is no such way.
    """
    if any(not (each.isprintable() or each == " ") for each in value):
        raise ConfigurationError("a value in .env is one line of printable text: remove the rest")
    if _PLAIN.fullmatch(value):
        return value
    if "'" not in value:
        return f"'{value}'"
    if not re.search(r"[\"$`\\]", value):
        return f'"{value}"'
    raise ConfigurationError(
        "this value has both kinds of quotes, or ' and one of $ ` \\, which no two tools read "
        "alike in a .env file: set it in the environment, or choose another"
    )


def _edited(text: str, variable: str, written: str) -> str:
    lines = text.splitlines(keepends=True)
    ending = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    assigns = re.compile(_ASSIGNS.format(name=re.escape(variable)), re.DOTALL)
    at = _last(lines, assigns)
    if at is not None:
        found = assigns.fullmatch(lines[at])
        assert found is not None
        lines[at] = found["before"] + written + _comment(found["value"]) + found["after"]
        return "".join(lines)
    example = _last(lines, re.compile(rf"\s*#\s*{re.escape(variable)}\s*=.*\s*", re.DOTALL))
    at = len(lines) if example is None else example + 1
    if at and not lines[at - 1].endswith(("\n", "\r")):
        lines[at - 1] += ending
    lines.insert(at, f"{variable}={written}{ending}")
    return "".join(lines)


def _last(lines: list[str], pattern: re.Pattern[str]) -> int | None:
    return next((i for i in range(len(lines) - 1, -1, -1) if pattern.fullmatch(lines[i])), None)


def _comment(value: str) -> str:
    """Return the comment behind a value."""
    if value[:1] in ("'", '"'):
        value = value[1:].partition(value[0])[2]
    elif value.startswith("#"):
        return " " + value
    found = _COMMENT.search(value)
    return found[0] if found else ""


def _text_of(path: Path) -> str:
    try:
        # As bytes: reading as text would turn the line ends round.
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""


def _replace(path: Path, text: str) -> None:
    mode = path.stat().st_mode & 0o7777 if path.exists() else _PRIVATE
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        # Whatever ends it, no half written copy, which may hold secrets, stays behind.
        os.unlink(name)
        raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep others who write here waiting, so that neither undoes what the other wrote."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
