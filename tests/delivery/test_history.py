"""The points that wait, for whoever reads the history of a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mantik.delivery import history
from mantik.delivery.cursor import Cursor
from mantik.delivery.history import History, waiting_records
from mantik.delivery.journal import JournalWriter, Position
from mantik.delivery.records import Batch, RunUpdate, encode, encode_batch, encode_update
from mantik.delivery.spool import Lane, Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    """Return an empty lane."""
    return Outgoing(tmp_path).points


@pytest.fixture
def writer(lane: Lane) -> Iterator[JournalWriter]:
    """Write the lane's journal."""
    writer = JournalWriter(lane.journal, segment_bytes=2000)
    yield writer
    writer.close()


def points(first: int, stop: int, key: str = "loss") -> list[list[Any]]:
    """Return points of a metric, one a step."""
    return [[key, float(step), 1000 + step, step] for step in range(first, stop)]


def test_points_are_read_in_their_order_and_of_the_run_alone(lane: Lane, writer: JournalWriter) -> None:
    """Only points of the run and the metric that were asked for, in the order in which they were recorded."""
    writer.append(encode_batch("run-1", points(0, 3) + points(0, 2, "acc"), [], []))
    writer.append(encode_batch("run-2", points(7, 9), [], []))
    writer.append(encode_update("run-1", "FINISHED", 1, None))
    writer.append(encode_batch("run-1", [["loss", -1.0, 1, 0]], [["loss", "no metric"]], []))
    seen = History(lane)
    assert seen.points("run-1", "loss") == [*points(0, 3), ["loss", -1.0, 1, 0]]
    assert seen.points("run-2", "loss") == points(7, 9)
    assert seen.points("run-1", "acc") == points(0, 2, "acc")
    assert seen.points("run-1", "none") == seen.points("run-3", "loss") == []


def test_a_later_call_sees_what_came_since(lane: Lane, writer: JournalWriter) -> None:
    """Each call gives everything up to its moment, over segments and in whatever metric's name it is asked."""
    seen = History(lane)
    for step in range(50):
        writer.append(encode_batch("run-1", points(step, step + 1), [], []))
        if step % 7 == 0:
            assert seen.points("run-1", "loss") == points(0, step + 1)
            assert seen.points("run-1", "acc") == []
    assert len(list(lane.journal.glob("*.segment"))) > 1
    assert seen.points("run-1", "loss") == points(0, 50)


def test_a_later_call_reads_only_what_came_since(lane: Lane, writer: JournalWriter) -> None:
    """What was read before is not read again: an earlier segment may be gone without a difference."""
    for step in range(50):
        writer.append(encode_batch("run-1", points(step, step + 1), [], []))
    seen = History(lane)
    assert seen.points("run-1", "loss") == points(0, 50)
    min(lane.journal.glob("*.segment")).unlink()
    writer.append(encode_batch("run-1", points(50, 51), [], []))
    assert seen.points("run-1", "loss") == points(0, 51)
    assert len(History(lane).points("run-1", "loss")) < 51


def test_what_was_delivered_meanwhile_is_not_missed_and_not_doubled(lane: Lane, writer: JournalWriter) -> None:
    """After a delivery everything that waits is there once, with or without segments removed."""
    seen = History(lane)
    ends: list[Position] = []
    for step in range(60):
        ends.append(writer.append(encode_batch("run-1", points(step, step + 1), [], [])))
        if step == 20:
            assert seen.points("run-1", "loss") == points(0, 21)
        if step == 40:
            lane.cursor.store(ends[30])
            Cursor.remove_delivered(lane.journal, ends[30])
    assert seen.points("run-1", "loss") == points(31, 60)
    lane.cursor.store(ends[45])
    later = seen.points("run-1", "loss")
    assert later[-14:] == points(46, 60)
    assert [item[3] for item in later] == list(range(60 - len(later), 60))


def test_a_history_that_is_too_long_to_keep_is_read_again(
    lane: Lane, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory stays bounded, and what is read stays complete."""
    monkeypatch.setattr(history, "_MOST_POINTS", 100)
    seen = History(lane)
    for start in range(0, 1000, 50):
        writer.append(encode_batch("run-1", points(start, start + 50), [], []))
        assert seen.points("run-1", "loss") == points(0, start + 50)
    assert sum(len(kept) for kept in seen.__dict__["_points"].values()) <= 100


def test_a_quarter_million_points_are_read(lane: Lane) -> None:
    """A long history is read as a whole, once for all metrics of the run."""
    writer = JournalWriter(lane.journal)
    for start in range(0, 250_000, 1000):
        writer.append(encode_batch("run-1", points(start, start + 1000), [], []))
    assert History(lane).points("run-1", "loss") == points(0, 250_000)


def test_what_is_no_record_and_what_is_half_written_is_passed_over(lane: Lane, writer: JournalWriter) -> None:
    """A reader of history is not disturbed by strange lines, by damage and by half a record."""
    writer.append(b"no record, though it speaks of run-1")
    writer.append(encode_batch("run-1", points(0, 1), [], []))
    path = max(lane.journal.glob("*.segment"))
    whole = path.read_bytes()
    path.write_bytes(whole + b"0000001012345678 [\n" + whole.splitlines(keepends=True)[-1][:-9])
    assert History(lane).points("run-1", "loss") == points(0, 1)


def test_records_are_chosen_by_what_they_speak_of(lane: Lane, writer: JournalWriter) -> None:
    """Waiting records come with their ends, from behind the cursor or a position, those that were asked for."""
    records = [Batch("run-1", points(0, 1), [], []), RunUpdate("run-2", "FINISHED", None, None)]
    ends = [writer.append(encode(record)) for record in records]
    assert list(waiting_records(lane, tail="open")) == list(zip(ends, records, strict=True))
    assert list(waiting_records(lane, tail="open", about=b"run-2")) == [(ends[1], records[1])]
    assert list(waiting_records(lane, tail="open", start=ends[0])) == [(ends[1], records[1])]
    lane.cursor.store(ends[0])
    assert list(waiting_records(lane, tail="closed")) == [(ends[1], records[1])]
