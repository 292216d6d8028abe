"""The journal: everything whose append returned is read back, whatever happened to the process or to the bytes."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mantik.delivery import framing, segment
from mantik.delivery.journal import TORN_TAIL, Damage, Entry, JournalWriter, Position, read, waiting_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

TAG = len(framing.TAG)

json_like = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20), max_size=4).map(
    lambda content: json.dumps(content).encode()
)
binary = st.binary(max_size=60).map(lambda payload: payload.replace(b"\n", b""))
payload_lists = st.lists(json_like | binary, max_size=8)
chunk_sizes = st.sampled_from([1, 7, 64, 256 * 1024])


@contextmanager
def journal_of(*contents: bytes, chunk: int = 256 * 1024) -> Iterator[Path]:
    """Make a journal of segments with these contents, read in chunks of this size."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "_CHUNK_BYTES", chunk)
        for number, content in enumerate(contents, 1):
            (Path(folder) / f"{number:08d}.segment").write_bytes(content)
        yield Path(folder)


def segment_of(payloads: list[bytes]) -> bytes:
    """Give the bytes of a sound segment."""
    return framing.TAG + b"".join(map(framing.encode, payloads))


def payloads_in(items: list[Entry | Damage]) -> list[bytes]:
    """Give what was read, without the damage."""
    return [item.payload for item in items if isinstance(item, Entry)]


def covered(items: list[Entry | Damage]) -> bytes:
    """Give the bytes of one segment for which the items stand, which must follow each other without a gap."""
    for left, right in itertools.pairwise(items):
        assert left.end == right.start
    lines = [
        framing.encode(item.payload)[: item.end.offset - item.start.offset] if isinstance(item, Entry) else item.raw
        for item in items
    ]
    for item, line in zip(items, lines, strict=True):
        assert item.end.offset - item.start.offset == len(line) > 0
    return b"".join(lines)


def expected_after_damage(payloads: list[bytes], damaged: bytes) -> list[bytes]:
    """Give the records that were not touched.

    A record is untouched if its header and payload are, and if its beginning can be told: by the newline in front of
    it, or by the end of an untouched record.
    """
    expected = []
    found = damaged[: TAG - 1] == framing.TAG[:-1]
    start = TAG
    for payload in payloads:
        line = framing.encode(payload)
        found = (found or damaged[start - 1 : start] == b"\n") and damaged[start : start + len(line) - 1] == line[:-1]
        if found:
            expected.append(payload)
        start += len(line)
    return expected


def check_damaged(payloads: list[bytes], damaged: bytes, chunk: int) -> None:
    """Check everything that is promised about a segment of these payloads whose bytes have become others."""
    with journal_of(damaged, chunk=chunk) as folder:
        items = list(read(folder, tail="closed"))
        assert payloads_in(items) == expected_after_damage(payloads, damaged)
        assert covered(items) == damaged[TAG if damaged.startswith(framing.TAG) else 0 :]
        for index, item in enumerate(items):
            assert payloads_in(list(read(folder, item.end, tail="closed"))) == payloads_in(items[index + 1 :])


@given(st.lists(payload_lists, max_size=3), st.integers(0, 200), chunk_sizes)
def test_payloads_round_trip(openings: list[list[bytes]], segment_bytes: int, chunk: int) -> None:
    """Any payloads are read back over any openings, segment sizes and chunk sizes, and from any position on."""
    with journal_of(chunk=chunk) as folder:
        ends = []
        for payloads in openings:
            writer = JournalWriter(folder, segment_bytes=segment_bytes)
            ends += [writer.append(payload) for payload in payloads]
            assert writer.position >= max(ends, default=Position(0, 0))
            writer.close()
        items = list(read(folder, tail="closed"))
        assert payloads_in(items) == list(itertools.chain(*openings))
        assert [item.end for item in items] == ends == sorted(ends)
        for index, end in enumerate(ends):
            assert list(read(folder, end, tail="open")) == items[index + 1 :]
            assert waiting_bytes(folder, end) == sum(item.end.offset - item.start.offset for item in items[index + 1 :])


@given(payload_lists, payload_lists, st.data(), chunk_sizes)
def test_truncation_costs_the_cut_record_alone(
    earlier: list[bytes], payloads: list[bytes], data: st.DataObject, chunk: int
) -> None:
    """Cut anywhere, the last segment gives all complete records, and the rest is a torn tail or not there yet."""
    whole = segment_of(payloads)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    with journal_of(segment_of(earlier), cut, chunk=chunk) as folder:
        closed = list(read(folder, tail="closed"))
        complete = expected_after_damage(payloads, cut)
        assert payloads_in(closed) == earlier + complete
        damages = [item for item in closed if isinstance(item, Damage)]
        assert [item.reason for item in damages] in ([], [TORN_TAIL])
        assert covered(closed[len(earlier) :]) == (cut[TAG:] if len(cut) >= TAG else cut)

        # Only the newline tells the end of a line that is still being written.
        lines_there = max(cut.count(b"\n") - 1, 0)
        assert list(read(folder, tail="open")) == closed[: len(earlier) + lines_there]


@given(payload_lists, payload_lists, st.data())
def test_a_torn_tail_of_an_earlier_segment_is_damage(
    payloads: list[bytes], later: list[bytes], data: st.DataObject
) -> None:
    """Behind a segment that was followed by another nothing is being written any more, with an open tail too."""
    whole = segment_of(payloads)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    with journal_of(cut, segment_of(later)) as folder:
        items = list(read(folder, tail="open"))
        assert items == list(read(folder, tail="closed"))
        assert payloads_in(items) == expected_after_damage(payloads, cut) + later
        assert {item.reason for item in items if isinstance(item, Damage)} <= {TORN_TAIL}


@given(st.lists(json_like | binary, min_size=1, max_size=8), st.data(), chunk_sizes)
def test_a_changed_byte_costs_one_record_at_most(payloads: list[bytes], data: st.DataObject, chunk: int) -> None:
    """Whatever byte becomes whatever other, all records but the one it belongs to are read, and none is made up."""
    content = bytearray(segment_of(payloads))
    index = data.draw(st.integers(0, len(content) - 1))
    content[index] = data.draw(st.sampled_from(b"\n 0f\x00") | st.integers(0, 255))
    # What became the tag of a newer format is left alone as a whole; see below.
    assume(framing.format_of(content) in {None, 0, framing.FORMAT})
    check_damaged(payloads, bytes(content), chunk)
    assert len(expected_after_damage(payloads, bytes(content))) >= len(payloads) - 1


def test_every_changed_byte_of_a_nested_journal_costs_one_record_at_most() -> None:
    """Payloads that look like records are not taken for records when the bytes around them change."""
    inner = framing.encode(b"{}")[:-1]
    payloads = [b"first", inner, b"  " + framing.encode(inner)[:-1], b"", b"last"]
    sound = segment_of(payloads)
    for index in range(len(sound)):
        for value in {sound[index] ^ bit for bit in (1, 2, 4, 8, 16, 32, 64, 128)} - {ord("\n")}:
            damaged = sound[:index] + bytes([value]) + sound[index + 1 :]
            if framing.format_of(damaged) in {None, 0, framing.FORMAT}:
                check_damaged(payloads, damaged, 256 * 1024)


@given(
    payload_lists,
    st.lists(st.tuples(st.integers(0), st.binary(min_size=1, max_size=30) | st.just(b"\0" * 40)), max_size=5),
    chunk_sizes,
)
def test_any_damage_costs_the_touched_records_alone(
    payloads: list[bytes], strokes: list[tuple[int, bytes]], chunk: int
) -> None:
    """Whatever stretches are overwritten, all untouched records are read, and none is made up."""
    content = bytearray(segment_of(payloads))
    for place, stroke in strokes:
        start = place % len(content)
        stop = min(start + len(stroke), len(content))
        content[start:stop] = stroke[: stop - start]
    assume(framing.format_of(content) in {None, 0, framing.FORMAT})
    check_damaged(payloads, bytes(content), chunk)


@given(payload_lists, st.binary(max_size=60), st.data(), chunk_sizes)
def test_inserted_bytes_cost_one_record_at_most(
    payloads: list[bytes], garbage: bytes, data: st.DataObject, chunk: int
) -> None:
    """Garbage inserted at the end of a line is told apart, and garbage within a record costs that record."""
    content = segment_of(payloads)
    place = data.draw(st.integers(TAG, len(content)))
    with journal_of(content[:place] + garbage + b"\n" + content[place:], chunk=chunk) as folder:
        items = list(read(folder, tail="closed"))
        found = payloads_in(items)
        assert covered(items) == content[TAG:place] + garbage + b"\n" + content[place:]
        remaining = iter(payloads)
        assert all(payload in remaining for payload in found)
        assert len(found) >= len(payloads) - 1


@given(payload_lists, st.data())
def test_a_missing_newline_costs_nothing(payloads: list[bytes], data: st.DataObject) -> None:
    """Records that were glued together by a lost newline are all read."""
    lines = [framing.encode(payload) for payload in payloads]
    glued = [line[:-1] if data.draw(st.booleans()) else line for line in lines]
    with journal_of(framing.TAG + b"".join(glued)) as folder:
        items = list(read(folder, tail="closed"))
        assert items == [item for item in items if isinstance(item, Entry)]
        assert payloads_in(items) == payloads


@given(payload_lists, st.binary(max_size=200), payload_lists, chunk_sizes)
def test_a_garbage_segment_costs_nothing(before: list[bytes], garbage: bytes, after: list[bytes], chunk: int) -> None:
    """A foreign file between segments is damage as a whole, and the segments around it are read."""
    garbage = b"#" + garbage
    with journal_of(segment_of(before), garbage, segment_of(after), chunk=chunk) as folder:
        items = list(read(folder, tail="closed"))
        assert payloads_in(items) == before + after
        damage = Damage(
            Position(2, 0), Position(2, len(garbage)), "no format tag: a foreign file or a damaged one", garbage
        )
        assert [item for item in items if isinstance(item, Damage)] == [damage]


def test_a_newer_segment_is_left_to_a_newer_version() -> None:
    """A segment of a newer format is damage as a whole, with its format as the reason, however its records look."""
    newer = b"mantik-journal 2\n" + framing.encode(b"{}")
    with journal_of(segment_of([b"1"]), newer, segment_of([b"3"])) as folder:
        items = list(read(folder, tail="closed"))
        damage = Damage(Position(2, 0), Position(2, len(newer)), "newer format: mantik-journal 2", newer)
        assert items[1] == damage
        assert payloads_in(items) == [b"1", b"3"]
        middle = next(read(folder, Position(2, 17), tail="closed"))
        assert middle == Damage(Position(2, 17), damage.end, damage.reason, newer[17:])


def test_other_files_are_no_segments(tmp_path: Path) -> None:
    """Cursors, folders, links and half-named files beside the segments are not read."""
    JournalWriter(tmp_path).append(b"1")
    (tmp_path / "cursor").write_bytes(segment_of([b"2"]))
    (tmp_path / "3.segment").write_bytes(segment_of([b"3"]))
    (tmp_path / "00000004.segment").mkdir()
    (tmp_path / "00000005.segment").symlink_to(tmp_path / "cursor")
    (tmp_path / "00000006.segment.bak").write_bytes(segment_of([b"6"]))
    assert payloads_in(list(read(tmp_path, tail="closed"))) == [b"1"]
    assert JournalWriter(tmp_path).append(b"2").segment == 2


def test_no_directory_is_an_empty_journal(tmp_path: Path) -> None:
    """Nothing was written where nothing is."""
    assert list(read(tmp_path / "none", tail="closed")) == []
    assert waiting_bytes(tmp_path / "none", Position(0, 0)) == 0


def test_a_line_that_is_longer_than_any_record_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment without newlines is not held in memory, and no record is looked for within it."""
    monkeypatch.setattr(segment, "_LINE_BYTES", 100)
    monkeypatch.setattr(segment, "_PIECE_BYTES", 1000)
    giant = b"\0" * 3 + framing.encode(b"hidden")[:-1] * 200 + b"\n"
    content = segment_of([b"before"]) + giant + framing.encode(b"after")
    with journal_of(content, chunk=64) as folder:
        items = list(read(folder, tail="closed"))
        assert payloads_in(items) == [b"before", b"after"]
        assert covered(items) == content[TAG:]
        assert len(items) > 4
        assert max(item.end.offset - item.start.offset for item in items) <= 1000


def test_large_records_are_read(tmp_path: Path) -> None:
    """Records of several megabytes, longer than a segment and a chunk, are records like others."""
    writer = JournalWriter(tmp_path, segment_bytes=1024 * 1024)
    payloads = [os.urandom(size).replace(b"\n", b" ") for size in (5_000_000, 10, 3_000_000, 262_144, 262_126)]
    for payload in payloads:
        writer.append(payload)
    assert payloads_in(list(read(tmp_path, tail="open"))) == payloads


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    """A limit ends the reading behind the record that reaches it, and at least one is read."""
    writer = JournalWriter(tmp_path, segment_bytes=60)
    for number in range(6):
        writer.append(b"%02d" % number)
    line = len(framing.encode(b"00"))
    for limit, count in ((0, 1), (1, 1), (line, 1), (line + 1, 2), (3 * line, 3), (1000, 6)):
        assert len(list(read(tmp_path, tail="open", limit_bytes=limit))) == count


def test_a_segment_that_goes_away_was_delivered(tmp_path: Path) -> None:
    """Somebody else's removal of delivered segments does not disturb a reader."""
    writer = JournalWriter(tmp_path, segment_bytes=1)
    for number in range(3):
        writer.append(b"%d" % number)
    reader = read(tmp_path, tail="open")
    next(reader)
    (tmp_path / "00000002.segment").unlink()
    assert payloads_in(list(reader)) == [b"2"]


def test_a_position_behind_a_shortened_segment_goes_on_with_the_next(tmp_path: Path) -> None:
    """Where a node's crash took back bytes that had been delivered, reading goes on behind them."""
    JournalWriter(tmp_path).append(b"1")
    JournalWriter(tmp_path).append(b"2")
    assert payloads_in(list(read(tmp_path, Position(1, 10_000), tail="closed"))) == [b"2"]
    assert waiting_bytes(tmp_path, Position(1, 10_000)) == len(framing.encode(b"2"))


def test_files_are_private(tmp_path: Path) -> None:
    """The directory is 0700 and segments are 0600, under any umask and where the directory was open before."""
    folder = tmp_path / "journal"
    folder.mkdir(mode=0o755)
    before = os.umask(0)
    try:
        JournalWriter(folder, segment_bytes=1).append(b"1")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_an_opening_touches_no_earlier_segment(tmp_path: Path) -> None:
    """A writer starts behind what is there, a torn tail and an empty file included."""
    (tmp_path / "00000001.segment").write_bytes(segment_of([b"1"])[:-1])
    (tmp_path / "00000007.segment").write_bytes(b"")
    assert JournalWriter(tmp_path).position == Position(8, TAG)
    assert (tmp_path / "00000001.segment").read_bytes() == segment_of([b"1"])[:-1]


def test_eight_threads_append_everything_once(tmp_path: Path) -> None:
    """Interleaved appends are all there, once, each thread's in its order, at the positions they were told."""
    writer = JournalWriter(tmp_path, segment_bytes=2000)
    ends: dict[bytes, Position] = {}

    def append_many(name: int) -> None:
        for number in range(300):
            payload = b"%d %d" % (name, number)
            ends[payload] = writer.append(payload)

    threads = [threading.Thread(target=append_many, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    items = [item for item in read(tmp_path, tail="closed") if isinstance(item, Entry)]
    assert {item.payload: item.end for item in items} == ends
    assert len(items) == 8 * 300
    for name in range(8):
        own = [item.payload for item in items if item.payload.startswith(b"%d " % name)]
        assert own == [b"%d %d" % (name, number) for number in range(300)]


def interrupted_append(writer: JournalWriter, moment: int, payload: bytes) -> tuple[Position, bool]:
    """Append b"third" and, at the n-th moment of it, the payload, as a signal handler would.

    Python runs signal handlers where functions begin and behind calls, which is where a profile function is called.
    """
    moments = itertools.count(1)
    interrupted = False

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal interrupted
        if (
            event in {"call", "return", "c_return", "c_exception"}
            and frame.f_code.co_filename == JournalWriter.append.__code__.co_filename
            and next(moments) == moment
        ):
            interrupted = True
            writer.append(payload)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        end = writer.append(b"third")
    finally:
        sys.setprofile(before)
    return end, interrupted


def test_a_signal_handler_appends_in_the_middle_of_an_append(tmp_path: Path) -> None:
    """A handler that appends at any moment of an append, or of its rollover, loses and disorders nothing."""
    descriptors = sum(1 for _ in Path("/dev/fd").iterdir())
    interrupted = True
    moment = 0
    while interrupted:
        moment += 1
        folder = tmp_path / str(moment)
        # A handler's record fills the segment up, or does not.
        for size in (1, 60):
            writer = JournalWriter(folder, segment_bytes=80)
            told = [writer.append(b"first"), writer.append(b"second, with which the segment is full....")]
            end, interrupted = interrupted_append(writer, moment, b"!" * size)
            assert writer.position == list(read(folder, tail="open"))[-1].end
            told += [end, writer.append(b"fourth"), writer.append(b"fifth")]
            items = list(read(folder, Position(told[0].segment, 0), tail="closed"))
            found = payloads_in(items)
            assert len(found) == len(items)
            appended = [b"first", b"second, with which the segment is full....", b"third", b"fourth", b"fifth"]
            assert [payload for payload in found if payload in appended] == appended
            assert found.count(b"!" * size) == len(items) - len(appended) == interrupted
            assert told == sorted(told)
            assert told[-1] == items[-1].end == writer.position
            assert set(told) <= {item.end for item in items}
            writer.close()
    assert moment > 10
    assert sum(1 for _ in Path("/dev/fd").iterdir()) == descriptors


def test_one_append_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record reaches the operating system as a whole line."""
    writer = JournalWriter(tmp_path)
    real, writes = os.write, []
    monkeypatch.setattr(os, "write", lambda descriptor, data: writes.append(bytes(data)) or real(descriptor, data))
    writer.append(b"{}")
    assert writes == [framing.encode(b"{}")]


@pytest.mark.parametrize("can_truncate", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 20, -2])
def test_a_short_write_leaves_no_half_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, *, can_truncate: bool
) -> None:
    """What was written of a refused record is cut off, or stands at the end of a segment that is given up."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    writer = JournalWriter(tmp_path)
    end = writer.append(b"before")
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:kept]))
        if not can_truncate:
            patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(OSError, match="could be written") as caught:
            writer.append(b"0123456789")
    assert caught.value.errno == errno.ENOSPC
    assert writer.position == end
    assert writer.append(b"after").segment == (1 if can_truncate else 2)
    items = list(read(tmp_path, tail="closed"))
    assert payloads_in(items) == [b"before", b"after"]
    damages = [item for item in items if isinstance(item, Damage)]
    assert [damage.reason for damage in damages] == ([] if can_truncate or kept == 0 else [TORN_TAIL])


def test_what_somebody_else_appended_is_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file is longer than this writer made it, a refused record gives up the segment."""
    writer = JournalWriter(tmp_path)
    writer.append(b"before")
    with (tmp_path / "00000001.segment").open("ab") as file:
        file.write(framing.encode(b"foreign"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *_: 0)
        with pytest.raises(OSError, match="could be written"):
            writer.append(b"refused")
    writer.append(b"after")
    assert payloads_in(list(read(tmp_path, tail="closed"))) == [b"before", b"foreign", b"after"]


def test_a_segment_that_cannot_be_made_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append that cannot roll over raises, leaves no file, and the next one rolls over."""
    writer = JournalWriter(tmp_path, segment_bytes=1)
    end = writer.append(b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *_: 3)
        for _ in range(2):
            with pytest.raises(OSError, match="format tag"):
                writer.append(b"refused")
    assert [path.name for path in tmp_path.iterdir()] == ["00000001.segment"]
    assert writer.position == end
    assert writer.append(b"after").segment == 2
    assert payloads_in(list(read(tmp_path, tail="closed"))) == [b"before", b"after"]


def test_a_closed_writer_appends_nothing(tmp_path: Path) -> None:
    """Closing is final, and closing again is nothing."""
    writer = JournalWriter(tmp_path)
    writer.append(b"1")
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.append(b"2")
    assert payloads_in(list(read(tmp_path, tail="closed"))) == [b"1"]


def test_sync_reaches_every_segment_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All segments that were written since the last time are forced to the device, those that are left only once."""
    synced: list[str] = []

    def note(descriptor: int) -> None:
        synced.extend(path.name for path in tmp_path.iterdir() if path.stat().st_ino == os.fstat(descriptor).st_ino)

    monkeypatch.setattr("mantik.delivery.journal._sync_data", note)
    writer = JournalWriter(tmp_path, segment_bytes=40)
    for _ in range(3):
        writer.append(b"0123456789")
    (tmp_path / "00000002.segment").unlink()
    writer.sync()
    assert synced == ["00000001.segment", "00000003.segment"]
    writer.sync()
    assert len(synced) == 2
    end = writer.append(b"0123456789")
    writer.close()
    writer.sync()
    assert synced[2:] == ["00000003.segment", f"{end.segment:08d}.segment"]


def test_a_failed_sync_is_said_and_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the device raises, and the next call tries again."""

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    writer = JournalWriter(tmp_path)
    writer.append(b"1")
    with monkeypatch.context() as patch:
        patch.setattr("mantik.delivery.journal._sync_data", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                writer.sync()
    writer.sync()


APPEND_UNTIL_KILLED = """
import os, sys
from pathlib import Path
from mantik.delivery.journal import JournalWriter

writer = JournalWriter(Path(sys.argv[1]), segment_bytes=300_000)
number = 0
while True:
    # Long ones now and then, so that some kills come in the middle of a write.
    writer.append(b"%d %s" % (number, b"x" * (900_000 if number % 7 == 6 else 50)))
    os.write(1, b"%d\\n" % number)
    number += 1
"""


@pytest.mark.parametrize("seed", range(8))
def test_a_killed_process_loses_nothing(tmp_path: Path, seed: int) -> None:
    """Everything whose append had returned when SIGKILL came is read back, and only what was appended."""
    enough = random.Random(seed).randrange(1, 120)  # noqa: S311 - a moment, not a secret
    command = [sys.executable, "-c", APPEND_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for _ in range(enough):
            assert child.stdout.readline()
        child.kill()
        told = enough + len(child.stdout.read().splitlines())
    items = list(read(tmp_path, tail="closed"))
    numbers = [int(payload.split()[0]) for payload in payloads_in(items)]
    assert numbers == list(range(len(numbers)))
    assert told <= len(numbers) <= told + 1
    assert [item.reason for item in items if isinstance(item, Damage)] in ([], [TORN_TAIL])


def test_a_reader_sees_a_growing_prefix(tmp_path: Path) -> None:
    """While another process writes, every reading continues the one before, and nothing looks damaged."""
    command = [sys.executable, "-c", APPEND_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        position, numbers = Position(0, 0), []
        while len(numbers) < 150:
            told = int(child.stdout.readline())
            for item in read(tmp_path, position, tail="open"):
                assert isinstance(item, Entry)
                numbers.append(int(item.payload.split()[0]))
                position = item.end
            assert numbers == list(range(len(numbers)))
            assert len(numbers) > told
        child.kill()


FILL_THE_DISK = """
import json, resource, signal, sys
from pathlib import Path
from mantik.delivery.journal import JournalWriter

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = JournalWriter(Path(sys.argv[1]))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
appended, refused = [], 0
for limit in (5_000, 6_000, hard):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    for size in [300] * 40 + [1] * 60:
        payload = f"{len(appended)} {'x' * size}"
        try:
            writer.append(payload.encode())
        except OSError:
            refused += 1
        else:
            appended.append(payload)
print(json.dumps([appended, refused]))
"""


def test_a_full_disk_leaves_no_half_records(tmp_path: Path) -> None:
    """Appends that do not fit raise, later ones that fit succeed, and no half record stays in between."""
    command = [sys.executable, "-c", FILL_THE_DISK, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    appended, refused = json.loads(answer.stdout)
    assert refused > 10
    items = list(read(tmp_path, tail="closed"))
    assert payloads_in(items) == [payload.encode() for payload in appended]
    assert len(items) == len(appended)
