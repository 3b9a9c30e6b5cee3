"""A cluster's state folder has one owner, and its logs are read on where they were."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from relier.cluster import control, logs
from relier.cluster.control import Control, Request
from relier.cluster.folder import Folder, Kept
from relier.cluster.logs import Line, Tail
from relier.errors import ConfigurationError


def test_a_folder_has_one_owner_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    folder, other = Folder(tmp_path / "c"), Folder(tmp_path / "c")
    folder.own()
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    with pytest.raises(ConfigurationError, match="already"):
        other.own()
    folder.keep(Kept(port=7000))
    folder.disown()
    other.own()
    assert other.kept().port == 7000
    other.disown()


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConfigurationError, match="something else"):
        Folder(tmp_path).own()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="--dir"):
        Folder(tmp_path / "file" / "c").own()
    with pytest.raises(ConfigurationError, match="shorter"):
        Folder(tmp_path / ("x" * 120)).own()


@pytest.mark.parametrize("text", ['{"version": 2}', "{", '{"version": 1, "port": "x"}'])
def test_what_another_version_or_nobody_wrote_is_refused(tmp_path: Path, text: str) -> None:
    folder = Folder(tmp_path / "c")
    folder.own()
    folder.disown()
    (folder.path / "cluster.json").write_text(text)
    with pytest.raises(ConfigurationError):
        folder.own()
    assert (folder.path / "cluster.json").read_text() == text


def test_a_socket_that_was_left_behind_is_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    assert control.status(path) is None
    held = Control(path)
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    held._listening.close()  # as a SIGKILL does: the file stays
    assert control.status(path) is None
    assert control.end(path, purge=False) is None
    Control(path).close()
    assert not Path(path).exists()
    assert Request("status").version == control.VERSION


def test_lines_are_read_whole_and_once(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("old\n")
    tail = Tail(tmp_path)
    assert list(tail.lines()) == []
    with log.open("a") as out:
        out.write("one\ntw")
        out.flush()
        assert list(tail.lines()) == [Line("a", "one")]
        out.write("o\n")
    (tmp_path / "b.log").write_text("new\n")
    assert list(tail.lines()) == [Line("a", "two"), Line("b", "new")]
    assert list(tail.lines()) == []


def test_the_last_lines_to_begin_with(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("".join(f"{n}\n" for n in range(10)))
    (tmp_path / "empty.log").touch()
    assert [line.text for line in Tail(tmp_path, last=3).lines()] == ["7", "8", "9"]
    assert len(list(Tail(tmp_path, last=100).lines())) == 10
    assert list(Tail(tmp_path, {"empty"}, last=5).lines()) == []


def test_a_log_that_is_too_long_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MOST_BYTES", 10)
    log = tmp_path / "a.log"
    tail = Tail(tmp_path)
    log.write_text("0123456789\n")
    assert [line.text for line in tail.lines()] == ["0123456789"]
    logs.trim(tmp_path)
    assert (tmp_path / "a.log.1").read_text() == "0123456789\n"
    log.write_text("new\n")
    assert [line.text for line in tail.lines()] == ["new"]
    assert logs.names(tmp_path) == ["a"]
