"""Who can start itself again."""

from __future__ import annotations

import pytest

from relier.worker.restart import YES, ability


@pytest.mark.parametrize(
    ("command", "platform", "said"),
    [
        (["python", "-m", "celery", "worker"], "linux", YES),
        (["python", "celery", "--workdir=/srv/app", "worker"], "linux", YES),
        (["python", "celery", "--workdir", "/srv/app", "worker"], "linux", YES),
        (["python", "celery", "--workdir", "app", "worker"], "linux", "its --workdir is not"),
        (["python", "celery", "--workdir=app", "worker"], "linux", "its --workdir is not"),
        (["python", "celery", "worker", "--uid", "nobody"], "linux", "it gave up the rights"),
        (["python", "celery", "worker", "--gid=100"], "linux", "it gave up the rights"),
        (["python", "celery", "worker"], "darwin", "macOS"),
        ([], "linux", "it does not know the command"),
    ],
)
def test_ability(command: list[str], platform: str, said: str) -> None:
    assert ability(command, platform).startswith(said)
