"""`rl cluster`: real servers and workers under one command, whatever ends first."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from integration.apps import dock
from relier.cluster import control
from relier.cluster.control import Facts, PartFacts
from relier.cluster.folder import Folder
from support.journal import Journal
from support.wait import wait_for

pytestmark = pytest.mark.slow

RL = [sys.executable, "-m", "relier.cli", "cluster"]
TESTS = Path(__file__).parents[1]
DEADLINE_S = 60
IN_ITS_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)
"""Ctrl-C reaches who has the terminal for its own."""


class Harbour:
    """A folder from which one cluster runs, and the tasks it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal(folder / "journal.tsv")
        self.gate = folder / "gate"
        path = filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("RELIER_")},
            **self.journal.env,
            "RELIER_HEARTBEAT_TTL": "3",
            "PYTHONPATH": os.pathsep.join(path),
        }

    def rl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*RL, *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            check=False,
            text=True,
            timeout=DEADLINE_S,
        )

    def up(self, *options: str) -> dict[str, Any]:
        done = self.rl("up", "--detach", "--json", *UP, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    def status(self) -> Facts:
        found = control.status(Folder(self.folder / ".relier").socket)
        assert found is not None
        return found

    def parts(self) -> dict[str, PartFacts]:
        return {part.name: part for part in self.status().parts}

    def load(self, url: str, *names: str) -> None:
        app = dock.build(url)
        for name in names:
            app.tasks["load"].delay(name, str(self.gate))
        app.close()

    def began(self, count: int) -> None:
        wait_for(lambda: self.journal.count("began") >= count, DEADLINE_S, self.journal.path.name)

    def done(self, *names: str) -> None:
        wait_for(
            lambda: sorted(e.fields[1] for e in self.journal.entries("done")) == sorted(names),
            DEADLINE_S,
            lambda: str(self.journal.entries()),
        )

    def processes(self) -> list[int]:
        """Return whatever was started for this cluster, and still is there."""
        needle = f"={self.journal.path}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with suppress(OSError):  # gone meanwhile, or not ours
                    if needle in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return found

    def all_gone(self) -> None:
        wait_for(lambda: not self.processes(), DEADLINE_S, lambda: str(self.processes()))


UP = ("--app", "integration.apps.dock:app", "--concurrency", "1")


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    made = Harbour(tmp_path)
    yield made
    for pid in made.processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    made.all_gone()


def test_a_killed_worker_comes_back_and_scaling_drains(harbour: Harbour) -> None:
    url = harbour.up("--workers", "2")["server"]
    before = harbour.parts()
    harbour.load(url, "coal")
    harbour.began(1)
    taken = harbour.journal.entries("began")[0].pid
    held = next(name for name, part in before.items() if part.pid == _parent(taken))
    os.kill(before[held].pid, signal.SIGKILL)
    wait_for(lambda: harbour.status().ready and harbour.parts()[held].restarts, DEADLINE_S)
    assert harbour.parts()[held].pid != before[held].pid
    harbour.gate.touch()
    harbour.done("coal")
    assert taken not in harbour.processes()  # its pool process went with it

    harbour.gate.unlink()
    assert harbour.rl("scale", "3").returncode == 0
    harbour.load(url, "tin", "rum", "tea")
    harbour.began(5)
    with subprocess.Popen(
        [*RL, "scale", "1"], cwd=harbour.folder, env=harbour.env, stdout=subprocess.DEVNULL
    ) as scaling:
        wait_for(lambda: harbour.parts()["worker-3"].state == "draining", DEADLINE_S)
        harbour.gate.touch()
        assert scaling.wait(DEADLINE_S) == 0
    harbour.done("coal", "tin", "rum", "tea")
    assert harbour.journal.count("began") == 5  # none was begun twice but the one that was killed
    assert set(harbour.parts()) == {"server", "resurrector", "worker-1"}

    shown = harbour.rl("status")
    assert shown.returncode == 0
    assert "worker-1" in shown.stdout
    busy = harbour.rl("up", *UP)
    assert (busy.returncode, "already" in busy.stderr) == (2, True), busy.stderr
    assert harbour.rl("scale", "0").returncode == harbour.rl("scale", "-1").returncode == 2
    assert "worker-1 is ready" in harbour.rl("logs", "cluster").stdout
    assert harbour.rl("logs", "nobody").returncode == 4
    ended = harbour.rl("down", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["drained"] == 1
    harbour.all_gone()
    assert control.status(str(harbour.folder / ".relier" / "control.sock")) is None
    nobody = harbour.rl("status")
    assert (nobody.returncode, "rl cluster up" in nobody.stderr) == (4, True)
    assert harbour.rl("down").returncode == harbour.rl("scale", "2").returncode == 4
    assert harbour.rl("down", "--purge").returncode == 2
    assert (harbour.folder / ".relier" / "data").exists()
    assert harbour.rl("down", "--purge", "--yes").returncode == 0
    assert not (harbour.folder / ".relier" / "data").exists()


def test_ctrl_c_in_a_terminal_drains_and_leaves_nothing(harbour: Harbour) -> None:
    screen, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", IN_ITS_TERMINAL, *RL, "up", *UP, "--workers", "1"],
        cwd=harbour.folder,
        env={**harbour.env, "TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    ) as cluster:
        os.close(terminal)
        shown = b""
        while b"all is ready" not in shown:
            shown += os.read(screen, 65536)
        harbour.load(harbour.status().server, "coal")
        harbour.began(1)
        os.write(screen, b"\x03")
        wait_for(lambda: harbour.parts()["worker-1"].state == "draining", DEADLINE_S)
        harbour.gate.touch()
        with suppress(OSError):  # EIO: the cluster has ended
            while rest := os.read(screen, 65536):
                shown += rest
        assert cluster.wait(DEADLINE_S) == 0
    os.close(screen)
    harbour.all_gone()
    harbour.done("coal")
    assert b"1 worker drained" in shown
    assert b"\x1b[" in shown  # in colour
    assert b"worker-1" in shown


def test_nothing_outlives_a_killed_supervisor_and_up_finds_the_tasks(harbour: Harbour) -> None:
    first = harbour.up("--workers", "1")
    harbour.load(first["server"], "coal", "tin")
    harbour.began(1)
    os.kill(first["pid"], signal.SIGKILL)
    harbour.all_gone()
    assert harbour.rl("status").returncode == 4
    harbour.gate.touch()
    assert harbour.up("--workers", "1")["server"] == first["server"]
    harbour.done("coal", "tin")
    second = harbour.status().pid
    os.kill(second, signal.SIGTERM)
    harbour.all_gone()
    assert (harbour.folder / ".relier" / "data").exists()
    last = harbour.up("--workers", "1")
    assert last["server"] == first["server"]
    assert harbour.rl("down", "--purge", "--yes").returncode == 0
    harbour.all_gone()
    assert not (harbour.folder / ".relier" / "data").exists()


def test_the_server_comes_back_and_a_second_signal_ends_at_once(harbour: Harbour) -> None:
    started = harbour.up("--workers", "1")
    os.kill(harbour.parts()["server"].pid, signal.SIGKILL)
    wait_for(lambda: harbour.parts()["server"].restarts == 1, DEADLINE_S)
    harbour.load(started["server"], "coal")
    harbour.began(1)
    os.kill(started["pid"], signal.SIGTERM)
    wait_for(lambda: harbour.parts()["worker-1"].state == "draining", DEADLINE_S)
    os.kill(started["pid"], signal.SIGTERM)
    harbour.all_gone()
    assert harbour.journal.count("done") == 0


def test_an_existing_server_is_used_and_left_alone(harbour: Harbour, redis_url: str) -> None:
    found = harbour.up("--workers", "1", "--url", redis_url)
    assert (found["server"], found["embedded"]) == (redis_url, False)
    assert {part["name"] for part in found["parts"]} == {"resurrector", "worker-1"}
    harbour.gate.touch()
    harbour.load(redis_url, "coal")
    harbour.done("coal")
    assert harbour.rl("down", "--purge", "--yes").returncode == 1
    assert harbour.rl("down").returncode == 0
    harbour.all_gone()


def test_a_reader_that_goes_away_ends_the_printing_only(harbour: Harbour) -> None:
    with subprocess.Popen(
        [*RL, "up", *UP, "--workers", "1"],
        cwd=harbour.folder,
        env=harbour.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as cluster:
        assert cluster.stdout is not None
        assert cluster.stderr is not None
        cluster.stdout.readline()
        cluster.stdout.close()
        socket = Folder(harbour.folder / ".relier").socket
        wait_for(lambda: (facts := control.status(socket)) and facts.ready, DEADLINE_S)
        cluster.send_signal(signal.SIGTERM)
        assert cluster.stderr.read() == b""
        assert cluster.wait(DEADLINE_S) == 0
    harbour.all_gone()


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--app", "nowhere"], 2, "no module 'nowhere'"),
        (["--include", "nowhere"], 2, "no module 'nowhere'"),
        (["--url", "redis://127.0.0.1:1/0"], 3, "127.0.0.1:1"),
    ],
)
def test_what_cannot_work_is_said_once(
    harbour: Harbour, options: list[str], status: int, said: str
) -> None:
    done = harbour.rl("up", "--detach", *options)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert done.stderr.count("\n") == 1
    harbour.all_gone()


def test_workers_that_never_live_are_given_up(harbour: Harbour) -> None:
    done = harbour.rl("up", *UP, "--workers", "1", "--pool", "swimming")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "every worker was given up" in done.stdout
    assert "swimming" in done.stdout  # the worker's own words, with its name before them
    harbour.all_gone()


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
