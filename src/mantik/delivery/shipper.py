"""Takes records from a journal and brings them to the server: at least once on the wire, exactly once in the store.

Every request may be sent again without harm: points carry the time at which they were recorded, and the server knows
what it has already. So whoever is interrupted simply starts again at the last position that was kept.
"""

from __future__ import annotations

import base64
from collections import deque
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from mantik.delivery.journal import Damage, Position, read
from mantik.delivery.records import Batch, RunUpdate, decode
from mantik.delivery.rest import RefusedError
from mantik.delivery.window import requests_for

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from mantik.delivery.cursor import Cursor
    from mantik.delivery.quarantine import Quarantine
    from mantik.delivery.records import Record
    from mantik.delivery.rest import MlflowApi
    from mantik.delivery.window import Request

__all__ = ["Shipper", "Tally"]

_WINDOW_RECORDS = 5000
_WINDOW_POINTS = 5000
_WINDOW_BYTES = 8 * 1024 * 1024
"""How much is taken from the journal at a time: bounds what is repeated after an interruption, and memory."""

_GONE = "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True, slots=True)
class Tally:
    """What a shipper has done so far."""

    metrics: int = 0
    params: int = 0
    tags: int = 0
    updates: int = 0
    refused: int = 0


class Shipper:
    """Ships one journal. One thread at a time may use it.

    Args:
        directory: The journal.
        cursor: How far it was delivered.
        quarantine: Where goes what the server will never take.
        api: The server.
        tail: ``open`` while somebody may still be writing the journal's last record, ``closed`` if nobody is left.
    """

    def __init__(
        self,
        directory: Path,
        cursor: Cursor,
        quarantine: Quarantine,
        api: MlflowApi,
        *,
        tail: Literal["open", "closed"],
    ) -> None:
        self.position: Position = cursor.load()
        self.tally = Tally()
        self._directory = directory
        self._cursor = cursor
        self._quarantine = quarantine
        self._api = api
        self._tail = tail
        self._requests: deque[Request] = deque()
        self._window_end = self.position

    def ship(self) -> bool:
        """Deliver the next stretch of the journal; tell whether there was one.

        Raises:
            UnavailableError: The server cannot be asked now. What was delivered stays delivered; the next call goes on
                with the request that failed.
            OSError: The journal or the quarantine cannot be read or written.
        """
        if not self._requests:
            self._take_window()
        while self._requests:
            self._send(self._requests[0])
            self._requests.popleft()
        if self._window_end == self.position:
            return False
        self._cursor.store(self._window_end)
        self._cursor.remove_delivered(self._directory, self._window_end)
        self.position = self._window_end
        return True

    def _take_window(self) -> None:
        records: list[Record] = []
        points = 0
        # An attempt before this one may have ended halfway.
        self._window_end = self.position
        entries = read(self._directory, self.position, tail=self._tail, limit_bytes=_WINDOW_BYTES)
        for entry in islice(entries, _WINDOW_RECORDS):
            if isinstance(entry, Damage):
                raw = base64.b64encode(entry.raw).decode()
                self._refuse(entry.reason, "", f"{len(entry.raw)} bytes of the journal", raw)
            else:
                try:
                    record = decode(entry.payload)
                except ValueError as error:
                    self._refuse(str(error), "", "a record", entry.payload.decode(errors="replace"))
                else:
                    records.append(record)
                    points += len(record.metrics) if isinstance(record, Batch) else 0
            self._window_end = entry.end
            if points >= _WINDOW_POINTS:
                break
        self._requests.extend(requests_for(records))

    def _send(self, request: Request) -> None:
        if isinstance(request, RunUpdate):
            self._send_update(request)
        else:
            self._send_batch(request)

    def _send_batch(self, batch: Batch) -> None:
        """Send a batch; where the server refuses it, halve it until the bad ones are alone."""
        try:
            self._api.log_batch(batch.run_id, batch.metrics, batch.params, batch.tags)
        except RefusedError as error:
            size = len(batch.metrics) + len(batch.params) + len(batch.tags)
            if size == 1 or error.code == _GONE:
                self._give_up(batch, error)
                return
            for half in _halves(batch):
                self._send_batch(half)
        else:
            self._count(metrics=len(batch.metrics), params=len(batch.params), tags=len(batch.tags))

    def _send_update(self, update: RunUpdate) -> None:
        try:
            self._api.update_run(update)
        except RefusedError as error:
            content = [update.status, update.end_time, update.run_name]
            self._refuse(str(error), update.run_id, "a change of the run", content)
        else:
            self._count(updates=1)

    def _give_up(self, batch: Batch, error: RefusedError) -> None:
        if _is_there_already(error):
            self._count(metrics=len(batch.metrics))
            return
        for what, items in (("metric", batch.metrics), ("param", batch.params), ("tag", batch.tags)):
            for item in items:
                self._refuse(str(error), batch.run_id, f"{what} {item[0]!r}", item)

    def _refuse(self, reason: str, run_id: str, what: str, content: object) -> None:
        self._quarantine.add(reason, run_id, what, content)
        self._count(refused=1)

    def _count(self, *, metrics: int = 0, params: int = 0, tags: int = 0, updates: int = 0, refused: int = 0) -> None:
        tally = self.tally
        self.tally = replace(
            tally,
            metrics=tally.metrics + metrics,
            params=tally.params + params,
            tags=tally.tags + tags,
            updates=tally.updates + updates,
            refused=tally.refused + refused,
        )


def _halves(batch: Batch) -> tuple[Batch, Batch]:
    """Split a batch, which holds one kind of things, into two."""
    metrics, params, tags = (len(items) // 2 for items in (batch.metrics, batch.params, batch.tags))
    return (
        Batch(batch.run_id, batch.metrics[:metrics], batch.params[:params], batch.tags[:tags]),
        Batch(batch.run_id, batch.metrics[metrics:], batch.params[params:], batch.tags[tags:]),
    )


def _is_there_already(error: RefusedError) -> bool:
    """Tell whether a server refused a point because it has it.

    Servers up to 3.14 say so about NaN and infinities, and all about model metrics, in the words of their database.
    """
    text = str(error)
    return error.code == "BAD_REQUEST" and (
        "UNIQUE constraint" in text or "IntegrityError" in text or "duplicate key" in text
    )
