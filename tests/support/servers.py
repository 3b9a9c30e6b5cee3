"""Which server the tests run on: `RELIER_TEST_SERVER` is `valkey` (default) or `redis`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from relier.store.embedded import EmbeddedServer, find_binary


def leg() -> str:
    """Return which server this run is on."""
    return os.environ.get("RELIER_TEST_SERVER", "valkey")


def chosen_binary() -> Path:
    """Find the binary of this leg.

    Raises:
        RuntimeError: the leg's server is not installed, or there is no such leg.
    """
    if leg() == "valkey":
        return find_binary()
    if leg() != "redis":
        raise RuntimeError(f"RELIER_TEST_SERVER={leg()}: use valkey or redis")
    found = shutil.which("redis-server")
    if found is None:
        raise RuntimeError("RELIER_TEST_SERVER=redis, but no redis-server is on PATH")
    return Path(found)


def new_server(data_dir: Path | None = None) -> EmbeddedServer:
    """Make (not start) a server of this leg."""
    return EmbeddedServer(data_dir, binary=chosen_binary())
