"""Canvas: callbacks, chains, groups and chords, nested and failing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from celery import chain, chord, group
from celery.app.task import Context

from relier.store.embedded import EmbeddedServer
from relier.worker import consequences
from relier.worker.chords import TakenError
from relier.worker.publish import Consequence
from support.kitchen import RESULT_S, Kitchen, open_kitchen
from support.settled import assert_settled
from support.wait import wait_for


@pytest.fixture(scope="module")
def kitchen(
    session_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kitchen]:
    with open_kitchen(session_server, tmp_path_factory.mktemp("canvas")) as running:
        yield running


def test_link(kitchen: Kitchen) -> None:
    word = kitchen.word()
    add, write = kitchen.tasks["add"], kitchen.tasks["write"]
    add.apply_async((1, 2), link=[write.s(word, 1), write.si(word, 2)]).get(RESULT_S)
    wait_for(lambda: kitchen.journal.count("write") >= 2, RESULT_S)
    assert kitchen.journal.count("write", 3, word, 1) == 1
    assert kitchen.journal.count("write", word, 2) == 1


def test_link_error_as_a_message(kitchen: Kitchen) -> None:
    receipt = kitchen.tasks["end"].apply_async(("error",), link_error=kitchen.tasks["on_error"].s())
    wait_for(lambda: kitchen.journal.count("on_error", receipt.id), RESULT_S)
    assert kitchen.journal.count("on_error", receipt.id) == 1


def test_link_error_called_in_place(kitchen: Kitchen) -> None:
    errback = kitchen.tasks["on_error_inline"].s()
    receipt = kitchen.tasks["end"].apply_async(("error",), link_error=errback)
    wait_for(lambda: kitchen.journal.count("on_error_inline", receipt.id), RESULT_S)
    assert kitchen.journal.count("on_error_inline", receipt.id, "ValueError") == 1


def test_chain(kitchen: Kitchen) -> None:
    add = kitchen.tasks["add"]
    result = chain(add.s(1, 2), add.s(3), add.s(4)).apply_async()
    assert result.get(RESULT_S) == 10
    assert result.parent.get(RESULT_S) == 6
    assert (add.s(1, 1) | add.s(1)).delay().get(RESULT_S) == 3


def test_a_failing_chain_stops(kitchen: Kitchen) -> None:
    word = kitchen.word()
    steps = chain(kitchen.tasks["end"].si("error"), kitchen.tasks["write"].si(word))
    result = steps.apply_async()
    assert isinstance(result.get(RESULT_S, propagate=False), ValueError)
    assert not kitchen.journal.count("write", word)


def test_group(kitchen: Kitchen) -> None:
    add = kitchen.tasks["add"]
    assert group(add.s(n, n) for n in range(10)).apply_async().get(RESULT_S) == [
        2 * n for n in range(10)
    ]


def test_chord(kitchen: Kitchen) -> None:
    add, total = kitchen.tasks["add"], kitchen.tasks["total"]
    assert chord((add.s(n, 1) for n in range(10)), total.s()).apply_async().get(RESULT_S) == 55


def test_a_failing_chord_calls_the_errback_of_its_body_once(kitchen: Kitchen) -> None:
    add, total, end = (kitchen.tasks[name] for name in ("add", "total", "end"))
    body = total.s().on_error(kitchen.tasks["on_error"].s())
    result = chord([add.s(1, 1), end.si("error")], body).apply_async()
    assert "as told" in str(result.get(RESULT_S, propagate=False))
    wait_for(lambda: kitchen.journal.count("on_error", result.id), RESULT_S)
    assert kitchen.journal.count("on_error", result.id) == 1


def test_the_parts_of_a_failed_chord_can_be_read_and_are_not_counted_again(
    kitchen: Kitchen,
) -> None:
    app, (add, total, end) = kitchen.app, (kitchen.tasks[n] for n in ("add", "total", "end"))
    canvas = chord(group(add.s(1, 1), end.si("error")), total.s())
    canvas.freeze()
    for _ in range(2):
        failed = canvas.apply_async()
        assert "as told" in str(failed.get(RESULT_S, propagate=False))
        assert_settled(kitchen.client)
        parts = app.backend.get_key_for_group(failed.parent.id, ".j")
        states = [app.backend.decode(each)[2] for each in kitchen.client.zrange(parts, 0, -1)]
        assert sorted(states) == ["FAILURE", "SUCCESS"]


def test_nested(kitchen: Kitchen) -> None:
    add, total = kitchen.tasks["add"], kitchen.tasks["total"]
    inner = chord([add.s(1, 1), add.s(2, 2)], total.s())
    canvas = chain(
        add.s(1, 1), group(add.s(1), add.s(2)), total.s(), group(add.s(1), add.s(2)), total.s()
    )
    assert chord([inner, canvas], total.s()).apply_async().get(RESULT_S) == 6 + 17


def test_map_starmap_and_chunks(kitchen: Kitchen) -> None:
    add, total = kitchen.tasks["add"], kitchen.tasks["total"]
    assert total.map([[1, 2], [3]]).apply_async().get(RESULT_S) == [3, 3]
    assert add.starmap([(1, 2), (3, 4)]).apply_async().get(RESULT_S) == [3, 7]
    chunks = add.chunks([(n, n) for n in range(4)], 2).group().apply_async()
    assert chunks.get(RESULT_S) == [[0, 2], [4, 6]]


def test_a_failing_chord_whose_body_is_a_group_calls_the_errbacks_of_each_once(
    kitchen: Kitchen,
) -> None:
    add, total, end = (kitchen.tasks[name] for name in ("add", "total", "end"))
    body = group(total.s().on_error(kitchen.tasks["on_error"].s()) for _ in range(2))
    result = chord([add.s(1, 1), end.si("error")], body).apply_async()
    for each in result.results:
        wait_for(lambda each=each: kitchen.journal.count("on_error", each.id), RESULT_S)
    assert_settled(kitchen.client)
    assert [kitchen.journal.count("on_error", each.id) for each in result.results] == [1, 1]
    assert [each.status for each in result.results] == ["FAILURE", "FAILURE"]


def test_a_part_waits_for_a_worker_without_relier_that_publishes_the_body(kitchen: Kitchen) -> None:
    app, word = kitchen.app, kitchen.word()
    body = kitchen.tasks["write"].s(word).set(task_id=f"body-{word}")
    request = Context({"id": f"part-{word}", "group": f"group-{word}", "delivery_info": {}})
    request.chord = dict(body)
    app.backend.set_chord_size(request.group, 1)
    lease = app.backend.get_key_for_group(request.group, ".c")
    kitchen.client.set(lease, "another")
    send = partial(
        consequences.send_success,
        *(kitchen.tasks["add"], request, 3, Consequence("root", request.id, 0)),
        store_result=True,
    )
    with pytest.raises(TakenError):
        send()
    assert_settled(kitchen.client)
    assert not kitchen.journal.count("write", "[3]", word)
    kitchen.client.delete(lease)  # it died: its lease ends
    for _ in range(2):
        send()
    wait_for(lambda: kitchen.journal.count("write", "[3]", word), RESULT_S)
    assert_settled(kitchen.client)
    assert kitchen.journal.count("write", "[3]", word) == 1


def test_a_frozen_chord_may_be_started_again(kitchen: Kitchen) -> None:
    word, write = kitchen.word(), kitchen.tasks["write"]
    frozen = chord([kitchen.tasks["add"].si(1, 1), kitchen.tasks["add"].si(2, 2)], write.s(word))
    frozen.freeze()
    for times in (1, 2):
        frozen.apply_async()
        wait_for(lambda times=times: kitchen.journal.count("write") >= times, RESULT_S)
        assert_settled(kitchen.client)
    assert kitchen.journal.count("write", "[2, 4]", word) == 2


def test_two_failing_chains_of_a_chord_make_one_errback(kitchen: Kitchen) -> None:
    """Whichever of two parts finds the chord complete, as when both of their processes had died."""
    app, word = kitchen.app, kitchen.word()
    errback = kitchen.tasks["on_error"].s()
    body = kitchen.tasks["total"].s().set(task_id=f"body-{word}", link_error=[errback])
    group_id = f"group-{word}"
    one, two = (_chain_that_failed(app, f"{word}-{n}", group_id, body) for n in (0, 1))
    for first, last in ((one, two), (two, one)):
        kitchen.client.delete(*kitchen.client.keys(f"*{group_id}*") or ["none"])
        app.backend.set_chord_size(group_id, 2)
        first()
        last()
        wait_for(lambda: kitchen.journal.count("on_error", f"body-{word}"), RESULT_S)
        assert_settled(kitchen.client)
    assert kitchen.journal.count("on_error", f"body-{word}") == 1


def _chain_that_failed(app: Any, word: str, group_id: str, body: Any) -> Callable[[], None]:
    """Return what sends the consequences of a failed first step of a chain in a chord."""
    end, write = app.tasks["end"], app.tasks["write"]
    last = write.s(word).set(task_id=f"last-{word}", group_id=group_id, chord=body)
    last.options["group_index"] = int(word[-1])
    request = Context({"id": f"first-{word}", "chain": [dict(last)], "delivery_info": {}})
    error, parent = ValueError("as told"), Consequence(f"root-{word}", f"first-{word}", 0)
    return partial(
        consequences.send_failure, end, request, error, "", parent, store_result=True, again=True
    )
