"""Idempotency keys: what makes two calls the same call.

A key is the SHA-256 of one canonical text of the arguments, so it does not depend on how they were
passed, on the order of a dict, or on the serializer that carried them: a tuple and a list of the
same things agree, 1 and "1" and 1.0 and True do not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec

LONGEST_KEPT_S = 315_360_000
"""Ten years; a result that Redis is told to keep for much longer it refuses to keep at all."""

_TAG = "\x00"
_encode = msgspec.json.Encoder(order="sorted").encode
_DEEPEST = 100


class NotCanonicalError(ValueError):
    """A value has no canonical form; the text says which and where."""


def digest(value: object) -> str:
    """Return the key of a value: 64 hexadecimal digits.

    Raises:
        NotCanonicalError: the value, or something in it, has no canonical form.
    """
    try:
        return hashlib.sha256(_encode(_canonical(value, "", _DEEPEST))).hexdigest()
    except (UnicodeEncodeError, OverflowError, msgspec.MsgspecError) as error:
        raise NotCanonicalError(str(error)) from error


def _canonical(value: object, path: str, depth: int) -> object:
    """Return a tree of plain JSON values; what JSON cannot say carries its type's name."""
    if depth == 0:
        raise NotCanonicalError(f"{path} is nested too deeply")
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else {_TAG: ["int", str(int(value))]}
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotCanonicalError(f"{path or 'it'} is {value}, which equals nothing")
        return {_TAG: ["float", value.hex()]}
    if isinstance(value, list | tuple):
        return [_canonical(each, f"{path}[{i}]", depth - 1) for i, each in enumerate(value)]
    if isinstance(value, Mapping):
        return {_name(k, path): _canonical(v, f"{path}.{k}", depth - 1) for k, v in value.items()}
    if isinstance(value, bytes | bytearray):
        return {_TAG: ["bytes", bytes(value).hex()]}
    if isinstance(value, datetime | date | time):
        return {_TAG: [type(value).__name__, value.isoformat()]}
    if isinstance(value, timedelta):
        return {_TAG: ["timedelta", [value.days, value.seconds, value.microseconds]]}
    if isinstance(value, Decimal | UUID):
        return {_TAG: [type(value).__name__, str(value)]}
    raise NotCanonicalError(
        f"{path or 'it'} is a {type(value).__name__}, which has no canonical form"
    )


def _name(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise NotCanonicalError(f"{path or 'it'} has the key {key!r}, which is no text")
    return key
