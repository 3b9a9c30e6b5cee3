"""Load the Lua scripts: one file per operation, with the few shared pieces included by name."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from importlib.resources import files

_INCLUDE = re.compile(r"^ *--@include (\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One script as the server sees it; ``sha`` is what EVALSHA names."""

    name: str
    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False)
        object.__setattr__(self, "sha", digest.hexdigest())


def load(name: str) -> Script:
    """Read a script and put its includes in place."""
    folder = files(__package__) / "lua"

    def included(match: re.Match[str]) -> str:
        return (folder / "lib" / f"{match[1]}.lua").read_text().rstrip()

    source = (folder / f"{name}.lua").read_text()
    return Script(name, _INCLUDE.sub(included, source))


def names() -> list[str]:
    """Return the name of every operation's script."""
    folder = files(__package__) / "lua"
    return sorted(each.name.removesuffix(".lua") for each in folder.iterdir() if each.is_file())
