from __future__ import annotations

from relier.protocol.checkpoint import Checkpoint, Place, read


def test_a_checkpoint_is_read_as_the_script_describes_it() -> None:
    assert read("0|17|3|1000|5|inline", b"state") == Checkpoint(1000, 5, None, b"state")
    place = Place("filesystem", "home", "name-17-3")
    assert read(f"-1|17|3|1000|5|{place}") == Checkpoint(1000, 5, place)
