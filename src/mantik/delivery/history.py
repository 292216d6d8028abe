"""The points of a metric that wait in a journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mantik.delivery.journal import Entry, read
from mantik.delivery.records import Batch, decode

if TYPE_CHECKING:
    from mantik.delivery.records import MetricItem
    from mantik.delivery.spool import Outgoing

__all__ = ["waiting_points"]


def waiting_points(outgoing: Outgoing, run_id: str, key: str) -> list[MetricItem]:
    """Return the points of a metric that were recorded and not delivered yet, in the order of their recording."""
    points: list[MetricItem] = []
    for entry in read(outgoing.journal, outgoing.cursor.load(), tail="open"):
        if not isinstance(entry, Entry):
            continue
        try:
            record = decode(entry.payload)
        except ValueError:
            continue
        if isinstance(record, Batch) and record.run_id == run_id:
            points += [item for item in record.metrics if item[0] == key]
    return points
