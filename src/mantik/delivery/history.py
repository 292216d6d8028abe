"""What waits in a journal, record by record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mantik.delivery.journal import Entry, read
from mantik.delivery.records import Batch, decode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    from mantik.delivery.records import MetricItem, Record
    from mantik.delivery.spool import Outgoing

__all__ = ["waiting_points", "waiting_records"]


def waiting_records(outgoing: Outgoing, *, tail: Literal["open", "closed"]) -> Iterator[Record]:
    """Yield the sound records that were not delivered yet, in the order of their recording.

    Args:
        outgoing: Whose journal.
        tail: ``open`` while somebody may still be writing the last record, ``closed`` if nobody is left.

    Raises:
        OSError: The journal cannot be read.
    """
    for entry in read(outgoing.journal, outgoing.cursor.load(), tail=tail):
        if not isinstance(entry, Entry):
            continue
        try:
            yield decode(entry.payload)
        except ValueError:
            # The shipper will put it into quarantine with its reason.
            continue


def waiting_points(outgoing: Outgoing, run_id: str, key: str) -> list[MetricItem]:
    """Return the points of a metric that were recorded and not delivered yet, in the order of their recording."""
    return [
        item
        for record in waiting_records(outgoing, tail="open")
        if isinstance(record, Batch) and record.run_id == run_id
        for item in record.metrics
        if item[0] == key
    ]
