"""A cluster's state folder: who owns it, what it keeps from one run to the next."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import msgspec

from relier.errors import ConfigurationError

VERSION = 1
_SOCKET_PATH_MAX_BYTES = 100  # sun_path holds 104 bytes on macOS, 108 on Linux


class Kept(msgspec.Struct, frozen=True):
    """What a folder keeps between runs, in `cluster.json`.

    Args:
        version: of this format. A folder of a newer one is refused.
        port: the embedded server's, so that producers find it again; None before the first run.
    """

    version: int = VERSION
    port: int | None = None


class Folder:
    """The folder of one cluster.

    Args:
        path: where it is; made by `own`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    @property
    def logs(self) -> Path:
        """Where each part has its log."""
        return self.path / "logs"

    @property
    def data(self) -> Path:
        """Where the embedded server has its data."""
        return self.path / "data"

    @property
    def socket(self) -> str:
        """Return the control channel's address.

        Raises:
            ConfigurationError: it is too long for a socket.
        """
        whole = str(self.path / "control.sock")
        shortest = min(whole, os.path.relpath(whole), key=lambda path: len(os.fsencode(path)))
        if len(os.fsencode(shortest)) > _SOCKET_PATH_MAX_BYTES:
            raise ConfigurationError(
                f"the path {self.path} is too long for a socket: name a shorter --dir"
            )
        return shortest

    @property
    def exists(self) -> bool:
        """Return whether a cluster was here."""
        return os.path.exists(self.path / "cluster.json")  # False, too, if it is another user's

    def log(self, name: str) -> Path:
        """Return a part's log."""
        return self.logs / f"{name}.log"

    def own(self) -> None:
        """Make the folder if need be, and take it for this process; its end gives it back.

        Raises:
            ConfigurationError: a cluster that lives has it, it holds something else, it is of a
                newer relier, or it cannot be written.
        """
        _ = self.socket
        try:
            if self.path.is_dir() and any(self.path.iterdir()) and not self._is_ours():
                raise ConfigurationError(
                    f"{self.path} holds something else than a cluster: name another --dir"
                )
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise ConfigurationError(
                    f"a cluster runs from {self.path} already: see `rl cluster status`, end it "
                    "with `rl cluster down`, or name another --dir"
                ) from None
            self._lock = lock
            self.logs.mkdir(mode=0o700, exist_ok=True)
            (self.path / ".gitignore").write_text("*\n")
            self.keep(self.kept())
        except OSError as error:
            raise ConfigurationError(
                f"{self.path} cannot be used ({error}): name another --dir"
            ) from error

    def disown(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def kept(self) -> Kept:
        """Return what the last run left.

        Raises:
            ConfigurationError: it is unreadable, or of a newer relier.
        """
        path = self.path / "cluster.json"
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return Kept()
        except msgspec.DecodeError as error:
            raise ConfigurationError(
                f"{path} cannot be read ({error}): remove it; the data beside it is not touched"
            ) from error
        if found.version > VERSION:
            raise ConfigurationError(
                f"{self.path} was made by a newer relier: use that, or name another --dir"
            )
        return found

    def keep(self, kept: Kept) -> None:
        """Write down what the next run shall know; whole or not at all."""
        new = self.path / "cluster.json.new"
        new.write_bytes(msgspec.json.encode(kept))
        new.replace(self.path / "cluster.json")

    def purge(self) -> None:
        """Remove the server's data. Only the folder's owner may."""
        assert self._lock is not None, "own() first"
        shutil.rmtree(self.data, ignore_errors=True)

    def _is_ours(self) -> bool:
        return self.exists or (self.path / "lock").exists()
