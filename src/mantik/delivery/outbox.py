"""Where a process puts what training writes: on disk before the call returns, on its way right after.

There is one outbox per process and platform. A forked child has none of its parent's: it makes its own when it writes.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from mantik.auth.bearer import BearerAuth
from mantik.auth.login import token_source
from mantik.auth.urls import platform_origin
from mantik.delivery.budget import Budget, Losses
from mantik.delivery.history import History
from mantik.delivery.ledger import Counts, RunFacts, entity_of
from mantik.delivery.line import Line
from mantik.delivery.open_runs import OpenRuns
from mantik.delivery.overlay import Overlay
from mantik.delivery.owner import Owner
from mantik.delivery.records import (
    Artifact,
    Batch,
    Call,
    Create,
    Removal,
    RunUpdate,
    Spans,
    encode,
    encode_batch,
    encode_points,
)
from mantik.delivery.rest import MlflowApi, RefusedError, UnavailableError
from mantik.delivery.spool import Outgoing, identities_of
from mantik.delivery.staged import StagedFiles
from mantik.delivery.superseded import Superseded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mantik.delivery.ids import Identity
    from mantik.delivery.journal import Position
    from mantik.delivery.overlay import LaneName
    from mantik.delivery.records import MetricItem, Record, TextItem
    from mantik.settings import Settings

__all__ = ["Outbox"]

_logger = logging.getLogger(__name__)

_OPEN_STATUSES = frozenset({None, "RUNNING", "SCHEDULED"})


class Outbox:
    """What this process has written for one platform. Any thread may call.

    Promises: when a call returns, what it was given is on the disk of this machine and survives the death of the
    process; nothing raises into training, unless the settings are strict. Does not promise: to survive the death of the
    machine within the last second, nor a full disk: what cannot be written is counted and said.

    Args:
        settings: Who tracks, and where the spool is.
        uri: The normalised tracking URI.

    Raises:
        OSError: The spool cannot be written.
        MantikError: The settings do not make sense.
    """

    def __init__(self, settings: Settings, uri: str) -> None:
        source = token_source(settings)
        self.auth = BearerAuth(platform_origin(uri, allow_http=settings.allow_http), source)
        self.uri = uri
        self.ships = settings.mode == "online"
        self.strict = settings.strict
        self.exit_timeout = settings.exit_timeout
        self.overlay = Overlay()
        self.spool = settings.spool
        self.identities = identities_of(settings.spool)
        owner = Owner.here(uri, source.username, settings.api_url, ships=self.ships)
        self.outgoing = Outgoing.create(settings.spool, owner)
        self.history = History(self.outgoing.points)
        self.losses = Losses(self.outgoing.path)
        self.staged = StagedFiles()
        self.runs: dict[str, RunFacts] = {}
        self.models: dict[str, str] = {}
        self.open_runs = OpenRuns(self.outgoing, self.identities)
        self.down_until = 0.0
        # The end of a run could not be put on disk: the folder stays, so that `mantik sync` ends the run.
        self._misses_an_end = False
        self._budget = Budget(settings.spool, settings.spool_limit)
        self._superseded = Superseded(self.outgoing.staging, self._budget)
        # Re-entrant: a signal handler that ends a run may interrupt a call that holds it.
        self._lock = threading.RLock()
        # One of its own: to delete a large copy takes time, and points are not to wait for it.
        self._artifacts_lock = threading.RLock()
        self._points = Line(self, "points")
        self._uploads: Line | None = None
        self._closed = False

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was ever recorded here."""
        return not self.runs and not self.losses.counts.total

    @property
    def is_disabled(self) -> bool:
        """Whether nothing is kept and nothing is sent."""
        return False

    @property
    def has_work(self) -> bool:
        """Whether something was recorded that is not known to be on the server."""
        return any(line.worker.has_work for line in self._lines())

    @property
    def problem(self) -> str | None:
        """Why nothing can be delivered at the moment; None while all is well."""
        return self._points.worker.problem

    @property
    def why_down(self) -> str:
        """Why the platform cannot be asked, for an error that says so."""
        return self.problem or ("it did not answer a moment ago" if self.ships else "MANTIK_MODE is offline")

    @property
    def is_down(self) -> bool:
        """Whether the platform is known to be out of reach, so that there is no point in asking it."""
        if self.strict and self.ships:
            # Whoever wants to be told has to be: the platform is asked each time.
            return False
        return (
            not self.ships
            or time.monotonic() < self.down_until
            or self.auth.source.is_waiting
            or self._points.worker.problem is not None
        )

    def answers(self) -> bool:
        """Ask the platform whether it is there; tell whether it answers, within 5 s to connect and 5 s to speak."""
        if not self.ships:
            return False
        api = MlflowApi(self.uri, self.auth)
        try:
            api.call("POST", "experiments/search", {"max_results": 1}, timeout=(5.0, 5.0))
        except UnavailableError:
            self.note_down()
            return False
        except RefusedError:
            # Even so it answers.
            pass
        finally:
            api.close()
        self.down_until = 0.0
        return True

    def note_down(self) -> None:
        """Remember for half a minute that the platform did not answer."""
        self.down_until = time.monotonic() + 30.0

    def record_points(self, run_id: str, items: Sequence[MetricItem], texts: Sequence[str]) -> None:
        """Record points of metrics of a run, which are JSON texts already."""
        payload = encode_points(run_id, texts)
        with self._lock:
            try:
                position = self._append(self._points, payload)
            except (OSError, ValueError) as error:
                self._lose(Batch(run_id, list(items), [], []), error)
                return
            self._facts(run_id).recorded.metrics += len(items)
            self.overlay.add_batch(position, run_id, items, (), ())
            self._points.worker.wake(position)

    def record_batch(
        self, run_id: str, metrics: Sequence[MetricItem], params: Sequence[TextItem], tags: Sequence[TextItem]
    ) -> None:
        """Record metrics, params and tags of a run."""
        payload = encode_batch(run_id, metrics, params, tags)
        with self._lock:
            try:
                position = self._append(self._points, payload)
            except (OSError, ValueError) as error:
                self._lose(Batch(run_id, list(metrics), list(params), list(tags)), error)
                return
            counts = self._facts(run_id).recorded
            counts.metrics += len(metrics)
            counts.params += len(params)
            counts.tags += len(tags)
            self.overlay.add_batch(position, run_id, metrics, params, tags)
            self._points.worker.wake(position)

    def record_update(self, update: RunUpdate) -> bool:
        """Record a change of a run; tell whether that could be done."""
        facts = self._facts(update.run_id)
        facts.status = update.status or facts.status
        facts.name = update.run_name or facts.name
        recorded = self._record("points", update)
        self._misses_an_end = self._misses_an_end or (update.end_time is not None and not recorded)
        return recorded

    def record_create(self, identity: Identity, asked_at: float | None) -> bool:
        """Record that something is to be created; tell whether that could be done.

        Args:
            identity: What it is, with its provisional id and the request.
            asked_at: When the server was asked in vain, in seconds since 1970; None if it cannot have heard of it.
        """
        create = Create(identity.kind, identity.local_id, asked_at, identity.body)
        return self.note(identity) and self._record("points", create)

    def note(self, identity: Identity) -> bool:
        """Remember what a provisional id stands for; tell whether that is on disk."""
        try:
            self.identities.note(identity)
        except OSError as error:
            self._lose(Create(identity.kind, identity.local_id, None, identity.body), error)
            return False
        return True

    def record_call(self, call: Call, *, after_uploads: bool = False) -> None:
        """Record a request.

        Args:
            call: The request.
            after_uploads: Send it after the artifacts that were recorded before it.
        """
        self._record("uploads" if after_uploads else "points", call)

    def record_spans(self, experiment_id: str, request: str) -> None:
        """Record spans of traces, in OpenTelemetry's protocol and base64."""
        self._record("points", Spans(experiment_id, request))

    def record_artifact(self, uri: str, source: Path) -> None:
        """Record a file for an artifact URI: the file may be changed or deleted when this returns.

        An older copy that waits for the same URI is not uploaded any more, and deleted.

        Raises:
            OSError: The file cannot be read, or the settings are strict and it cannot be copied.
        """
        size = source.stat().st_size
        if self._closed:
            self._lose(Artifact(uri, "lost", size), ValueError("The outbox is closed."))
            return
        try:
            self._budget.take(size)
            with source.open("rb"):
                # Whoever names a file that cannot be read is told so; a disk without room is our own affair.
                pass
            staged, size = self.outgoing.staging.take(source)
        except (PermissionError, FileNotFoundError, IsADirectoryError):
            raise
        except OSError as error:
            if self.strict:
                raise
            self.losses.note(Artifact(uri, "lost", size), error)
            return
        with self._artifacts_lock:
            older = self.staged.waiting_at(uri)
            if not self._record("uploads", Artifact(uri, staged, size)):
                self.outgoing.staging.drop(staged)
            elif older is not None:
                self._superseded.replace(older, staged)

    def record_removal(self, uri: str) -> None:
        """Record that nothing is to be left at an artifact URI and below it, of what was recorded so far.

        Copies that wait for such a URI are not uploaded any more, and deleted.
        """
        removal = Removal(uri.rstrip("/"))
        with self._artifacts_lock:
            covered = self.staged.covered_by(removal)
            if self._record("uploads", removal):
                self._superseded.remove(covered)

    def keep_uploads_safe(self) -> None:
        """Make the files that wait survive the death of the node, and delete those for which newer ones do.

        Raises:
            OSError: The device reports an error. Nothing was deleted.
        """
        held = self._superseded.held()
        self.outgoing.staging.sync()
        if held and self._uploads is not None:
            # Without its record a newer file is worth nothing.
            self._uploads.writer.sync()
            self._superseded.release(held)

    def introduce(self, run_id: str, name: str | None, experiment_id: str | None) -> None:
        """Remember what a receipt says about a run."""
        facts = self._facts(run_id)
        facts.name, facts.experiment_id = name or facts.name, experiment_id or facts.experiment_id

    def owner_of(self, entity: str) -> str:
        """Return the run to which a receipt counts what was recorded about something; empty where there is none."""
        owner = self.models.get(entity, entity)
        return owner if owner in self.runs else ""

    def note_open(self, run_id: str) -> None:
        """Remember that this process has a run open, so that the run is ended should the process vanish."""
        # Its thread gives the signs of life without which a sync on another machine takes the process for gone.
        self._points.worker.start()
        self.open_runs.add(run_id)

    def note_closed(self, run_id: str) -> None:
        """Forget that this process has a run open."""
        names = self.open_runs.close(run_id)
        if run_id in self.runs:
            for known in names & self.runs.keys():
                self.runs[known].status = self.runs[run_id].status

    def hand_over(self, run_id: str) -> None:
        """Leave a run open for another process that goes on with it, such as the next attempt of a requeued job.

        Promises: nothing that becomes of this process ends the run from now on, neither a signal nor its end nor a
        `mantik sync` after it. `note_open` takes this back.
        """
        known = [self.runs[name] for name in self.open_runs.hand_over(run_id) if name in self.runs]
        if any(facts.status not in _OPEN_STATUSES for facts in known):
            # A signal was heard of before this, and the run was ended for its sake.
            self.record_update(RunUpdate(run_id, "RUNNING", None, None))
        for facts in known:
            facts.status = "RUNNING"

    def is_handed_over(self, run_id: str) -> bool:
        """Tell whether a run is another process's to end."""
        return self.open_runs.is_handed_over(run_id)

    def flush(self, timeout: float, *, give_up_when_down: bool = False) -> bool:
        """Wait until everything that was recorded is on the server; tell whether it is.

        Args:
            timeout: Seconds to wait at most.
            give_up_when_down: Do not wait for a server that cannot be reached.
        """
        deadline = time.monotonic() + timeout
        uploads = self._uploads
        done = self._points.worker.flush(timeout, give_up_when_down=give_up_when_down)
        if uploads is None or not done:
            return done
        # Files may wait for a run that has only just been created: that is no server that cannot be reached.
        return uploads.worker.flush(max(0.0, deadline - time.monotonic()), give_up_when_down=give_up_when_down)

    def progress(self) -> tuple[dict[str, Counts], dict[str, Counts], dict[str, int]]:
        """Return what was sent, what is done with in one way or another, and how many things were refused, by run."""
        sent: dict[str, Counts] = {}
        settled: dict[str, Counts] = {}
        refused: dict[str, int] = {}
        for line in self._lines():
            shipper = line.worker.shipper
            if shipper is None:
                continue
            for mine, theirs in ((sent, shipper.sent), (settled, shipper.settled)):
                for entity, counts in list(theirs.items()):
                    mine.setdefault(self.owner_of(entity), Counts()).add(counts)
            for entity, number in list(shipper.refused.items()):
                owner = self.owner_of(entity)
                refused[owner] = refused.get(owner, 0) + number
        # Asked after the counts, so that nothing is counted as settled twice.
        uploader = self._uploads.worker.shipper if self._uploads is not None else None
        passed = uploader.position if uploader is not None else None
        for entity, counts in self._superseded.counts(passed).items():
            settled.setdefault(self.owner_of(entity), Counts()).add(counts)
        return sent, settled, refused

    def forget(self, lane: LaneName, position: Position) -> None:
        """Drop from memory what has been delivered, in a lane up to a position."""
        # The platform answers again, whatever a read met a moment ago.
        self.down_until = 0.0
        self.overlay.forget(lane, position)
        if lane == "uploads":
            self.staged.forget(position)
            self._superseded.forget(position)

    def close(self, timeout: float, *, give_up_when_down: bool = False) -> bool:
        """Deliver what is left within a time in seconds and end the threads; tell whether nothing is left.

        Raises:
            KeyboardInterrupt: The user does not want to wait. Nothing is lost, and closing again closes.
        """
        delivered = self.flush(timeout, give_up_when_down=give_up_when_down)
        with self._lock:
            self._closed = True
            for line in self._lines():
                self._close_writer(line)
        # Asked once more now that nothing can be added: another thread may have written since.
        delivered = delivered and self.flush(0)
        for line in self._lines():
            line.worker.stop()
        if delivered and not self.outgoing.quarantine.count() and not self._misses_an_end:
            self.outgoing.remove()
            self.identities.save()
        return delivered

    def _close_writer(self, line: Line) -> None:
        try:
            line.writer.close()
        except OSError as error:
            # A network file system may say here that writes were lost; what was shipped was there to be read.
            _logger.warning("The journal in %s cannot be closed (%s).", self.outgoing.path, error)

    def _lines(self) -> list[Line]:
        return [self._points] if self._uploads is None else [self._points, self._uploads]

    def _facts(self, run_id: str) -> RunFacts:
        facts = self.runs.get(run_id)
        if facts is None:
            facts = self.runs[run_id] = RunFacts()
        return facts

    def _record(self, lane: LaneName, record: RunUpdate | Create | Call | Spans | Artifact | Removal) -> bool:
        payload = encode(record)
        with self._lock:
            try:
                line = self._points
                if lane == "uploads":
                    line = self._open_uploads()
                # The end of a run is small and dear, and a removal makes room: both are over no budget.
                is_free = isinstance(record, RunUpdate | Removal)
                position = line.writer.append(payload) if is_free else self._append(line, payload)
            except (OSError, ValueError) as error:
                self._lose(record, error)
                return False
            if isinstance(record, Create) and record.kind == "run":
                self._facts(record.local_id)
            self._facts(self.owner_of(entity_of(record))).recorded.count(record)
            if isinstance(record, RunUpdate | Call):
                self.overlay.add(lane, position, record)
            if isinstance(record, Artifact):
                self.staged.add(record, position)
            elif isinstance(record, Removal):
                self.staged.remove(record, position)
            line.worker.wake(position)
            return True

    def _open_uploads(self) -> Line:
        if self._uploads is None:
            if self._closed:
                # Its folder may be gone: a new one would belong to nobody.
                raise ValueError("The outbox is closed.")
            self._uploads = Line(self, "uploads")
        return self._uploads

    def _append(self, line: Line, payload: bytes) -> Position:
        """Append to a lane's journal.

        Raises:
            OSError: There is no room, or the disk fails.
            ValueError: The record is larger than any journal takes, or the process is at its very end.
        """
        self._budget.take(len(payload))
        return line.writer.append(payload)

    def _lose(self, record: Record, error: OSError | ValueError) -> None:
        if self.strict:
            raise error
        self.losses.note(record, error)
