"""Where a run of the demo takes place: its broker and its folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from relier.errors import ConfigurationError

_URL, _PREFIX, _FOLDER = "RELIER_DEMO_URL", "RELIER_DEMO_PREFIX", "RELIER_DEMO_FOLDER"
_MARKER = ".relier-demo"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """One run's place.

    Args:
        url: the broker, and the result backend.
        prefix: before every key, on a server that is not the demo's own; else "".
        folder: everything on disk that the run leaves behind.
    """

    url: str
    prefix: str
    folder: Path

    @classmethod
    def of_process(cls) -> Self:
        """Read the place from this process's environment, where the demo put it.

        Raises:
            ConfigurationError: it is not there.
        """
        try:
            return cls(os.environ[_URL], os.environ[_PREFIX], Path(os.environ[_FOLDER]))
        except KeyError as missing:
            raise ConfigurationError(
                f"{missing} is not set: the shop runs inside `rl demo` only"
            ) from None

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the variables by which other processes find the place."""
        return {_URL: self.url, _PREFIX: self.prefix, _FOLDER: str(self.folder)}

    @property
    def invoices(self) -> Path:
        """Return the folder of the rendered invoices."""
        return self.folder / "invoices"

    @property
    def books(self) -> Path:
        """Return the folder of the booked invoices."""
        return self.folder / "books"

    @property
    def logs(self) -> Path:
        """Return the folder of the workers' logs."""
        return self.folder / "logs"

    @property
    def journal(self) -> Path:
        """Return the file in which tasks say what they do."""
        return self.folder / "journal.tsv"

    def prepare(self) -> None:
        """Make the folders, empty.

        Raises:
            ConfigurationError: the folder holds something that is not an earlier run's, or cannot
                be written.
        """
        try:
            if self.folder.exists() and any(self.folder.iterdir()):
                if not (self.folder / _MARKER).exists():
                    raise ConfigurationError(
                        f"{self.folder} is not empty and not of an earlier demo: "
                        "name another with --folder"
                    )
                self.journal.unlink(missing_ok=True)
                for each in (self.invoices, self.books, self.logs):
                    shutil.rmtree(each, ignore_errors=True)
            for each in (self.invoices, self.books, self.logs):
                each.mkdir(parents=True)
            (self.folder / _MARKER).touch()
        except OSError as error:
            raise ConfigurationError(
                f"{self.folder} cannot be written ({error}): name another with --folder"
            ) from error
