from __future__ import annotations

import pytest

from relier.errors import ConfigurationError
from relier.store.address import Address


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("redis://localhost:6379/0", ("127.0.0.1", 6379, 0)),
        ("relier+redis://localhost", ("127.0.0.1", 6379, 0)),
        ("rediss://u:p@host:6380/3", ("host", 6380, 3)),
        ("redis+socket:///run/redis.sock?virtual_host=2", ("/run/redis.sock", 0, 2)),
        ("relier+socket:///run/redis.sock", ("/run/redis.sock", 0, 0)),
    ],
)
def test_broker_urls_of_celery_are_read(url: str, server: tuple[str, int, int]) -> None:
    assert Address.parse(url).server == server


def test_a_password_is_never_shown() -> None:
    address = Address.parse("redis://user:secret@host:6379/1")
    assert "secret" not in repr(address)
    assert address.public == "redis://host:6379/1"


def test_another_broker_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="redis://"):
        Address.parse("amqp://guest@localhost//")
