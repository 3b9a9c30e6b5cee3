from __future__ import annotations

import inspect
import json
import pickle

import pytest
from celery import Celery

from relier import errors
from relier.errors import AdmissionRejectedError, RelierError

TREE = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if cls.__module__ == errors.__name__
]


@pytest.mark.parametrize("error", TREE)
def test_one_tree_in_which_each_says_whose_fault_it_is(error: type[Exception]) -> None:
    assert issubclass(error, RelierError)
    assert error.__doc__
    assert error is RelierError or "fault" in error.__doc__


def arguments(error: type[Exception]) -> tuple[object, ...]:
    return (1.25, "what to do") if error is errors.AdmissionRejectedError else ("what to do",)


@pytest.mark.parametrize("error", TREE)
def test_an_error_crosses_processes_and_result_backends(error: type[Exception]) -> None:
    told = error(*arguments(error))
    copy = pickle.loads(pickle.dumps(told))
    assert (type(copy), copy.args, str(copy)) == (error, told.args, str(told))
    assert "what to do" in str(copy)

    backend = Celery(backend="cache+memory://").backend
    stored = json.loads(json.dumps(backend.prepare_exception(told, "json")))
    restored = backend.exception_to_python(stored)
    assert (type(restored), str(restored)) == (error, str(told))


def test_a_refusal_says_when_to_come_back() -> None:
    error = AdmissionRejectedError(12.0004)
    assert error.retry_after == 12.0004
    assert error.headers == {"Retry-After": "13"}
    assert AdmissionRejectedError(0.001).headers == {"Retry-After": "1"}
    # Some ways of storing an exception turn its arguments into text.
    assert AdmissionRejectedError("1.5").retry_after == 1.5


def test_what_a_bulk_dispatch_had_accepted_crosses_processes() -> None:
    error = AdmissionRejectedError(1)
    assert error.accepted == ()
    error.accepted = ("a", "b")
    assert pickle.loads(pickle.dumps(error)).accepted == ("a", "b")
