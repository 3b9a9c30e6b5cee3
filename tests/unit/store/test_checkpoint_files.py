from __future__ import annotations

from pathlib import Path

import pytest

from relier.config import load
from relier.errors import CheckpointError, ConfigurationError
from relier.protocol.checkpoint import Place
from relier.store.checkpoint_files import FilesystemFiles, files_of

PLACE = Place("filesystem", "home", "task-1-1")


def test_what_was_written_is_read_until_it_is_removed(tmp_path: Path) -> None:
    files = FilesystemFiles(tmp_path / "made")
    files.write(PLACE, b"state")
    assert files.read(PLACE) == b"state"
    assert list(files.names("home")) == ["task-1-1"]
    files.remove(PLACE)
    files.remove(PLACE)
    assert list(files.names("home")) == []
    assert list(files.names("elsewhere")) == []
    with pytest.raises(CheckpointError, match="every worker shares"):
        files.read(PLACE)


def test_a_torn_write_is_listed_and_removed_under_its_name(tmp_path: Path) -> None:
    files = FilesystemFiles(tmp_path)
    (tmp_path / "home").mkdir()
    part = tmp_path / "home" / "task-1-1.part"
    part.write_bytes(b"sta")
    assert list(files.names("home")) == ["task-1-1"]
    files.remove(PLACE)
    assert not part.exists()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*still valid"):
        FilesystemFiles(tmp_path).write(PLACE, b"state")
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "a/b", ""])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    files = FilesystemFiles(tmp_path)
    for place in (PLACE._replace(name=name), PLACE._replace(home=name)):
        with pytest.raises(CheckpointError, match="is no name"):
            files.read(place)
        with pytest.raises(CheckpointError, match="is no name"):
            files.remove(place)


def test_a_folder_is_checked_before_it_is_needed(tmp_path: Path) -> None:
    FilesystemFiles(tmp_path / "new").check()
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="RELIER_CHECKPOINT_DIR is"):
        FilesystemFiles(tmp_path / "file").check()


def test_the_settings_choose_the_backend(tmp_path: Path) -> None:
    assert files_of(load({})) is None
    chosen = files_of(
        load({}, overrides={"checkpoint_backend": "filesystem", "checkpoint_dir": str(tmp_path)})
    )
    assert isinstance(chosen, FilesystemFiles)
