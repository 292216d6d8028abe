"""What waits in a journal, record by record."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from mantik.delivery.journal import Entry, Position, read
from mantik.delivery.records import Batch, decode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.delivery.journal import Tail
    from mantik.delivery.records import MetricItem, Record
    from mantik.delivery.spool import Lane

__all__ = ["History", "waiting_records"]

_MOST_POINTS = 500_000


def waiting_records(
    lane: Lane, *, tail: Tail, start: Position | None = None, about: bytes = b""
) -> Iterator[tuple[Position, Record]]:
    """Yield the sound records that were not delivered yet, in the order of their recording, with their ends.

    Args:
        lane: Whose journal.
        tail: ``open`` while somebody may still be writing the last record, ``closed`` if nobody is left.
        start: Where to begin. Default: behind what was delivered.
        about: Leave out records in whose bytes this is not found, without decoding them.

    Raises:
        OSError: The journal cannot be read.
    """
    for entry in read(lane.journal, start or lane.cursor.load(), tail=tail):
        if not isinstance(entry, Entry) or about not in entry.payload:
            continue
        try:
            yield entry.end, decode(entry.payload)
        except ValueError:
            # The shipper will put it into quarantine with its reason.
            continue


class History:
    """The points of one run that wait, for whoever reads the history of its metrics. Any thread may call.

    MLflow reads every metric's history when a model is logged. So that this does not read the journal once for each
    metric, the points of the run that was asked for last are kept, and later calls read only what came since.

    Args:
        lane: Whose journal.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._lock = threading.Lock()
        self._run_id = ""
        self._end = Position(0, 0)
        self._points: dict[str, list[MetricItem]] = {}

    def points(self, run_id: str, key: str) -> list[MetricItem]:
        """Return the points of a metric that were recorded and not delivered yet, in the order of their recording.

        Points that were delivered since an earlier call may be among them.

        Raises:
            OSError: The journal cannot be read.
        """
        with self._lock:
            start = self._end
            if self._run_id != run_id or start < self._lane.cursor.load():
                self._run_id, self._points, start = run_id, {}, self._lane.cursor.load()
            for end, record in waiting_records(self._lane, tail="open", start=start, about=run_id.encode()):
                start = end
                if isinstance(record, Batch) and record.run_id == run_id:
                    for item in record.metrics:
                        self._points.setdefault(item[0], []).append(item)
            self._end = start
            found = list(self._points.get(key, ()))
            if sum(map(len, self._points.values())) > _MOST_POINTS:
                # Too many to keep; the next call reads them again.
                self._run_id, self._points = "", {}
            return found
