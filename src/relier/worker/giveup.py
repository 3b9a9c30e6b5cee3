"""A task that no worker could run for as long as it was kept: it fails, then is a dead letter.

In this order, and with consequences that are the same each time: a process that dies in between
leaves a claim that has not started, and whoever takes that up does all of it again.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.app.task import Context

from relier.errors import RelierError
from relier.protocol import identity
from relier.store import claiming, fleet
from relier.store.broker import Broker
from relier.worker import consequences
from relier.worker.membership import Held
from relier.worker.publish import Consequence
from relier.worker.refusal import bury
from relier.worker.trouble import may_pass

logger = logging.getLogger(__name__)

_AGAIN_MS = 10_000
_NEVER = 2**31


def give_up(app: Any, message: Any, held: Held, name: str, reason: str, error: RelierError) -> None:
    """Fail a claimed task that never started, and bury it.

    Its result says FAILURE, its chord counts it, its errbacks are called: nobody waits for ever
    for a task that nobody can run. Trouble that passes puts it off once more.
    """
    broker: Broker = app.relier.broker
    try:
        _fail(app, broker, message, held, error)
    except Exception as trouble:
        if may_pass(trouble):
            logger.warning("%s cannot fail yet (%r); trying again", held.who.task_id, trouble)
            _put_off(broker, held, reason)
            return
        # The dead letter says it all.
        logger.exception("could not store the failure of %s", held.who.task_id)
    text = f"{type(error).__name__}: {error}"
    bury(broker, held.claim, held.who, text, name, reason=reason)


def _fail(app: Any, broker: Broker, message: Any, held: Held, error: RelierError) -> None:
    _, _, embed = message.payload
    request = Context({**message.headers, **(embed or {})})
    task_id = held.who.task_id
    root = fleet.root_token(broker.store, task_id) or held.who.token
    sender = Consequence(root, task_id, identity.generation(message.headers))
    consequences.send_failure(app, request, error, "", sender, store_result=True, again=True)


def _put_off(broker: Broker, held: Held, reason: str) -> None:
    broker.store.run(
        claiming.defer(
            broker.keys,
            held.claim,
            held.who,
            delay_ms=_AGAIN_MS,
            most_deferrals=_NEVER,
            letter={"reason": reason},
        )
    )
