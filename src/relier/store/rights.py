"""What the server lets this user do, asked before anything depends on it.

A script whose user may not run one of its commands stops at that command, with what came before it
done: half a move. So a worker asks first. It asks inside a script, where every user may ask for
himself; the ACL commands are for administrators.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from redis import exceptions

from relier.errors import RedisPermissionError
from relier.store.client import Store
from relier.store.fleet import known_queues
from relier.store.operations import Argument, Operation
from relier.store.scripts import load

_RIGHTS = load("rights")
_PLAIN = re.compile(r"[^\s\"'\\\x00-\x1f\x7f-\xff]+")
_MOST_QUEUES = 100
_CELERYS_QUEUE = "celery"
_KEY, _CHANNEL = "<key>", "<channel>"
_EVERY_CHANNEL = "&*"
_READS, _WRITES = ("HGET", _KEY, "0"), ("HSET", _KEY, "0", "0")

_CALLS = {
    "": "CLIENT|ID EXEC INFO MULTI PING PUNSUBSCRIBE TIME UNSUBSCRIBE UNWATCH",
    "0": "SCRIPT|EXISTS SCRIPT|LOAD SELECT",
    "0 0": "EVAL EVALSHA",
    "<channel>": "PSUBSCRIBE SUBSCRIBE",
    "<channel> 0": "PUBLISH",
    "<key>": "DEL EXISTS GET HGETALL HKEYS HLEN INCR LLEN LPOP MGET PTTL RPOP SCARD SMEMBERS "
    "SRANDMEMBER TYPE UNLINK WATCH ZCARD",
    "<key> 0": "BRPOP BZPOPMIN EXPIRE HDEL HEXISTS HGET HMGET HSCAN HSTRLEN LINDEX LPUSH PEXPIRE "
    "RPUSH SADD SET SREM ZRANK ZREM ZSCAN ZSCORE",
    "<key> 0 0": "HINCRBY HSET HSETNX LRANGE LSET LTRIM SETEX XRANGE XREVRANGE ZADD ZCOUNT ZRANGE "
    "ZRANGEBYSCORE ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYSCORE",
    "<key> * 0 0": "XADD",
    "<key> MAXLEN 1": "XTRIM",
    "STREAMS <key> 0": "XREAD",
}
"""What the scripts, the clients, kombu and Celery's Redis backend call, by what a whole call of it
looks like. Redis 7.0 crashes when it is asked about a command with words missing."""

NEEDED = {
    command: (*command.split("|"), *form.split())
    for form, commands in _CALLS.items()
    for command in commands.split()
}
"""Every command that relier cannot do without, as a whole call of it."""

_MISSED = {
    "ACL|WHOAMI": ("ACL", "WHOAMI"),
    "CLIENT|LIST": ("CLIENT", "LIST"),
    "CONFIG|GET": ("CONFIG", "GET", "appendonly"),
    "DBSIZE": ("DBSIZE",),
    "SCAN": ("SCAN", "0"),
}
"""What the guarantees can do without: deaths are noticed later, or somebody is told less."""


class Rights(NamedTuple):
    """What a user lacks.

    Args:
        user: the user's name; "" when the server does not tell.
        forbidden: commands without which tasks would be lost.
        patterns: of keys and channels, likewise, as ``ACL SETUSER`` takes them.
        missed: commands that relier can do without.
    """

    user: str
    forbidden: tuple[str, ...]
    patterns: tuple[str, ...]
    missed: tuple[str, ...]

    @property
    def enough(self) -> bool:
        """Return whether every guarantee can be kept."""
        return not self.forbidden and not self.patterns

    @property
    def grant(self) -> str:
        """Return the line for redis-cli that grants what is lacking; "" when nothing is."""
        commands = [*self.forbidden, *self.missed]
        if not commands and not self.patterns:
            return ""
        rules = [*self.patterns, *(f"+{each.lower()}" for each in commands)]
        return " ".join(["ACL SETUSER", *map(_quoted, [self.user or "USER", *rules])])


def rights(store: Store) -> Rights:
    """Ask what this user may do: each command, and each kind of key.

    Raises:
        RedisConnectionError: the server is away.
        UnsupportedServerError: it is too old.
    """
    kinds = _kinds(store)
    (own, own_pattern), *others = kinds.items()
    calls = {name: _about(call, own) for name, call in (NEEDED | _MISSED).items()}
    probes = {key: [_about(each, key) for each in (_READS, _WRITES)] for key, _ in others}
    questions = [*calls.values(), *(each for both in probes.values() for each in both)]
    try:
        answers = store.run(_asking(questions))
        allowed = dict(zip(questions, answers, strict=True))
    except RedisPermissionError:
        # Not even scripts are allowed, so there is nobody to ask about the rest.
        allowed = {}
    refused = [name for name, call in calls.items() if not allowed.get(call)]
    # One who may do nothing at all with a key lacks the key, as far as anybody can tell; and a verb
    # that is refused on our own says nothing of the others.
    locked_out = {name for name, call in NEEDED.items() if _KEY in call}.issubset(refused)
    patterns = [own_pattern] if locked_out else []
    for key, pattern in others:
        telling = [each for each in probes[key] if locked_out or each[0] not in refused]
        if not all(allowed.get(each) for each in telling):
            patterns.append(pattern)
    if any(_CHANNEL in NEEDED.get(name, ()) for name in refused):
        patterns.append(_EVERY_CHANNEL)
    return Rights(
        _user(store),
        tuple(name for name in refused if name in NEEDED),
        tuple(patterns),
        tuple(name for name in refused if name in _MISSED),
    )


def _asking(questions: Sequence[Sequence[str]]) -> Operation[list[int]]:
    arguments: list[Argument] = []
    for words in questions:
        arguments += [len(words), *words]
    return Operation(_RIGHTS, [], arguments, _answers)


def _answers(reply: Sequence[int]) -> list[int]:
    return list(reply)


def _about(call: Sequence[str], key: str) -> tuple[str, ...]:
    named = {_KEY: key, _CHANNEL: "/0.celery.pidbox"}
    return tuple(named.get(word, word) for word in call)


def _kinds(store: Store) -> dict[str, str]:
    """Return a key of each kind, with the pattern that allows it; relier's own first."""
    keys = store.keys
    literal = _literal(keys.prefix)
    return {
        keys.task("id"): f"~{literal}rl:*",
        f"{keys.prefix}_kombu.binding.id": f"~{literal}_kombu.*",
        f"{keys.prefix}id.reply.celery.pidbox": f"~{literal}*.pidbox*",
        "celery-task-meta-id": "~celery-task*",
        **{keys.list(each): f"~{_literal(keys.list(each))}*" for each in _queues(store)},
    }


def _literal(name: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", name)


def _queues(store: Store) -> list[str]:
    try:
        known = known_queues(store)[:_MOST_QUEUES]
    except exceptions.NoPermissionError:
        known = []
    return known or [_CELERYS_QUEUE]


def _user(store: Store) -> str:
    try:
        name: bytes | str = store.redis.acl_whoami()
    except exceptions.ResponseError:
        return ""
    return name.decode() if isinstance(name, bytes) else name


def _quoted(word: str) -> str:
    """Write a word as redis-cli reads it."""
    if _PLAIN.fullmatch(word):
        return word
    return '"' + "".join(_escaped(byte) for byte in word.encode()) + '"'


def _escaped(byte: int) -> str:
    if byte in b'"\\':
        return f"\\{chr(byte)}"
    return chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"
