"""What every command has: how it finds Redis, how it answers, how it fails."""

from __future__ import annotations

import difflib
import functools
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

import click

from relier import config, errors
from relier.cli import words

if TYPE_CHECKING:
    from rich.console import Console

    from relier.store.broker import Broker

FAILED, USAGE, AWAY, NOT_FOUND, INTERRUPTED = 1, 2, 3, 4, 130
"""Exit statuses; click's own is 2 for wrong usage, too."""

_PIPE_WIDTH = 10_000


class _Trimmed:
    """Standard output without the blanks with which rich fills its lines."""

    def write(self, text: str) -> int:
        return sys.stdout.write(re.sub(r" +$", "", text, flags=re.MULTILINE))

    def flush(self) -> None:
        sys.stdout.flush()


class FloatRange(click.FloatRange):
    """A number in a range; "nan", which no comparison finds outside of it, is refused, too."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number.

        Raises:
            click.BadParameter: it is none, or not in the range.
        """
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value} is not a number in {self._describe_range()}.", param, ctx)
        return found


class NotFoundError(Exception):
    """Nobody knows what was asked for; the message says what to try."""


def sure(asked: Asked, yes: bool, question: str) -> None:
    """Ask before something is destroyed; whoever cannot be asked says --yes.

    Raises:
        click.UsageError: this is no terminal, or its output is for a program, and --yes is missing.
        click.Abort: the answer was no.
    """
    if yes:
        return
    if asked.as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(f"{question} Give --yes to say so.")
    click.confirm(words.safe(question), abort=True)


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three known names that look most like this one."""
    return difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.4)


def unknown(noun: str, name: str, known: Iterable[str], hint: str) -> NotFoundError:
    """Return what to raise for a name that nobody knows.

    Args:
        noun: what it should name.
        known: the names there are.
        hint: what shows them; said when none of them is like it.
    """
    near = nearest(name, known)
    said = f"did you mean {' or '.join(near)}?" if near else hint
    return NotFoundError(f"there is no {noun} {name}: {said}")


@dataclass(frozen=True)
class Asked:
    """The options that every command has."""

    as_json: bool
    url: str | None
    prefix: str

    @functools.cached_property
    def broker(self) -> Broker:
        """Return the broker that was asked for.

        Raises:
            ConfigurationError: a setting, or the URL, cannot work.
        """
        return broker_of(self.settings, self.prefix)

    @property
    def settings(self) -> config.Settings:
        """Return the settings, read from the environment and `.env`, the URL from `--url` first."""
        overrides = {"redis_url": self.url} if self.url else {}
        return config.load(os.environ, Path(".env"), overrides)

    def answer(self, facts: Any) -> bool:
        """Print the facts as JSON if that was asked for; return whether it was."""
        if self.as_json:
            import msgspec

            click.echo(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode())
        return self.as_json


def broker_of(settings: config.Settings, prefix: str) -> Broker:
    """Return the broker that settings name.

    Raises:
        ConfigurationError: its URL cannot work.
    """
    from relier.store.address import Address
    from relier.store.broker import Broker

    url, password = settings.redis_url or config.DEFAULT_REDIS_URL, settings.redis_password
    options = {"password": password} if password and "@" not in url else {}
    return Broker(Address.parse(url, options), settings, prefix)


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command its common options and its way of failing.

    The function's first argument is an ``Asked``; what it returns is the exit status (None: 0).
    """

    @click.option("--json", "as_json", is_flag=True, help="Answer as JSON.")
    @click.option(
        "--url", metavar="URL", help="The Redis to ask; else RELIER_REDIS_URL, .env, localhost."
    )
    @click.option(
        "--prefix", default="", metavar="TEXT", help="The app's global_keyprefix, if it has one."
    )
    @functools.wraps(function)
    def wrapped(as_json: bool, url: str | None, prefix: str, **options: Any) -> None:
        asked = Asked(as_json, url, prefix)
        with failing(asked, reaches=nullcontext()):
            _refuse_what_is_no_text({"--url": url, "--prefix": prefix, **options})
        with failing(asked):
            status = function(asked, **options)
        sys.exit(status or 0)

    return wrapped


def _refuse_what_is_no_text(options: Mapping[str, Any]) -> None:
    """Refuse bytes of a command line that are not UTF-8: no key of relier's can be made of them.

    Raises:
        ConfigurationError: naming what was given.
    """
    for given in options.values():
        for each in given if isinstance(given, (tuple, list)) else (given,):
            try:
                str(each or "").encode()
            except UnicodeEncodeError as error:
                raise errors.ConfigurationError(
                    f"{each!a} is not valid UTF-8: give it as text in that encoding"
                ) from error


def offline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that asks no server its `--json` and its way of failing; see `command`."""

    @click.option("--json", "as_json", is_flag=True, help="Answer as JSON.")
    @functools.wraps(function)
    def wrapped(as_json: bool, **options: Any) -> None:
        asked = Asked(as_json, None, "")
        with failing(asked, reaches=nullcontext()):
            status = function(asked, **options)
        sys.exit(status or 0)

    return wrapped


@contextmanager
def failing(asked: Asked, *, reaches: AbstractContextManager[None] | None = None) -> Iterator[None]:
    """Turn what goes wrong into one line and an exit status.

    Args:
        reaches: what turns errors of what is reached into ours; the Redis that is asked for, unless
            told otherwise.
    """
    try:
        with reaches or _redis_answers(asked):
            yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader had enough (`rl tasks list | head`): nothing more goes into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except NotFoundError as error:
        _fail(asked, error, NOT_FOUND)
    except errors.RedisConnectionError as error:
        _fail(asked, error, AWAY)
    except errors.ConfigurationError as error:
        _fail(asked, error, USAGE)
    except errors.RelierError as error:
        _fail(asked, error, FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


@contextmanager
def _redis_answers(asked: Asked) -> Iterator[None]:
    # The address is only known to work once the settings are read: that failure is the command's.
    from relier.store.reading import answered

    with answered(asked.broker.address):
        yield


def console() -> Console:
    """Return where to print: in colour in a terminal, in plain whole lines elsewhere."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to the command, which ends quietly."""
            raise BrokenPipeError

    found = Console(highlight=False)
    if found.is_terminal:
        return found
    return Plain(highlight=False, width=_PIPE_WIDTH, file=cast(IO[str], _Trimmed()))


@contextmanager
def terminable() -> Iterator[None]:
    """End the block by SIGTERM as by Ctrl-C, so that it clears up behind itself."""

    def interrupt(_signum: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(asked: Asked, error: Exception, status: int) -> NoReturn:
    text = words.safe(" ".join(str(error).split()))
    if asked.as_json:
        click.echo(json.dumps({"error": text, "exit_status": status}), err=True)
    else:
        click.echo(f"rl: {text}", err=True)
    sys.exit(status)
