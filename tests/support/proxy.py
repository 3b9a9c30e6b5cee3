"""A TCP proxy in front of a Redis server that breaks connections at chosen commands.

It understands enough of the protocol to number the commands of all connections in the order
in which they arrive, and to know the reply of each. Its own threads do the forwarding; a rule's
action (kill the client, say) runs in the thread of the connection that met the rule, while
that connection stands still.
"""

from __future__ import annotations

import hashlib
import itertools
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

from relier.store.scripts import load
from support.resp import Splitter

CHUNK_BYTES = 65536
PUSHED = (b"message", b"pmessage", b"smessage", b"invalidate")
SUBSCRIBES = ("SUBSCRIBE", "PSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE")
SCRIPT_CALLS = ("EVALSHA", "EVALSHA_RO", "EVAL", "EVAL_RO", "FCALL")


def script_names() -> dict[str, str]:
    """Map the SHA-1 of each of relier's scripts to its name."""
    folder = resources.files("relier.store") / "lua"
    names = [path.name.removesuffix(".lua") for path in folder.iterdir() if path.is_file()]
    return {load(name).sha: name for name in names}


@dataclass(frozen=True)
class Command:
    """One command as a client sent it."""

    number: int  # from 1, over all connections since the start or `forget`
    connection: int
    args: tuple[bytes, ...]
    scripts: dict[str, str] = field(repr=False)

    @cached_property
    def name(self) -> str:
        """The command's name in capitals."""
        return self.args[0].decode(errors="replace").upper()

    @cached_property
    def script(self) -> str | None:
        """The name of the script it calls (its hash, if unknown); None for plain commands."""
        if self.name not in SCRIPT_CALLS:
            return None
        called = self.args[1]
        if self.name.startswith("EVAL") and not self.name.startswith("EVALSHA"):
            called = hashlib.sha1(called).hexdigest().encode()
        return self.scripts.get(called.decode(), called.decode())

    def __str__(self) -> str:
        return f"{self.name} {self.script}" if self.script else self.name


Predicate = Callable[[Command], bool]
When = Literal["before", "after"]


@dataclass
class Cut:
    """A rule that fires once: at the n-th matching command, before or after it took effect."""

    nth: int
    when: When
    matches: Predicate
    action: Callable[[], None]
    seen: int = 0
    command: Command | None = None
    fired: threading.Event = field(default_factory=threading.Event)

    def wait(self, deadline_s: float) -> Command:
        """Wait until it has fired and its action is done; return the command it met."""
        if not self.fired.wait(deadline_s) or self.command is None:
            raise AssertionError(
                f"cut {self.when} command {self.nth}: only {self.seen} came in {deadline_s} s"
            )
        return self.command


class Proxy:
    """Forward 127.0.0.1:`port` to the server at `upstream` (a redis:// URL); a context manager.

    Args:
        upstream: the real server's address.
        scripts: SHA-1 -> name, to know script calls by name; default: relier's own.
    """

    def __init__(self, upstream: str, scripts: dict[str, str] | None = None) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self._database = parts.path or "/0"
        self._scripts = script_names() if scripts is None else scripts
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._links: set[_Link] = set()
        self._cuts: list[Cut] = []
        self._log: list[Command] = []
        self._open = threading.Event()
        self._open.set()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}{self._database}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="proxy-accept", daemon=True).start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self._closed = True
        self._open.set()
        # shutdown, for close alone does not wake a thread that waits in accept
        _shut(self._listener)
        self.sever()

    @property
    def commands(self) -> list[Command]:
        """Every command that arrived, forwarded or not, in order."""
        with self._lock:
            return list(self._log)

    def count(self, matches: Predicate = lambda _: True) -> int:
        """Count the commands that arrived."""
        return sum(1 for command in self.commands if matches(command))

    def forget(self) -> None:
        """Empty the log and number from 1 again."""
        with self._lock:
            self._log.clear()
            self._numbers = itertools.count(1)

    def cut_before(
        self,
        nth: int = 1,
        matches: Predicate = lambda _: True,
        action: Callable[[], None] = lambda: None,
    ) -> Cut:
        """At the n-th matching command from now: do not forward it, act, cut its connection."""
        return self._add(Cut(nth, "before", matches, action))

    def cut_after(
        self,
        nth: int = 1,
        matches: Predicate = lambda _: True,
        action: Callable[[], None] = lambda: None,
    ) -> Cut:
        """At the n-th matching command from now: let the server run it, drop its reply, act, cut.

        "Ran" is known by the reply's arrival at the proxy, so a blocking command must end first.
        """
        return self._add(Cut(nth, "after", matches, action))

    def partition(self) -> None:
        """Swallow all traffic, both ways, without closing anything, until `heal`.

        What is sent meanwhile is delivered late, as the kernel does; new connections hang.
        """
        self._open.clear()

    def heal(self) -> None:
        """End a partition: deliver what was held."""
        self._open.set()

    def sever(self) -> None:
        """Close every connection, both ways."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._links)

    def _add(self, cut: Cut) -> Cut:
        with self._lock:
            self._cuts.append(cut)
        return cut

    def _accept(self) -> None:
        for number in itertools.count(1):
            try:
                client, _ = self._listener.accept()
            except OSError:
                self._listener.close()
                return
            link = _Link(self, number, client)
            with self._lock:
                self._links.add(link)
            threading.Thread(target=link.run, name=f"proxy-{number}", daemon=True).start()
            if self._closed:
                link.close()

    def connect(self) -> socket.socket:
        """Connect to the real server, once the partition is over."""
        self.pass_gate()
        return socket.create_connection(self._upstream)

    def pass_gate(self) -> None:
        """Wait while there is a partition."""
        self._open.wait()

    def drop(self, link: _Link) -> None:
        """Forget a connection that has ended."""
        with self._lock:
            self._links.discard(link)

    def note(self, connection: int, args: tuple[bytes, ...]) -> tuple[Command, Cut | None]:
        """Number a command, log it and find the rule that it meets."""
        with self._lock:
            command = Command(next(self._numbers), connection, args, self._scripts)
            self._log.append(command)
            met = None
            for cut in self._cuts:
                if met is None and cut.matches(command):
                    cut.seen += 1
                    if cut.seen == cut.nth:
                        cut.command = command
                        met = cut
            if met is not None:
                self._cuts.remove(met)
        return command, met

    def rearm(self, cut: Cut) -> None:
        """Have a rule wait for the next command: the one that it met lost its link before."""
        with self._lock:
            cut.seen -= 1
            self._cuts.append(cut)


class _Link:
    """One client's connection and its twin to the server."""

    def __init__(self, proxy: Proxy, number: int, client: socket.socket) -> None:
        self._proxy = proxy
        self._number = number
        self._client = client
        self._server: socket.socket | None = None
        # What each reply on its way answers: None, or the rule that wants it dropped.
        self._awaited: deque[Cut | None] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def run(self) -> None:
        """Forward both ways until either side ends."""
        try:
            self._server = self._proxy.connect()
            for end in (self._client, self._server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            # The server is away, or the link was closed while it was being made.
            self.close()
            if self._server is not None:
                _shut(self._server)
            return
        back = threading.Thread(target=self._replies, args=(self._server,), daemon=True)
        back.start()
        self._commands(self._server)
        back.join()
        self.close()

    def close(self) -> None:
        """Close both ends; the threads see it and leave."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            unmet = [cut for cut in self._awaited if cut is not None]
            self._awaited.clear()
        for cut in unmet:
            self._proxy.rearm(cut)
        _shut(self._client)
        if self._server is not None:
            _shut(self._server)
        self._proxy.drop(self)

    def _commands(self, server: socket.socket) -> None:
        splitter = Splitter()
        for data in self._chunks(self._client):
            for raw, value in splitter.feed(data):
                assert isinstance(value, list), "inline commands are not spoken here"
                command, cut = self._proxy.note(self._number, tuple(value))
                if cut is not None and cut.when == "before":
                    self._fire(cut)
                    return
                self._await_reply(command, cut)
                if not self._send(server, raw) or cut is not None:
                    return  # after a cut nothing more is forwarded; its reply closes the link
        # The client is gone. The server still runs what it sent, as after a kill; it ends the
        # connection itself once it has read this.
        try:
            server.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has ended the connection already

    def _await_reply(self, command: Command, cut: Cut | None) -> None:
        # A subscription is confirmed once for each channel.
        replies = max(1, len(command.args) - 1) if command.name in SUBSCRIBES else 1
        with self._lock:
            if not self._closed:
                self._awaited.extend([None] * (replies - 1) + [cut])
                return
        if cut is not None:
            self._proxy.rearm(cut)

    def _replies(self, server: socket.socket) -> None:
        splitter = Splitter()
        for data in self._chunks(server):
            for raw, value in splitter.feed(data):
                pushed = isinstance(value, list) and value and value[0] in PUSHED
                with self._lock:
                    cut = self._awaited.popleft() if self._awaited and not pushed else None
                if cut is not None:
                    self._fire(cut)
                    return
                if not self._send(self._client, raw):
                    return
        self.close()

    def _chunks(self, source: socket.socket) -> Iterator[bytes]:
        """Yield what arrives until the source ends, held back while there is a partition."""
        while True:
            try:
                data = source.recv(CHUNK_BYTES)
            except OSError:
                data = b""
            self._proxy.pass_gate()
            if not data:
                return
            yield data

    def _send(self, target: socket.socket, raw: bytes) -> bool:
        self._proxy.pass_gate()
        try:
            target.sendall(raw)
        except OSError:
            self.close()
            return False
        return True

    def _fire(self, cut: Cut) -> None:
        try:
            cut.action()
        finally:
            self.close()
            cut.fired.set()


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other side was first
    end.close()
