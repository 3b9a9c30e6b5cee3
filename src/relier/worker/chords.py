"""Chords: a part counts once, and a body that was not accepted is published again.

Celery's backends count parts each in its own way, and take an error while they publish the body
for the chord's own failure. Here its Redis backend counts by a script of ours, and trouble that
passes goes back to whoever sends the consequences, to try again. Backends that count in other
ways, which a crash would make miscount, have Celery's `chord_unlock` wait for the parts' results.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from celery import states
from celery.app.task import Context
from celery.backends.base import Backend, BaseKeyValueStoreBackend
from celery.backends.redis import RedisBackend
from celery.canvas import Signature, maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult, allow_join_result
from celery.utils.functional import maybe_list
from kombu.utils.encoding import bytes_to_str

from relier.store.scripts import load
from relier.worker.pinning import pin
from relier.worker.publish import Consequence, on_behalf_of, parent
from relier.worker.trouble import may_pass

logger = logging.getLogger(__name__)

_COUNT, _CLOSE = load("count_part"), load("close_chord")
_LEASE = "relier"
_LEASE_S = 24 * 3600
_DONE_S = 300
_POLLED = "rl_polled"
"""A header of the body of a chord whose parts are waited for by `chord_unlock`."""


class TakenError(OSError):
    """A worker without relier is publishing a chord's body; whether it did shows later."""


class _UnsentError(BaseException):
    """Trouble on its way through Celery's code, which takes an Exception for the chord's own."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def trouble_travels() -> Iterator[None]:
    """Raise what kept an errback from being sent, though Celery would go on without it."""
    try:
        yield
    except _UnsentError as unsent:
        raise unsent.error from None


def take_over(backend: Any) -> Any:
    """Have a result backend count chord parts our way, once; return it."""
    if "_call_task_errbacks" in backend.__dict__ or not isinstance(backend, Backend):
        return backend
    backend._call_task_errbacks = partial(_call_errbacks, backend)
    if _is_redis(backend):
        backend.on_chord_part_return = partial(_return_part, backend)
    elif _counts(backend):
        backend.apply_chord = partial(_apply_polled, backend)
        backend.on_chord_part_return = partial(_return_polled, backend)
    return backend


def count_failed_steps(backend: Any, chain: Iterable[Any] | None, error: BaseException) -> None:
    """Count the later steps of a failed chain as chord parts, whatever their stored state.

    Celery stores a step's failure, then counts it, and counts no step whose failure is stored: a
    process that died in between would have left the chord waiting for ever. A part counts once.
    """
    steps = deque(chain or ())
    while steps and _is_redis(backend):
        step = steps.popleft()
        if step["options"].get("chord"):
            part = Context(step)
            part.update(part.options)
            part.id, part.group = part.options.get("task_id"), part.options.get("group_id")
            backend.on_chord_part_return(part, states.FAILURE, error)
        if step.get("subtask_type") == "chord" and step["kwargs"].get("body"):
            steps.append(step["kwargs"]["body"])


def _is_redis(backend: Any) -> bool:
    return type(backend).on_chord_part_return is RedisBackend.on_chord_part_return


def _counts(backend: Any) -> bool:
    """Return whether a backend keeps some count of a chord's parts."""
    way = type(backend).on_chord_part_return
    if way is BaseKeyValueStoreBackend.on_chord_part_return:
        return bool(backend.implements_incr)
    return way is not Backend.on_chord_part_return


def _call_errbacks(backend: Any, request: Any, error: Any, traceback: Any) -> None:
    """Call errbacks; those sent as messages are the same tasks each time, and are not given up."""
    sender = parent()
    if sender is not None:
        request.errbacks = [
            pin(_signature(errback, backend.app), sender, f"errback {request.id} {index}")
            for index, errback in enumerate(maybe_list(request.errbacks) or ())
        ]
    try:
        type(backend)._call_task_errbacks(backend, request, error, traceback)
    except Exception as trouble:  # of the user's errbacks, or of a publish
        if sender is not None and may_pass(trouble):
            raise _UnsentError(trouble) from trouble
        raise


def _signature(found: Any, app: Any) -> Signature:
    signature: Signature = maybe_signature(found, app=app).clone()
    return signature


# -- Celery's Redis backend


class _RedisChord:
    """A chord's keys, as Celery's Redis backend names them."""

    def __init__(self, backend: Any, group_id: str) -> None:
        self._backend = backend
        self._group_id = group_id
        names = (".j", ".t", ".s", ".d", ".c")
        self._keys = [backend.get_key_for_group(group_id, name) for name in names]

    def count(self, request: Any, state: str, result: Any, root: str) -> str:
        """Count a part; the answer is as in `count_part.lua`."""
        backend = self._backend
        index = "+inf" if request.group_index is None else request.group_index
        # Celery leaves the first place free: there the part's life says which use of a chord,
        # that may be started again under the same ids, this is.
        part = backend.encode([root, request.id, state, backend.encode_result(result, state)])
        expires_s = getattr(backend, "chord_expires", backend.expires) or 0
        return self._call(
            _COUNT,
            [*self._keys, backend.get_key_for_group(self._group_id)],
            f"{request.id}:{index}",
            part,
            "zset" if backend._chord_zset else "list",
            index,
            int(expires_s),
            int(getattr(backend, "_chord_result_expires", 0)),
            _LEASE,
            _LEASE_S,
        )

    def parts(self) -> list[Any]:
        """Return the parts in the order of the header."""
        client, name = self._backend.client, self._keys[0]
        read = client.zrange if self._backend._chord_zset else client.lrange
        return [self._backend.decode(part) for part in read(name, 0, -1)]

    def close(self, *, failed: bool) -> None:
        """Forget the parts; those of a failed chord stay to be read."""
        # Before 5.7 Celery knows no such mark, and would not remove it when a chord starts again.
        marks = hasattr(self._backend, "_chord_cleanup_script")
        self._call(_CLOSE, self._keys, _LEASE, _DONE_S if marks else 0, int(failed))

    def _call(self, script: Any, keys: list[Any], *arguments: Any) -> str:
        client = self._backend.client
        return str(bytes_to_str(client.register_script(script.source)(keys, arguments)))


def _return_part(backend: Any, request: Any, state: str, result: Any, **kwargs: Any) -> None:
    """Take the place of the Redis backend's ``on_chord_part_return``."""
    sender = parent()
    if sender is None:
        type(backend).on_chord_part_return(backend, request, state, result, **kwargs)
        return
    if not (request.id and request.group):
        return
    chord = _RedisChord(backend, request.group)
    verdict = chord.count(request, state, result, sender.root)
    if verdict == "taken":
        raise TakenError(f"the body of chord {request.group} is being published by another worker")
    if verdict != "complete":
        return
    parts = chord.parts()
    root = next((part[0] for part in parts if isinstance(part[0], str)), "")
    publisher = Consequence(root, request.group, 0)
    body = pin(_signature(request.chord, backend.app), publisher, "body")
    failed = False
    with on_behalf_of(publisher):
        try:
            _publish(backend, request.group, body, parts)
        except ChordError as error:
            failed = True
            logger.error("chord %s failed: %s", request.group, error)
            with trouble_travels():
                backend.chord_error_from_stack(body, error)
            count_failed_steps(backend, body.options.get("chain"), error)
    chord.close(failed=failed)


def _publish(backend: Any, group_id: str, body: Signature, parts: list[Any]) -> None:
    """Publish a complete chord's body.

    Raises:
        ChordError: a part has failed, or the body can never be published.
    """
    try:
        body.delay(_values(backend, group_id, parts))
    except ChordError:
        raise
    except Exception as error:  # of a backend, or of encoding what the parts returned
        if may_pass(error):
            raise
        raise ChordError(f"Callback error: {error!r}") from error


def _values(backend: Any, group_id: str, parts: list[Any]) -> list[Any]:
    values = [backend._unpack_chord_result(part, lambda decoded: decoded) for part in parts]
    header = GroupResult.restore(group_id, backend=backend, app=backend.app)
    if header is None:
        return values
    # A header with groups in it was saved, for its values are to have the same shape.
    header.on_ready()
    join = header.join_native if header.supports_native_join else header.join
    with allow_join_result():
        shaped: list[Any] = join(timeout=backend.app.conf.result_chord_join_timeout)
    return shaped


# -- backends that count in ways of their own


def _apply_polled(backend: Any, header_result: Any, body: Signature, **kwargs: Any) -> None:
    """Take the place of ``apply_chord``: have `chord_unlock` wait for the parts."""
    body.options["headers"] = {**(body.options.get("headers") or {}), _POLLED: True}
    Backend.apply_chord(backend, header_result, body, **kwargs)


def _return_polled(backend: Any, request: Any, state: str, result: Any, **kwargs: Any) -> None:
    """Take the place of ``on_chord_part_return``: the stored result says it all."""
    options = request.chord.get("options") or {}
    if (options.get("headers") or {}).get(_POLLED):
        return
    if parent() is not None:
        logger.warning(
            "chord %s was started by a process without relier, and %s counts its parts in a way "
            "that a crash can make miscount: start chords from an app under Relier(app)",
            request.group,
            type(backend).__name__,
        )
    type(backend).on_chord_part_return(backend, request, state, result, **kwargs)
