"""A scene on the shared server, or on one of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from faults.scene import Scene
from relier.store.embedded import EmbeddedServer
from support.proxy import Proxy


@pytest.fixture
def scene(server: EmbeddedServer, tmp_path: Path) -> Iterator[Scene]:
    """A scene on the shared server, which must stay as it is."""
    with ExitStack() as stack:
        yield Scene(server.url, tmp_path, stack)


@pytest.fixture
def own_scene(fresh_server: EmbeddedServer, tmp_path: Path) -> Iterator[Scene]:
    """A scene on `fresh_server`, which may be killed, filled and reconfigured."""
    with ExitStack() as stack:
        yield Scene(fresh_server.url, tmp_path, stack)


@pytest.fixture
def proxy(server: EmbeddedServer) -> Iterator[Proxy]:
    """A way to the shared server that can be cut."""
    with Proxy(server.url) as running:
        yield running
