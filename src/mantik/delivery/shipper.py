"""Takes records from a journal and brings them to the server: at least once on the wire, exactly once in the store.

Every request may be sent again without harm: points carry the time at which they were recorded, what is created carries
a tag by which it is found, and the server knows what it has already. So whoever is interrupted simply starts again at
the last position that was kept.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from mantik.delivery.framing import FORMAT
from mantik.delivery.history import waiting_records
from mantik.delivery.ids import NO_ROOM
from mantik.delivery.journal import Damage, Position, read
from mantik.delivery.ledger import Counts, entity_of
from mantik.delivery.records import Artifact, Batch, Removal, RunUpdate, decode
from mantik.delivery.requests import Sender, halves, is_there_already
from mantik.delivery.rest import RefusedError, UnavailableError
from mantik.delivery.segment import NEWER_FORMAT
from mantik.delivery.window import requests_for

if TYPE_CHECKING:
    from mantik.delivery.ids import Identities
    from mantik.delivery.journal import Tail
    from mantik.delivery.latecomer import Latecomer
    from mantik.delivery.records import Record
    from mantik.delivery.rest import MlflowApi
    from mantik.delivery.spool import Lane, Outgoing
    from mantik.delivery.window import Request

__all__ = ["STUBBORN_ATTEMPTS", "NewerFormatError", "Shipper"]

_WINDOW_POINTS = 5000
_WINDOW_BYTES = 8 * 1024 * 1024
"""How much is taken from the journal at a time: bounds what is repeated after an interruption, and memory."""

_HOPELESS = frozenset({"RESOURCE_DOES_NOT_EXIST", "OWNER_REFUSED"})
"""Error codes that say the same of every part of a request."""

STUBBORN_ATTEMPTS = 10
"""A request that fails on a server that is well otherwise is taken for refused after so many attempts: over four
minutes, with the pauses in between."""

_INTERNAL_ERROR = 500


class NewerFormatError(UnavailableError):
    """What comes next in the journal was written by a newer mantik, and is left for one."""


class Shipper:
    """Ships one lane of an outgoing folder. One thread at a time may use it.

    Args:
        outgoing: The folder.
        lane: Which of its journals.
        api: The server.
        identities: What provisional ids stand for.
        tail: ``open`` while somebody may still be writing the journal's last record, ``closed`` if nobody is left,
            ``live`` to follow a writer whose file system may show its bytes out of order.
        keep: Leave segments and staged files where they are.
        latecomer: Leaves out what is outdated of the records of a process that is gone.
    """

    def __init__(  # noqa: PLR0913  # what is shipped, to whom, and how
        self,
        outgoing: Outgoing,
        lane: Lane,
        api: MlflowApi,
        identities: Identities,
        *,
        tail: Tail,
        keep: bool = False,
        latecomer: Latecomer | None = None,
    ) -> None:
        self.position: Position = lane.cursor.load()
        # By run, model and experiment: what the server has, what is done with in one way or another, and how many
        # things are in quarantine. A file that was superseded is done with, and neither sent nor refused.
        self.sent: dict[str, Counts] = {}
        self.settled: dict[str, Counts] = {}
        self.refused: dict[str, int] = {}
        self._outgoing = outgoing
        self._lane = lane
        self._sender = Sender(api, identities, outgoing.staging, patient=tail != "closed")
        self._tail: Tail = tail
        self._keep = keep
        self._latecomer = latecomer
        self._requests: deque[Request] = deque()
        self._window: dict[str, Counts] = {}
        self._aside: dict[str, Counts] = {}
        self._done_files: list[str] = []
        self._uploaded_before: list[tuple[Position, str]] | None = None
        self._window_end = self.position
        self.failures = 0
        self._suspects = 0
        self._kept_before: set[str] | None = None

    def ship(self) -> bool:
        """Deliver the next stretch of the journal; tell whether there was one.

        Raises:
            UnavailableError: The server cannot be asked now. What was delivered stays delivered; the next call goes on
                with the request that failed.
            NewerFormatError: What comes next can only be read by a newer mantik.
            OSError: The journal or the quarantine cannot be read or written.
        """
        if not self._requests:
            self._take_window()
        self._send_window()
        if self._window_end == self.position:
            return False
        self._keep_position()
        self.position = self._window_end
        for entity, counts in self._window.items():
            self.settled.setdefault(entity, Counts()).add(counts)
            self.sent.setdefault(entity, Counts()).add(counts.minus(self._aside.get(entity, Counts())))
        self._window, self._aside, self._done_files = {}, {}, []
        return True

    def _keep_position(self) -> None:
        """Store how far the journal was delivered, and delete what was."""
        try:
            self._lane.cursor.store(self._window_end)
            stored = True
        except OSError as error:
            # On a full disk nothing could ever be deleted if that had to be written first. Should this process die,
            # the older cursor has the next one begin with records that the server recognises.
            if error.errno not in NO_ROOM:
                raise
            stored = False
        if not self._keep:
            self._lane.cursor.remove_delivered(self._lane.journal, self._window_end)
            for name in self._done_files:
                self._outgoing.staging.drop(name)
        if not stored:
            # There may be room now; a file that is gone must not be looked for again.
            with contextlib.suppress(OSError):
                self._lane.cursor.store(self._window_end)

    def _split_first(self) -> None:
        parts = halves(self._requests[0])
        if parts:
            self._requests.popleft()
            self._requests.extendleft(reversed(parts))

    def _send_window(self) -> None:
        """Send what was taken, part by part.

        Raises:
            UnavailableError: The server cannot be asked now; what was not sent is kept.
        """
        while self._requests:
            request, stubborn = self._requests[0], False
            try:
                parts = self._send(request)
            except UnavailableError as error:
                if error.unanswered and not error.status:
                    # It may have been too much at once for this server: next time in halves.
                    self._split_first()
                if not self._is_stubborn(error):
                    raise
                parts = self._part(request, RefusedError(f"the platform fails on it ({error})", error.status))
                stubborn = True
            self.failures = 0
            # The parts of what failed so often are judged at once, so that what is sound among them is not held up.
            self._suspects = max(0, self._suspects - 1) + (len(parts) if stubborn or self._suspects else 0)
            # Parts take the place of the whole: what was done of it is not done again after an interruption.
            self._requests.popleft()
            self._requests.extendleft(reversed(parts))

    def _take_window(self) -> None:
        records: list[Record] = []
        points = 0
        # An attempt before this one may have ended halfway.
        self._window_end, self._window, self._aside, self._done_files = self.position, {}, {}, []
        entries = read(self._lane.journal, self.position, tail=self._tail, limit_bytes=_WINDOW_BYTES)
        for entry in islice(entries, self._lane.window_records):
            if isinstance(entry, Damage):
                if entry.reason.startswith(NEWER_FORMAT):
                    if self._window_end > self.position:
                        break
                    raise NewerFormatError(
                        f"its journal is of a newer mantik ({entry.reason}; this one reads {FORMAT}) and is left as "
                        f"it is. Update mantik here ('pip install -U mantik') and sync again"
                    )
                raw = base64.b64encode(entry.raw).decode()
                self._refuse(entry.reason, "", f"{len(entry.raw)} bytes of the journal", raw)
            else:
                try:
                    record = decode(entry.payload)
                except ValueError as error:
                    self._refuse(str(error), "", "a record", entry.payload.decode(errors="replace"))
                else:
                    records += self._wanted(record, entry.end)
                    self._window.setdefault(entity_of(record), Counts()).count(record)
                    points += len(record.metrics) if isinstance(record, Batch) else 0
            self._window_end = entry.end
            if points >= _WINDOW_POINTS:
                break
        self._requests.extend(requests_for(records))

    def _wanted(self, record: Record, end: Position) -> list[Record]:
        """Return what of a record is to be sent."""
        if isinstance(record, Removal) and self._was_done(record, end):
            return []
        wanted = record if self._latecomer is None else self._latecomer.without_the_outdated(record)
        return [] if wanted is None else [wanted]

    def _was_done(self, removal: Removal, end: Position) -> bool:
        """Tell whether a removal was done already, though the cursor that said so is lost.

        So it was where a file that was recorded behind it is not here any more. To do it once more would remove that
        file, which nobody could upload again.
        """
        if self._uploaded_before is None:
            later = waiting_records(self._lane, tail=self._tail, start=self.position, about=b'"artifact"')
            staging = self._outgoing.staging
            self._uploaded_before = [
                (position, record.uri)
                for position, record in later
                if isinstance(record, Artifact) and staging.is_missing(record.staged)
            ]
        return any(position > end and removal.covers(uri) for position, uri in self._uploaded_before)

    def _send(self, request: Request) -> tuple[Request, ...]:
        """Send a request; return its halves where the server refuses it, until the bad ones are alone."""
        parts: tuple[Request, ...] = ()
        try:
            for cut in self._sender.send(request):
                self._note_cut(cut)
        except RefusedError as error:
            if is_there_already(error) and not halves(request):
                return ()
            parts = self._part(request, error)
        self._done_files += self._sender.uploaded()
        for artifact in self._sender.superseded():
            self._done_files.append(artifact.staged)
            self._aside.setdefault(entity_of(artifact), Counts()).count(artifact)
        return parts

    def _part(self, request: Request, error: RefusedError) -> tuple[Request, ...]:
        """Halve what was refused; what cannot be halved goes into quarantine."""
        parts = () if error.code in _HOPELESS else halves(request)
        if not parts:
            self._set_aside(request, error)
        return parts

    def _is_stubborn(self, error: UnavailableError) -> bool:
        """Tell whether a request fails for its own sake, and not because the server is unwell."""
        if error.status != _INTERNAL_ERROR:
            return False
        self.failures += 1
        return (self.failures >= STUBBORN_ATTEMPTS or self._suspects > 0) and self._sender.is_well()

    def _set_aside(self, request: Request, error: RefusedError) -> None:
        if not isinstance(request, Batch):
            if (staged := getattr(request, "staged", None)) is not None:
                self._outgoing.keep_refused(staged)
            self._refuse(str(error), entity_of(request), _what(request), request.as_list())
            self._aside.setdefault(entity_of(request), Counts()).count(request)
            return
        for part in _singles(request):
            self._refuse(str(error), part.run_id, _what(part), part.as_list())
            self._aside.setdefault(part.run_id, Counts()).count(part)

    def _note_cut(self, cut: Batch) -> None:
        """Keep a value that the server holds a part of only."""
        reason = "longer than the platform keeps: it has the beginning, and the whole of it is here"
        self._refuse(reason, cut.run_id, _what(cut), cut.as_list())

    def _refuse(self, reason: str, entity: str, what: str, content: object) -> None:
        if self._kept_before is None:
            kept = self._outgoing.quarantine.refusals()
            self._kept_before = {_fingerprint(refusal.run_id, refusal.content) for refusal in kept}
        # Whoever was interrupted between this and the cursor judges the same records again.
        if _fingerprint(entity, content) not in self._kept_before:
            self._outgoing.quarantine.add(reason, entity, what, content)
        self.refused[entity] = self.refused.get(entity, 0) + 1


def _fingerprint(entity: str, content: object) -> str:
    return json.dumps([entity, content])


def _singles(batch: Batch) -> list[Batch]:
    return [
        *(Batch(batch.run_id, [item], [], []) for item in batch.metrics),
        *(Batch(batch.run_id, [], [item], []) for item in batch.params),
        *(Batch(batch.run_id, [], [], [item]) for item in batch.tags),
    ]


def _what(request: Request) -> str:
    """Say in a few words what a request with one thing in it is."""
    if isinstance(request, Batch):
        for what, items in (("metric", request.metrics), ("param", request.params), ("tag", request.tags)):
            for item in items:
                return f"{what} {item[0]!r}"
    if isinstance(request, RunUpdate):
        return "a change of the run"
    return Sender.words(request)
