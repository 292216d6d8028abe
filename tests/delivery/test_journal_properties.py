"""Journals of real records, whatever happened to their files: no crash, nothing invented, nothing complete lost.

Each property is shown for both lanes of a folder: points, and uploads.
"""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mantik.delivery import framing, segment
from mantik.delivery.cursor import Cursor
from mantik.delivery.history import waiting_records
from mantik.delivery.journal import Damage, Entry, JournalWriter, Position, read
from mantik.delivery.records import decode, encode
from mantik.delivery.spool import Outgoing

from .sample import POINTS_LANE, UPLOADS_LANE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.delivery.records import Record
    from mantik.delivery.spool import Lane

POINTS, UPLOADS = ("points", st.lists(POINTS_LANE, max_size=6)), ("uploads", st.lists(UPLOADS_LANE, max_size=6))
BOTH_LANES = pytest.mark.parametrize(("lane_name", "records"), [POINTS, UPLOADS])
LANES = pytest.mark.parametrize(("lane_name", "records"), [POINTS, pytest.param(*UPLOADS, marks=pytest.mark.thorough)])
"""What damage does is the same for both: the bytes around a record are."""

SIZES = st.sampled_from([1, 150, 400, 4 * 1024 * 1024])
SMALL_CHUNKS = 64


@contextmanager
def lane_of(name: str) -> Iterator[Lane]:
    """Give a lane of a new folder, read in chunks that are shorter than a record."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "_CHUNK_BYTES", SMALL_CHUNKS)
        yield getattr(Outgoing(Path(folder)), name)


def write(lane: Lane, records: list[Record], segment_bytes: int) -> list[Position]:
    """Append records in an opening of the journal of their own; give the ends."""
    writer = JournalWriter(lane.journal, segment_bytes=segment_bytes)
    ends = [writer.append(encode(record)) for record in records]
    writer.close()
    return ends


def segments(lane: Lane) -> list[Path]:
    """List the segments, in order."""
    return sorted(lane.journal.glob("*.segment"))


def said(lane: Lane, tail: str) -> list[bytes]:
    """Give what delivery would take from the journal, encoded again."""
    return [encode(record) for _, record in waiting_records(lane, tail=tail)]  # type: ignore[arg-type]


def sound(items: list[Entry | Damage]) -> list[bytes]:
    """Give the payloads that were read."""
    return [item.payload for item in items if isinstance(item, Entry)]


def is_subsequence(part: list[bytes], whole: list[bytes]) -> bool:
    """Tell whether one list is the other one with some items left out."""
    rest = iter(whole)
    return all(item in rest for item in part)


def check_tails(lane: Lane) -> None:
    """Check how the three ways to read a last segment agree."""
    closed = list(read(lane.journal, tail="closed"))
    opened = list(read(lane.journal, tail="open"))
    live = list(read(lane.journal, tail="live"))
    assert sound(live) == sound(closed)[: len(sound(live))]
    assert opened[:-1] == closed[: len(opened)][:-1]
    for mine, whole in zip(opened[-1:], closed[len(opened) - 1 :], strict=False):
        # Damage that goes on in a line which is still being written is longer once that line is torn.
        assert mine == whole or (isinstance(mine, Damage) and isinstance(whole, Damage))
        assert getattr(whole, "raw", b"").startswith(getattr(mine, "raw", b""))
    assert live == opened[: len(live)]
    last = segments(lane)[-1:]
    number = int(last[0].stem) if last else 0
    assert [item for item in live if item.start.segment < number] == [
        item for item in closed if item.start.segment < number
    ]
    assert all(isinstance(item, Entry) for item in live if item.start.segment == number)


@BOTH_LANES
@given(data=st.data())
def test_any_openings_and_segments_are_read_in_order(
    lane_name: str, records: st.SearchStrategy[list[Record]], data: st.DataObject
) -> None:
    """Over any number of openings and segments each record is read once, in order, from any position on."""
    with lane_of(lane_name) as lane:
        payloads: list[bytes] = []
        ends: list[Position] = []
        for _ in range(data.draw(st.integers(1, 3))):
            written = data.draw(records)
            payloads += map(encode, written)
            ends += write(lane, written, data.draw(SIZES))
        for tail in ("open", "closed", "live"):
            assert said(lane, tail) == payloads
        for index, end in enumerate(ends):
            lane.cursor.store(end)
            assert said(lane, "open") == payloads[index + 1 :]
            Cursor.remove_delivered(lane.journal, end)
            assert said(lane, "closed") == payloads[index + 1 :]


@LANES
@given(data=st.data())
def test_a_truncation_costs_the_cut_record_alone(
    lane_name: str, records: st.SearchStrategy[list[Record]], data: st.DataObject
) -> None:
    """Cut anywhere, a journal gives every record whose bytes are all there, and no other one."""
    with lane_of(lane_name) as lane:
        written = data.draw(records)
        ends = write(lane, written, data.draw(SIZES))
        number = data.draw(st.integers(1, len(segments(lane))))
        path = segment.path_of(lane.journal, number)
        size = data.draw(st.integers(0, path.stat().st_size))
        with path.open("rb+") as file:
            file.truncate(size)
        # Nothing but the newline may be missing.
        kept = [
            encode(record)
            for record, end in zip(written, ends, strict=True)
            if end.segment != number or end.offset - 1 <= size
        ]
        assert said(lane, "closed") == kept
        check_tails(lane)


@LANES
@given(data=st.data())
def test_a_changed_byte_costs_one_record_at_most(
    lane_name: str, records: st.SearchStrategy[list[Record]], data: st.DataObject
) -> None:
    """Whatever byte behind the format tag becomes whatever other, no record is invented and one is lost at most."""
    with lane_of(lane_name) as lane:
        payloads = list(map(encode, written := data.draw(records)))
        write(lane, written, data.draw(SIZES))
        path = data.draw(st.sampled_from(segments(lane)))
        content = bytearray(path.read_bytes())
        if len(content) > len(framing.TAG):
            content[data.draw(st.integers(len(framing.TAG), len(content) - 1))] = data.draw(
                st.sampled_from(b'\n "0f,]') | st.integers(0, 255)
            )
        path.write_bytes(content)
        found = said(lane, "closed")
        assert is_subsequence(found, payloads)
        assert len(found) >= len(payloads) - 1
        check_tails(lane)


@LANES
@given(data=st.data())
def test_any_bytes_in_a_segment_cost_what_they_replaced(
    lane_name: str, records: st.SearchStrategy[list[Record]], data: st.DataObject
) -> None:
    """Stretches that are overwritten, cut out or put in cost the records that they touch, and no reader fails."""
    with lane_of(lane_name) as lane:
        payloads = list(map(encode, written := data.draw(records)))
        write(lane, written, data.draw(SIZES))
        paths = segments(lane)
        touched = data.draw(st.sampled_from(paths))
        untouched = [path.read_bytes() for path in paths if path != touched]
        content = touched.read_bytes()
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, len(content)))
        garbage = data.draw(st.binary(max_size=40) | st.sampled_from([b"\0" * 30, b"\n", content[start:stop]]))
        touched.write_bytes(content[:start] + garbage + content[stop:])
        found = said(lane, "closed")
        # A whole record that was put in twice is there twice; delivery knows such records.
        assert set(found) <= set(payloads)
        rest = [payload for payload in payloads if any(framing.encode(payload) in sound for sound in untouched)]
        assert set(rest) <= set(found)
        check_tails(lane)


@LANES
@given(data=st.data())
def test_a_segment_that_is_gone_costs_its_own_records(
    lane_name: str, records: st.SearchStrategy[list[Record]], data: st.DataObject
) -> None:
    """Whichever segments are deleted, all records of the others are read, and a new writer hides none of them."""
    with lane_of(lane_name) as lane:
        written = data.draw(records)
        ends = write(lane, written, 1)
        gone = data.draw(st.sets(st.sampled_from([int(path.stem) for path in segments(lane)])))
        for number in gone:
            segment.path_of(lane.journal, number).unlink()
        kept = [encode(record) for record, end in zip(written, ends, strict=True) if end.segment not in gone]
        assert said(lane, "closed") == kept
        check_tails(lane)
        if segments(lane):
            more = data.draw(records)
            write(lane, more, data.draw(SIZES))
            assert said(lane, "open") == kept + list(map(encode, more))


@LANES
@given(data=st.data())
def test_readers_between_writes_see_everything_once(
    lane_name: str, records: st.SearchStrategy[list[Record]], data: st.DataObject
) -> None:
    """However appends, readings, removals and new writers follow each other, a reader's parts make up the whole."""
    with lane_of(lane_name) as lane:
        written: list[bytes] = []
        found: list[bytes] = []
        position = Position(0, 0)
        writer = JournalWriter(lane.journal, segment_bytes=data.draw(SIZES))
        for record, action in itertools.product(
            data.draw(records), data.draw(st.lists(st.sampled_from("ralo"), min_size=1, max_size=3))
        ):
            if action == "o":
                writer.close()
                writer = JournalWriter(lane.journal, segment_bytes=data.draw(SIZES))
            writer.append(encode(record))
            written.append(encode(record))
            if action != "a":
                tail = "live" if action == "l" else "open"
                for item in read(lane.journal, position, tail=tail, limit_bytes=data.draw(st.integers(1, 500))):  # type: ignore[arg-type]
                    assert isinstance(item, Entry)
                    found.append(item.payload)
                    position = item.end
                Cursor.remove_delivered(lane.journal, position)
        writer.close()
        found += sound(list(read(lane.journal, position, tail="closed")))
        assert found == written


@LANES
@given(data=st.data())
def test_bytes_that_appear_out_of_order_are_never_taken_for_damage(
    lane_name: str, records: st.SearchStrategy[list[Record]], data: st.DataObject
) -> None:
    """Where a network file system shows a hole before the bytes, a follower stops before it and loses nothing later."""
    with lane_of(lane_name) as lane:
        written = data.draw(records)
        write(lane, written, 4 * 1024 * 1024)
        path = segments(lane)[-1]
        whole = path.read_bytes()
        start = data.draw(st.integers(0, len(whole)))
        stop = data.draw(st.integers(start, len(whole)))
        path.write_bytes(whole[:start] + bytes(stop - start) + whole[stop:])
        first = list(read(lane.journal, tail="live"))
        assert all(isinstance(item, Entry) for item in first)
        path.write_bytes(whole)
        end = first[-1].end if first else Position(0, 0)
        rest = list(read(lane.journal, end, tail="live"))
        assert sound(first) + sound(rest) == list(map(encode, written))


@given(st.lists(st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b"")), max_size=5))
def test_sound_lines_that_are_no_records_harm_nobody(payloads: list[bytes]) -> None:
    """What stands soundly in a journal and is no record is passed over by whoever reads what waits."""
    with lane_of("points") as lane:
        writer = JournalWriter(lane.journal)
        known = encode(decode(b'["update","r","FINISHED",1,null]'))
        for payload in payloads:
            writer.append(payload)
            writer.append(known)
        found = said(lane, "open")
        assert found.count(known) >= len(payloads)
        assert sum(1 for _ in read(lane.journal, tail="open")) == 2 * len(payloads)
