"""A server that answers as a Redis 6 does, as far as anybody talks to one that is too old."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from support.resp import Splitter

VERSION = "6.2.14"
CHUNK_BYTES = 65536

_INFO = f"# Server\r\nredis_version:{VERSION}\r\nrun_id:{'6' * 40}\r\n".encode()
_ANSWERS = {
    "INFO": b"$%d\r\n%s\r\n" % (len(_INFO), _INFO),
    "HELLO": b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n",
    "PING": b"+PONG\r\n",
    "SELECT": b"+OK\r\n",
    "TIME": b"*2\r\n$10\r\n1795000000\r\n$1\r\n0\r\n",
    "SADD": b":1\r\n",
    "LLEN": b":0\r\n",
    "ZCARD": b":0\r\n",
    "EVALSHA": b"-NOSCRIPT No matching script. Please use EVAL.\r\n",
    # It reads the line that declares a script's flags as Lua.
    "EVAL": b"-ERR Error compiling script (new function): user_script:1: unexpected symbol"
    b" near '#'\r\n",
}


class Redis6:
    """Listen on 127.0.0.1; a context manager."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # shutdown, for close alone does not wake a thread that waits in accept
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        splitter, queued = Splitter(), None
        with client, contextlib.suppress(ConnectionError):
            while data := client.recv(CHUNK_BYTES):
                for _, command in splitter.feed(data):
                    assert isinstance(command, list)
                    name = command[0].decode().upper()
                    answer = _ANSWERS.get(name, f"-ERR unknown command `{name}`\r\n".encode())
                    if name == "MULTI":
                        queued, answer = [], b"+OK\r\n"
                    elif name == "EXEC" and queued is not None:
                        queued, answer = None, b"*%d\r\n%s" % (len(queued), b"".join(queued))
                    elif queued is not None:
                        queued.append(answer)
                        answer = b"+QUEUED\r\n"
                    client.sendall(answer)
