"""The fingerprint of an error: what a thousand dead letters with one cause have in common.

It is made where a letter is written, and kept with it: a later relier may tell errors apart in
another way, and its letters then form groups of their own.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_LONGEST_MESSAGE = 1000
_DIGITS = 12

_CHANGING = re.compile(
    r"""
      (?<!\w)'(?:[^'\\]|\\.)*'(?!\w) | "(?:[^"\\]|\\.)*" | `[^`]*`  # quoted; not the one in "isn't"
    | \b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b            # a UUID
    | \b0x[0-9a-f]+\b                                            # an address
    | \b(?=[a-z_]*\d)(?=[0-9_]*[a-z])[\w-]{6,}\b                 # an id: letters and digits mixed
    | [+-]?\d+(?:[.,:/T-]\d+)*                                   # a number, a date, a time
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_EXCEPTION = re.compile(r"[\w.]+(?=: |$)")
_FRAME = re.compile(r'^ *File "(?P<file>.+?)", line \d+, in (?P<function>.+)$', re.MULTILINE)
_FOREIGN = ("/site-packages/", "/dist-packages/", "/lib/python", "<frozen ", "<string>")
_OURS = f"{Path(__file__).parent.parent}/"


def fingerprint(task: str, reason: str, error: str, traceback: str = "") -> str:
    """Return what letters of one cause share: 12 hexadecimal digits.

    Numbers, ids and quoted parts of the message do not count, nor does the line in which the error
    arose; its task, the reason of the death, its class, and the place in the user's own code do.

    Args:
        task: the task's name, or "".
        reason: why it died, as the letter says.
        error: "<class>: <message>".
        traceback: as text, or "".
    """
    error = error[:_LONGEST_MESSAGE]
    found = _EXCEPTION.match(error)
    kind = found[0] if found else ""
    parts = (task, reason, kind, normalised(error[len(kind) :]), own_frame(traceback))
    text = "\0".join(parts).encode("utf-8", "backslashreplace")
    return hashlib.sha256(text).hexdigest()[:_DIGITS]


def normalised(message: str) -> str:
    """Return a message without what changes from one failure to the next."""
    return " ".join(_CHANGING.sub("?", message).split())


def own_frame(traceback: str) -> str:
    """Return the innermost frame of the user's own code, "<file> <function>", or "".

    Folders do not count: two machines may have the same code in two places.
    """
    own = [
        found
        for found in _FRAME.finditer(traceback)
        if not found["file"].startswith(_OURS)
        and not any(part in found["file"] for part in _FOREIGN)
    ]
    if not own:
        return ""
    return f"{own[-1]['file'].replace(chr(92), '/').rpartition('/')[2]} {own[-1]['function']}"
