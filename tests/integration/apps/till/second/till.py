"""A till, second edition: it charges cents, in a currency."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from celery import Celery, chain

from relier import Relier, SchemaRegistry, rl_task
from support.journal import Journal

app = Celery("till", broker=os.environ["TILL_URL"], backend=os.environ["TILL_URL"])
app.conf.task_default_queue = "till"
Relier(app, env="development", max_resurrections=1)


@SchemaRegistry.register_migration("till.charge", from_version=1)
def euros_to_cents(args: Any, kwargs: Any) -> Any:
    customer, euros = args
    if customer == "killer":
        Journal.from_env().write("killed", customer)
        os.kill(os.getpid(), 9)
    if customer == "odd":
        raise KeyError("no such customer")
    return (customer,), {**kwargs, "cents": 100 * euros, "currency": "EUR"}


@rl_task(name="till.charge", app=app, bind=True)
def charge(self: Any, customer: str, *, cents: int, currency: str) -> str:
    if customer.startswith("again") and not self.request.retries:
        raise self.retry(countdown=0)
    Journal.from_env().write("charged", "second", customer, cents, currency)
    return customer


@SchemaRegistry.register_migration("till.refund")
def refund_in_cents(args: Any, kwargs: Any) -> Any:
    customer, euros = args
    if customer == "killer":
        Journal.from_env().write("killed", customer)
        os.kill(os.getpid(), 9)
    return (customer,), {**kwargs, "cents": 100 * euros}


@rl_task(name="till.refund", app=app, idempotent=True)
def refund(customer: str, *, cents: int) -> str:
    Journal.from_env().write("refunded", "second", customer, cents)
    return customer


@rl_task(name="till.greet", app=app)
def greet(customer: str) -> str:
    return customer


if __name__ == "__main__":
    kind, *customers = sys.argv[1:]
    how = {"cents": 300, "currency": "EUR"}
    if kind == "chain":
        sent = [chain(greet.si(each), charge.si(each, **how)).delay() for each in customers]
    elif kind == "refund":
        sent = [refund.push(each, cents=300) for each in customers]
    elif kind == "delay":
        sent = [charge.delay(each, **how) for each in customers]
    else:
        sent = [charge.push(each, **how) for each in customers]
    print(json.dumps([each.id for each in sent]))
