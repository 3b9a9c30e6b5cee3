from __future__ import annotations

import inspect
import json
import pickle

import pytest
from celery import Celery

from relier import errors
from relier.errors import RelierError

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


@pytest.mark.parametrize("error", TREE)
def test_an_error_crosses_processes_and_result_backends(error: type[Exception]) -> None:
    copy = pickle.loads(pickle.dumps(error("what to do")))
    assert (type(copy), copy.args) == (error, ("what to do",))

    backend = Celery(backend="cache+memory://").backend
    stored = json.loads(json.dumps(backend.prepare_exception(error("what to do"), "json")))
    restored = backend.exception_to_python(stored)
    assert (type(restored), str(restored)) == (error, "what to do")
