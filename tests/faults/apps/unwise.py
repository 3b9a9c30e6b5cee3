"""Plain tasks, with the settings under which stock Celery loses or repeats them."""

from __future__ import annotations

import os

from celery import Celery, Task
from kombu import Exchange, Queue

from faults.apps import labour
from faults.apps.labour import BROKER, QUEUE, gate
from relier import Relier
from support.journal import Journal
from support.wait import wait_for

EXCHANGE = "named"
STOCK_TRANSPORT = "RELIER_TEST_STOCK_TRANSPORT"
"""Makes an app that names the stock transport once it is under relier."""


def hold(word: str) -> None:
    """Run until the test opens the gate."""
    journal = Journal.from_env()
    journal.write("began", word)
    wait_for(gate(word).exists, labour.GATE_DEADLINE_S)
    journal.write("passed", word)


def again(self: Task, word: str) -> str:
    """Retry once, when the test lets it."""
    journal = Journal.from_env()
    journal.write("again", word, self.request.retries)
    if self.request.retries == 0:
        wait_for(gate(word).exists, labour.GATE_DEADLINE_S)
        journal.write("retrying", word)
        raise self.retry(countdown=0)
    return word


def build(broker: str, **settings: object) -> Celery:
    """Make an app with these tasks; a producer and its workers make the same one."""
    app = Celery("unwise", broker=broker, backend=broker, set_as_current=False)
    app.conf.update(
        broker_transport_options={"visibility_timeout": 1},
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_default_queue=QUEUE,
        task_queues=[Queue(QUEUE, Exchange(EXCHANGE), routing_key=QUEUE)],
    )
    Relier(app, protect_all=True, **settings)
    for function in (labour.note, hold, labour.poison):
        app.task(name=function.__name__, shared=False)(function)
    app.task(name="again", bind=True, shared=False)(again)
    return app


if BROKER in os.environ:
    app = build(os.environ[BROKER])
    if STOCK_TRANSPORT in os.environ:
        app.conf.broker_transport = "redis"
