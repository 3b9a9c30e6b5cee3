"""A till whose makers forgot a migration."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from relier import Relier, SchemaRegistry, rl_task

app = Celery("till", broker=os.environ["TILL_URL"])
Relier(app, env="development")


@SchemaRegistry.register_migration("till.charge", from_version=2)
def add_currency(args: Any, kwargs: Any) -> Any:
    return args, {**kwargs, "currency": "EUR"}


@rl_task(name="till.charge", app=app)
def charge(customer: str, cents: int, currency: str) -> None: ...
