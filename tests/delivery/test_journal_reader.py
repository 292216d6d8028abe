"""The journal's reader: every sound record, whatever happened to the bytes around it."""

from __future__ import annotations

import itertools
import json
import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mantik.delivery import framing, segment
from mantik.delivery.journal import (
    TORN_TAIL,
    Damage,
    Entry,
    JournalWriter,
    Position,
    last_write,
    read,
    waiting_bytes,
)

from .lines import payloads_in, segment_of

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def test_a_follower_stops_before_anything_that_is_no_whole_record() -> None:
    """A hole in the last segment, over a newline too, ends a live reading before it, and later nothing is missing."""
    payloads = [b"first", b"second", b"third"]
    whole = segment_of(payloads)
    for index in range(TAG, len(whole)):
        with journal_of(segment_of([b"earlier"]), whole[:index] + b"\0" + whole[index + 1 :]) as folder:
            first = list(read(folder, tail="live"))
            (folder / "00000002.segment").write_bytes(whole)
            rest = list(read(folder, first[-1].end, tail="live"))
            assert payloads_in([*first, *rest]) == [b"earlier", *payloads]
            assert len(first) + len(rest) == 4


def test_a_follower_reads_damage_of_earlier_segments() -> None:
    """Behind a segment that was followed by another nothing changes any more, and its damage is told."""
    damaged = segment_of([b"first", b"second"])[:-3]
    with journal_of(damaged, segment_of([b"third"])) as folder:
        items = list(read(folder, tail="live"))
        assert payloads_in(items) == [b"first", b"third"]
        assert [item.reason for item in items if isinstance(item, Damage)] == [TORN_TAIL]


def test_the_last_write_is_that_of_the_last_segment(tmp_path: Path) -> None:
    """When a journal was last written is its last segment's time; one without segments never was."""
    assert last_write(tmp_path / "none") is None
    assert last_write(tmp_path) is None
    writer = JournalWriter(tmp_path, segment_bytes=1)
    writer.append(b"1")
    writer.append(b"2")
    os.utime(tmp_path / "00000001.segment", (9000, 9000))
    os.utime(tmp_path / "00000002.segment", (5000, 5000))
    assert last_write(tmp_path) == 5000
