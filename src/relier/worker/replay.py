"""Save an outcome so that another process can send its consequences, and read it back."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionInfo
from celery import states
from celery.exceptions import Ignore, Reject, Retry
from celery.result import result_from_tuple
from kombu.serialization import dumps, loads, prepare_accept_content

from relier.protocol import outcome as outcomes
from relier.protocol.identity import Claim, Identity
from relier.protocol.outcome import (
    Failure,
    Message,
    NewerOutcomeError,
    Outcome,
    Value,
    printable,
)
from relier.store import running
from relier.store.keys import Keys
from relier.store.operations import Operation
from relier.store.publishing import Outgoing
from relier.worker.ended import Ended
from relier.worker.publish import Outbox, requeueing
from relier.worker.publish import held_back as _hold

_LONGEST_TEXT = 100_000
_FAILURES = (states.FAILURE, states.RETRY, states.REJECTED, states.REVOKED)

encode = outcomes.encode
decode = outcomes.decode


def saved(task: Any, outbox: Outbox, task_id: str, ended: Ended, *, replaced: bool) -> Outcome:
    """Return the outcome of a run as it is to be kept.

    Raises:
        kombu.exceptions.EncodeError: the return value cannot be serialised.
    """
    own = [_message(q, m) for q, m in outbox.messages if m.task_id == task_id]
    others = [_message(q, m) for q, m in outbox.messages if m.task_id != task_id]
    return Outcome(
        state=ended.state,
        value=_value(task.app, ended.value) if ended.state == states.SUCCESS else None,
        failure=_failure(task, ended),
        next=own[-1] if own else None,
        published=others,
        continued=replaced and not own,
        letter=ended.letter,
        children=task.backend.current_task_children(task.request) or [],
    )


def read(task: Any, data: bytes) -> Ended:
    """Return how the body had ended.

    Raises:
        NewerOutcomeError: it ended in a way that only a newer worker knows.
    """
    outcome = decode(data)
    if outcome.state == states.SUCCESS:
        return _success(task.app, outcome.value)
    error = _exception(task, outcome)
    if outcome.state == states.RETRY:
        return Ended(states.RETRY, Retry(exc=error), None)
    if outcome.state == states.IGNORED:
        return Ended(states.IGNORED, Ignore(), None)
    if outcome.state == states.REVOKED:
        return Ended(states.REVOKED, error, None)
    if outcome.state == states.REJECTED:
        reasons = outcome.failure.exc_message if outcome.failure else []
        rejected = Reject(*reasons[:1], requeue=outcome.next is not None)
        return Ended(states.REJECTED, rejected, as_einfo(rejected))
    if outcome.state != states.FAILURE:
        raise NewerOutcomeError(f"it ended as {outcome.state!r}, which this relier does not know")
    traceback = outcome.failure.traceback if outcome.failure else ""
    return Ended(states.FAILURE, error, as_einfo(error, traceback))


def children(task: Any, outcome: Outcome) -> list[Any]:
    """Return the results of what the body dispatched, as the result backend keeps them."""
    return [result_from_tuple(each, task.app) for each in outcome.children]


def ack(keys: Keys, claim: Claim, who: Identity, outcome: Outcome) -> Operation[bool]:
    """Return the operation that ends a claim after its consequences were accepted."""
    if outcome.next is not None:
        return running.ack_next(
            keys, claim, who.task_id, outcome.next.queue, _outgoing(outcome.next)
        )
    if outcome.continued:
        return running.ack_continued(keys, claim, who.task_id)
    if outcome.letter:
        failure = outcome.failure
        letter = {
            "reason": outcome.letter,
            "name": who.name,
            "error": f"{failure.exc_type}: {' '.join(failure.exc_message)}" if failure else "",
            "traceback": failure.traceback if failure else "",
        }
        return running.ack_dead(keys, claim, who.task_id, letter)
    return running.ack(keys, claim, who.task_id)


def held_back(outcome: Outcome) -> list[tuple[str, Outgoing]]:
    """Return the publishes that waited for the commit."""
    return [(message.queue, _outgoing(message)) for message in outcome.published]


def publish_again(task: Any, request: Any, outbox: Outbox) -> None:
    """Put the message itself into the outbox, for ``Reject(requeue=True)``."""
    with _hold(outbox), requeueing():
        task.signature_from_request(request, retries=request.retries).apply_async()


def _message(queue: str, out: Outgoing) -> Message:
    raw = out.raw.encode() if isinstance(out.raw, str) else out.raw
    return Message(queue, *out[:6], raw, out.expires_ms)


def _outgoing(message: Message) -> Outgoing:
    return Outgoing(
        message.task_id,
        message.token,
        message.generation,
        message.suffix,
        message.delay_ms,
        message.name,
        message.raw,
        message.expires_ms,
    )


def encode_value(app: Any, value: Any) -> bytes:
    """Return a result as an idempotency key keeps it.

    Raises:
        kombu.exceptions.EncodeError: it cannot be serialised.
    """
    return outcomes.encode_value(_value(app, value))


def read_value(app: Any, data: bytes) -> Ended:
    """Return the success that an idempotency key kept."""
    return _success(app, outcomes.decode_value(data))


def _success(app: Any, value: Value | None) -> Ended:
    if value is None:
        return Ended(states.SUCCESS, None)
    # It comes out of Redis like a result: no more is unpickled of it than of one.
    conf = app.conf
    accept = prepare_accept_content(
        [conf.result_serializer, *(conf.result_accept_content or conf.accept_content)]
    )
    decoded = loads(value.data, value.content_type, value.content_encoding, accept=accept)
    return Ended(states.SUCCESS, decoded)


def _value(app: Any, value: Any) -> Value:
    content_type, encoding, data = dumps(value, serializer=app.conf.result_serializer)
    return Value(content_type, encoding, data.encode() if isinstance(data, str) else data)


def _failure(task: Any, ended: Ended) -> Failure | None:
    error = ended.value.exc if ended.state == states.RETRY else ended.value
    if ended.state not in _FAILURES or error is None:
        return None
    parts = task.backend.prepare_exception(error, serializer="json")
    message = parts["exc_message"]
    texts = [str(each) for each in message] if isinstance(message, list | tuple) else [str(message)]
    texts = [printable(each, _LONGEST_TEXT) for each in texts]
    traceback = printable(ended.traceback, _LONGEST_TEXT)
    return Failure(parts["exc_type"], parts["exc_module"], texts, traceback)


def as_einfo(error: BaseException, traceback: str = "") -> ExceptionInfo:
    """Return the error as Celery reports errors, with the traceback of where it really arose."""
    try:
        raise error
    except BaseException:  # noqa: BLE001 - raised on the line above, only to be described
        einfo = ExceptionInfo()
    einfo.traceback = traceback or einfo.traceback
    return einfo


def _exception(task: Any, outcome: Outcome) -> BaseException:
    failure = outcome.failure
    if failure is None:
        return RuntimeError(f"ended as {outcome.state}")
    error: BaseException = task.backend.exception_to_python(
        {
            "exc_type": failure.exc_type,
            "exc_module": failure.exc_module,
            "exc_message": failure.exc_message,
        }
    )
    return error
