"""The cursor's file and the segments that it sets free."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mantik.delivery import framing
from mantik.delivery.cursor import Cursor
from mantik.delivery.journal import JournalWriter, Position, read

if TYPE_CHECKING:
    from pathlib import Path

numbers = st.integers(0, 2**40)


@given(numbers, numbers)
def test_a_position_round_trips(tmp_path_factory: pytest.TempPathFactory, segment: int, offset: int) -> None:
    """What was stored is loaded, by another instance too."""
    path = tmp_path_factory.mktemp("cursor") / "cursor"
    Cursor(path).store(Position(segment, offset))
    assert Cursor(path).load() == Position(segment, offset)


def test_an_absent_cursor_is_the_beginning(tmp_path: Path) -> None:
    """Without a file everything is delivered from the beginning."""
    assert Cursor(tmp_path / "none" / "cursor").load() == Position(0, 0)


def test_a_directory_in_its_place_is_the_beginning(tmp_path: Path) -> None:
    """What cannot be read is no position."""
    assert Cursor(tmp_path).load() == Position(0, 0)


@given(st.data())
def test_a_damaged_cursor_is_the_beginning(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any changed byte or truncation gives the beginning or the position that was stored, never another one."""
    path = tmp_path_factory.mktemp("cursor") / "cursor"
    Cursor(path).store(Position(3, 4711))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path.write_bytes(content)
    assert Cursor(path).load() in {Position(0, 0), Position(3, 4711)}


@pytest.mark.parametrize("payload", [b"[1]", b"[1, 2, 3]", b"7", b"[-1, 2]", b"[1.5, 2]", b"[true, 2]", b"{", b"\xff"])
def test_a_sound_line_that_is_no_position_is_the_beginning(tmp_path: Path, payload: bytes) -> None:
    """A cursor of another format sends nobody to a wrong place."""
    path = tmp_path / "cursor"
    path.write_bytes(framing.encode(payload))
    assert Cursor(path).load() == Position(0, 0)


def test_the_file_is_private_and_alone(tmp_path: Path) -> None:
    """The cursor is 0600 and leaves no temporary file behind."""
    path = tmp_path / "journal" / "cursor"
    for offset in range(3):
        Cursor(path).store(Position(1, offset))
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_store_keeps_the_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the new position cannot be put in place, the old one and nothing else is there."""
    path = tmp_path / "journal" / "cursor"
    cursor = Cursor(path)
    cursor.store(Position(1, 17))

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", refuse)
        with pytest.raises(OSError, match="No space"):
            cursor.store(Position(2, 17))
    assert cursor.load() == Position(1, 17)
    assert list(path.parent.iterdir()) == [path]


def test_delivered_segments_are_removed(tmp_path: Path) -> None:
    """Segments before the position's go, what stands behind the position is still read, and again changes nothing."""
    writer = JournalWriter(tmp_path / "journal", segment_bytes=1)
    ends = [writer.append(b"%d" % number) for number in range(5)]
    cursor = Cursor(tmp_path / "journal" / "cursor")
    cursor.store(ends[2])
    for _ in range(2):
        cursor.remove_delivered(tmp_path / "journal", ends[2])
        names = sorted(path.name for path in (tmp_path / "journal").iterdir())
        assert names == ["00000003.segment", "00000004.segment", "00000005.segment", "cursor"]
    items = list(read(tmp_path / "journal", cursor.load(), tail="open"))
    assert [item.end for item in items] == ends[3:]


def test_a_new_opening_stands_behind_every_old_position(tmp_path: Path) -> None:
    """A position of an earlier opening never hides records of a later one, though everything was delivered."""
    first = JournalWriter(tmp_path / "journal", segment_bytes=1)
    end = [first.append(b"%d" % number) for number in range(3)][-1]
    first.close()
    Cursor.remove_delivered(tmp_path / "journal", end)
    second = JournalWriter(tmp_path / "journal")
    assert second.append(b"later") > end
