"""A till, first edition: it charges euros. Run as a program, it dispatches what it is told."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from celery import Celery, chain

from relier import Relier, rl_task
from support.journal import Journal

app = Celery("till", broker=os.environ["TILL_URL"], backend=os.environ["TILL_URL"])
app.conf.task_default_queue = "till"
Relier(app, env="development", max_resurrections=1)


@rl_task(name="till.charge", app=app, bind=True)
def charge(self: Any, customer: str, euros: int) -> str:
    if customer.startswith("again") and not self.request.retries:
        raise self.retry(countdown=0)
    Journal.from_env().write("charged", "first", customer, 100 * euros)
    return customer


@rl_task(name="till.refund", app=app, idempotent=True)
def refund(customer: str, euros: int) -> str:
    Journal.from_env().write("refunded", "first", customer, 100 * euros)
    return customer


@rl_task(name="till.greet", app=app)
def greet(customer: str) -> str:
    return customer


if __name__ == "__main__":
    kind, *customers = sys.argv[1:]
    if kind == "chain":
        sent = [chain(greet.si(each), charge.si(each, 3)).delay() for each in customers]
    elif kind == "refund":
        sent = [refund.push(each, 3) for each in customers]
    elif kind == "delay":
        sent = [charge.delay(each, 3) for each in customers]
    else:
        sent = [*charge.push_many([(each, 3) for each in customers])]
    print(json.dumps([each.id for each in sent]))
