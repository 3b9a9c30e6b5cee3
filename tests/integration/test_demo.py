"""The main job: the demo kills workers, and its account is clean."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from relier.demo import account, orders, pdf
from relier.demo.account import Recovery
from relier.demo.surroundings import Surroundings
from relier.ops.events import Event
from support.wait import wait_for

pytestmark = pytest.mark.slow

DEMO = [sys.executable, "-m", "relier.cli", "demo"]


def test_the_account_is_clean_and_the_files_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    done = subprocess.run(
        [*DEMO, "--json", "--orders", "16", "--folder", str(folder)],
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["clean"]
    assert (found["accepted"], found["completed"]) == (32, 32)
    assert (found["lost"], found["committed_twice"], found["left_over"]) == ([], [], 0)
    assert found["booked_cents"] == found["ordered_cents"] > 0
    assert found["runs"] == 32 + len(found["recoveries"])
    assert {each["killed"] for each in found["recoveries"]} == {"worker", "pool process"}
    invoices = sorted((folder / "invoices").iterdir())
    assert len(invoices) == 16
    assert all(pdf.whole(path.read_bytes()) for path in invoices)
    assert _processes_in(folder) == []


def test_lines_off_a_terminal_on_a_server_of_the_users(
    redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    """Nothing of it stays on a server that is not the demo's own."""
    client.set("theirs", "1")
    done = subprocess.run(
        [*DEMO, "--orders", "16", "--folder", str(tmp_path / "shop"), "--url", redis_url],
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    assert "kill -9" in done.stdout
    assert "The account is clean" in done.stdout
    assert client.keys("*") == [b"theirs"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_demo(tmp_path: Path, signum: signal.Signals) -> None:
    folder = tmp_path / "shop"
    with subprocess.Popen(
        [*DEMO, "--plain", "--folder", str(folder)], stdout=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "kill -9" in line:
                break
        assert len(_processes_in(folder)) > 1
        demo.send_signal(signum)
        demo.wait(30)
    wait_for(lambda: not _processes_in(folder), 30)
    if signum != signal.SIGKILL:
        assert demo.returncode == 130


def test_an_account_with_something_missing_is_not_clean(tmp_path: Path) -> None:
    place = Surroundings("redis://unused", "", tmp_path / "shop")
    place.prepare()
    placed = orders.place(2, seed=1)
    (place.invoices / "INV-1001.pdf").write_bytes(pdf.render("Invoice", [])[:-3])
    twice = [Event(0, "invoices", "committed", "one", "w", "1", "SUCCESS")] * 2
    recoveries = [Recovery("INV-1001", "worker", 1.0)]
    found = account.draw_up(placed, {}, twice, recoveries, place, left_over=0, took_s=1)
    assert not found.clean
    assert "INV-1001 (file)" in found.lost
    assert "INV-1002 (books)" in found.lost
    assert found.committed_twice == ("one",)


def _processes_in(folder: Path) -> list[int]:
    """Return the processes that were started for a demo in this folder, its workers among them."""
    needle = f"RELIER_DEMO_FOLDER={folder}\0".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if needle in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # gone meanwhile, or not ours
    return found
