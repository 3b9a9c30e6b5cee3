"""A stock Celery app with tasks of the same names: no relier anywhere."""

from __future__ import annotations

import os

from celery import Celery

from support.journal import Journal


def make_app(url: str) -> Celery:
    """Make the app."""
    app = Celery("stock", broker=url, backend=url, set_as_current=False)

    @app.task(shared=False, name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(shared=False, name="write")
    def write(*words: object) -> None:
        Journal.from_env().write("write", *words)

    app.finalize()
    return app


if "STOCK_BROKER" in os.environ:
    app = make_app(os.environ["STOCK_BROKER"])
