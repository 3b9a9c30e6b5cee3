"""The command line without a server: how it starts, how it fails, how it words things."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.table import Table

from relier.cli import words
from relier.cli.main import rl
from relier.demo import orders, pdf
from relier.demo.scene import Scene
from relier.ops import messages
from relier.ops.events import Event

NOBODY = "redis://127.0.0.1:1/0"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relier.cli", *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def test_help_waits_for_nothing_heavy() -> None:
    script = (
        "import sys; from relier.cli.main import rl; rl(['--help'], standalone_mode=False);"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'celery','redis','rich'}))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, text=True
    )
    assert shown.stdout.rstrip().endswith("[]"), shown.stdout + shown.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["admission", "status"],
        ["admission", "reset"],
        ["doctor"],
        ["run-resurrector"],
        ["tasks", "list"],
        ["tasks", "inflight"],
        ["tasks", "inflight", "--follow"],
        ["tasks", "inspect", "x"],
        ["dlq", "list"],
        ["dlq", "inspect", "x"],
        ["dlq", "list", "--group"],
        ["dlq", "release", "x"],
        ["dlq", "retry", "x"],
        ["dlq", "retry-all"],
        ["dlq", "purge", "--yes"],
        ["worker", "start"],
        ["worker", "drain"],
    ],
    ids=" ".join,
)
def test_an_absent_redis_is_one_line_and_status_3(command: list[str]) -> None:
    done = CliRunner().invoke(rl, [*command, "--url", NOBODY])
    assert done.exit_code == 3, done.output
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("rl: Redis at redis://127.0.0.1:1/0 ")
    assert "Traceback" not in done.output


def test_an_error_is_json_when_the_answer_would_be() -> None:
    done = CliRunner().invoke(rl, ["tasks", "list", "--json", "--url", NOBODY])
    error = json.loads(done.stderr)
    assert (done.exit_code, error["exit_status"]) == (3, 3)
    assert "cannot be reached" in error["error"]
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "http://example.org"],
        ["--limit", "0"],
        ["--state", "lost"],
        ["--no-such-option"],
    ],
    ids=lambda each: each[0],
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    done = CliRunner().invoke(rl, ["tasks", "list", *arguments])
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_a_wrong_setting_is_status_2_and_named() -> None:
    done = CliRunner().invoke(rl, ["doctor"], env={"RELIER_HEARTBEAT_TTL": "soon"})
    assert done.exit_code == 2
    assert "RELIER_HEARTBEAT_TTL" in done.stderr


def test_dotenv_names_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RELIER_REDIS_URL", raising=False)
    (tmp_path / ".env").write_text("RELIER_REDIS_URL=redis://127.0.0.1:2/0\n")
    done = CliRunner().invoke(rl, ["doctor"])
    assert done.exit_code == 3
    assert "127.0.0.1:2/0" in done.stderr


def test_a_password_is_not_shown() -> None:
    done = CliRunner().invoke(rl, ["doctor", "--url", "redis://me:hidden@127.0.0.1:1/0"])
    assert "hidden" not in done.output


def test_the_demo_leaves_a_folder_alone_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    done = CliRunner().invoke(rl, ["demo", "--folder", str(tmp_path)])
    assert done.exit_code == 2
    assert "--folder" in done.stderr
    assert os.listdir(tmp_path) == ["letters.txt"]


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(0, "0.0 s"), (1234, "1.2 s"), (59_000, "59 s"), (180_000, "3 min"), (None, "-")],
)
def test_spans(ms: int | None, shown: str) -> None:
    assert words.span(ms) == shown


def test_ago_looks_both_ways() -> None:
    assert words.ago(1_000, 6_000) == "5.0 s ago"
    assert words.ago(6_000, 1_000) == "in 5.0 s"


@pytest.mark.parametrize(
    "raw", [b"", b"nonsense", b"[]", b"{}", b'{"headers": {}}', b'{"headers": {"id": "x"}}']
)
def test_what_is_no_task_message_is_read_as_none(raw: bytes) -> None:
    assert messages.read(raw) is None


def test_a_pdf_is_whole_or_not() -> None:
    page = pdf.render("Invoice (1)", ["back\\slash", "5 x cup: 12.50"])
    assert pdf.whole(page)
    assert not pdf.whole(page[:-4])
    table = int(page.rpartition(b"startxref\n")[2].split()[0])
    assert page[table:].startswith(b"xref\n0 6\n")
    for number, line in enumerate(page[table:].splitlines()[3:8], start=1):
        assert page[int(line[:10]) :].startswith(b"%d 0 obj" % number)


def test_the_same_seed_places_the_same_orders() -> None:
    assert orders.place(5, seed=7) == orders.place(5, seed=7) != orders.place(5, seed=8)


def test_a_scene_follows_an_invoice_through_a_kill() -> None:
    scene = Scene(1, ["first", "second"])
    scene.order("INV-1", "r", "b")

    def event(kind: str, task_id: str, worker: str = "w") -> Event:
        return Event(0, "invoices", kind, task_id, worker, "1", "")

    scene.see(event("started", "r"))
    way = scene.ways["INV-1"]
    scene.killed(way)
    assert way.place == "killed"
    scene.see(event("requeued", "r"))
    assert (way.place, scene.resurrected) == ("queued", 1)
    for kind, task_id in (("started", "r"), ("committed", "r"), ("started", "b"), ("ended", "b")):
        scene.see(event(kind, task_id))
    assert (way.place, scene.done, way.deaths) == ("done", 1, 1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;mine\x07\x1b[2J", "\\x1b]0;mine\\x07\\x1b[2J"),
        ("one\r\ntwo\tthree", "one\\r\\ntwo\\tthree"),
        ("pay \u202eevil\u202c \x9b31m", "pay \\u202eevil\\u202c \\x9b31m"),
        ("half of \ud83d", "half of \\ud83d"),
        ("größer 学 \U0001f468\u200d\U0001f469", "größer 学 \U0001f468\u200d\U0001f469"),
    ],
)
def test_no_payload_drives_the_terminal(text: str, shown: str) -> None:
    assert words.safe(text) == shown
    [line] = _printed(words.table(["task"], [[text]]))[1:]
    assert line.rstrip() == shown


def test_a_traceback_keeps_its_lines() -> None:
    assert words.safe("one\n\ttwo\x1b[2J", lines=True) == "one\n\ttwo\\x1b[2J"


def _printed(renderable: Table) -> list[str]:
    console = Console(width=200, file=StringIO())
    console.print(renderable)
    return console.file.getvalue().splitlines()


def test_a_table_reads_the_same_in_a_terminal_and_in_a_pipe() -> None:
    rows = [("queued", "one \u4e2d", words.styled("dead")), ("x", "two", 3)]
    shown = []
    for is_terminal in (True, False):
        file = StringIO()
        console = Console(file=file, width=200, force_terminal=is_terminal, no_color=True)
        console.print(words.table(("state", "id", "n"), rows))
        plain = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
        shown.append([line.rstrip() for line in plain.splitlines()])
    assert shown[0] == shown[1]
    assert len(shown[0]) == 3
