"""Where checkpoints go that are too large for Redis: the interface, and the one on a filesystem.

A backend keeps whole files under a name that is used once. Which of them are needed is not its
business: the server knows (see lua/lib/checkpoint.lua).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from relier.config import Settings
from relier.errors import CheckpointError, ConfigurationError
from relier.protocol.checkpoint import Place

_UNFINISHED = ".part"
_NAME = re.compile(r"[\w-]+", re.ASCII)


class CheckpointFiles(Protocol):
    """A backend. Each method raises `CheckpointError` when what it works on fails it."""

    name: str
    """What a checkpoint's place calls it."""

    def write(self, place: Place, state: bytes) -> None:
        """Write a new file; once this returns it survives a power cut, and until then is absent."""

    def read(self, place: Place) -> bytes:
        """Return what a file holds."""

    def remove(self, place: Place) -> None:
        """Remove a file, and what was left of one that was never finished; absent is well."""

    def names(self, home: str) -> Iterator[str]:
        """Yield the names of all files in a home, finished or not."""

    def check(self) -> None:
        """Raise `ConfigurationError` if files cannot be written at all."""


class FilesystemFiles:
    """Files in a folder that every worker shares.

    Args:
        folder: it is made when it is not there.
    """

    name = "filesystem"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, place: Place, state: bytes) -> None:
        """Write beside the name first, then rename: nobody ever sees a part under the name."""
        path = self._path(place)
        home, part = path.parent, path.with_name(f"{path.name}{_UNFINISHED}")
        with _explained(
            f"a checkpoint of {len(state):,} bytes cannot be written to {home}",
            "free space on it, or name another folder with RELIER_CHECKPOINT_DIR. The checkpoint "
            "before it is still valid",
        ):
            try:
                home.mkdir(parents=True, exist_ok=True)
                with part.open("wb") as file:
                    file.write(state)
                    file.flush()
                    os.fsync(file.fileno())
                part.rename(path)
                _sync(home)
                _sync(self._folder)
            except OSError:
                with suppress(OSError):
                    part.unlink()
                raise

    def read(self, place: Place) -> bytes:
        """Return what a file holds."""
        path = self._path(place)
        with _explained(
            f"the checkpoint of an earlier attempt is in {path}, which cannot be read here",
            "RELIER_CHECKPOINT_DIR must be one folder that every worker shares",
        ):
            return path.read_bytes()

    def remove(self, place: Place) -> None:
        """Remove a file, and what was left of one that was never finished."""
        path = self._path(place)
        with _explained(
            f"{path} cannot be removed", "mend the folder's permissions, or it will fill up"
        ):
            path.unlink(missing_ok=True)
            path.with_name(f"{place.name}{_UNFINISHED}").unlink(missing_ok=True)

    def names(self, home: str) -> Iterator[str]:
        """Yield the names of all files in a home, finished or not."""
        with _explained(
            f"{self._folder / home} cannot be listed",
            "mend its permissions, or files that nobody needs stay in it",
        ):
            try:
                entries = os.scandir(self._folder / home)
            except FileNotFoundError:
                return
            with entries:
                for entry in entries:
                    name = entry.name.removesuffix(_UNFINISHED)
                    if _NAME.fullmatch(name):
                        yield name

    def check(self) -> None:
        """Refuse a folder that cannot be written to.

        Raises:
            ConfigurationError: naming the setting.
        """
        probe = self._folder / f".{os.getpid()}{_UNFINISHED}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"RELIER_CHECKPOINT_DIR is {str(self._folder)!r}, where no file can be written "
                f"({error.strerror or error}): make it a folder that this user may write to"
            ) from error

    def _path(self, place: Place) -> Path:
        """Return a file's path; what the server says must not lead out of the folder."""
        for name in (place.home, place.name):
            if not _NAME.fullmatch(name):
                raise CheckpointError(
                    f"{name!r} is no name of a checkpoint's file: something else has written to "
                    "the task's record"
                )
        return self._folder / place.home / place.name


@contextmanager
def _explained(trouble: str, advice: str) -> Iterator[None]:
    """Raise our error in place of the system's, whose own words stand in it.

    Raises:
        CheckpointError: the system refused something.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{trouble} ({error.strerror or error}): {advice}") from error


def files_of(settings: Settings) -> CheckpointFiles | None:
    """Return the backend that was chosen; None when all checkpoints go into Redis."""
    if settings.checkpoint_backend == "filesystem" and settings.checkpoint_dir is not None:
        return FilesystemFiles(Path(settings.checkpoint_dir))
    return None


def _sync(folder: Path) -> None:
    """Have a folder's entries survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
