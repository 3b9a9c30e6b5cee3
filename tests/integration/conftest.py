"""A kitchen in each pool, for the tests that ask for no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relier.store.embedded import EmbeddedServer
from support.kitchen import Kitchen, open_kitchen


@pytest.fixture(scope="module", params=["prefork", "threads", "solo"])
def kitchen(
    request: pytest.FixtureRequest,
    session_server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kitchen]:
    """A kitchen for all tests of a module; a module may have one of its own."""
    folder = tmp_path_factory.mktemp(request.param)
    with open_kitchen(session_server, folder, pool=request.param) as running:
        yield running
