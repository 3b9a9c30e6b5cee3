"""Tasks behind signatures, for `celery -A integration.apps.vault`; keys come by RELIER_*."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery

from relier import Relier, rl_task
from support.journal import Journal

QUEUE = "vault"
BROKER = "VAULT_BROKER"


def note(*words: object) -> None:
    """Write into the test's journal."""
    Journal.from_env().write(*words)


def build(url: str, **settings: Any) -> Celery:
    """Make the app; its workers would even unpickle what they trust."""
    app = Celery("vault", broker=url, backend=url, set_as_current=False)
    app.conf.task_default_queue = QUEUE
    app.conf.accept_content = ["json", "pickle"]
    app.conf.result_expires = 600
    Relier(app, env="development", max_resurrections=0, **settings)

    @rl_task(app=app, shared=False, name="open")
    def open_(word: str) -> str:
        note("opened", word, os.getppid())
        return word

    @rl_task(app=app, shared=False, name="total")
    def total(words: list[str]) -> str:
        return "+".join(words)

    @rl_task(app=app, shared=False, name="twice", bind=True, max_retries=1)
    def twice(self: Any, word: str, countdown_s: int = 0) -> str:
        if not self.request.retries:
            raise self.retry(countdown=countdown_s)
        return word

    @rl_task(app=app, shared=False, name="another", bind=True)
    def another(self: Any, word: str) -> Any:
        raise self.replace(app.tasks["open"].s(word))

    @rl_task(app=app, shared=False, name="fatal")
    def fatal(antidote: str) -> str:
        if not Path(antidote).exists():
            os.kill(os.getpid(), 9)
        return "survived"

    app.finalize()
    return app


if BROKER in os.environ:
    app = build(os.environ[BROKER])
