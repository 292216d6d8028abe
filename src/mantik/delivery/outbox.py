"""Where a process puts what training writes: on disk before the call returns, on its way right after.

There is one outbox per process and platform. A forked child has none of its parent's: it makes its own when it writes.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from mantik.auth.bearer import BearerAuth
from mantik.auth.login import token_source
from mantik.auth.urls import platform_origin
from mantik.delivery.journal import JournalWriter
from mantik.delivery.overlay import Overlay
from mantik.delivery.records import RunUpdate, encode_batch, encode_update
from mantik.delivery.rest import MlflowApi
from mantik.delivery.shipper import Shipper
from mantik.delivery.spool import Outgoing, Owner
from mantik.delivery.worker import Worker
from mantik.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mantik.delivery.journal import Position
    from mantik.delivery.records import MetricItem, TextItem

__all__ = ["Outbox", "choose_again", "close_all", "outbox_for"]

_logger = logging.getLogger(__name__)

_COMPLAINT_SECONDS = 60.0


class Outbox:
    """What this process has written for one platform. Any thread may call.

    Promises: when a call returns, what it was given is on the disk of this machine and survives the death of the
    process; nothing raises into training. Does not promise: to survive the death of the machine within the last second,
    nor a full disk: what cannot be written is counted and said.
    """

    def __init__(self, settings: Settings, uri: str) -> None:
        """Make the folder.

        Raises:
            OSError: The spool cannot be written.
            MantikError: The settings do not make sense.
        """
        source = token_source(settings)
        self.auth = BearerAuth(platform_origin(uri, allow_http=settings.allow_http), source)
        self.uri = uri
        self.overlay = Overlay()
        self.outgoing = Outgoing.create(settings.spool, Owner.here(uri, source.username, settings.api_url))
        self.exit_timeout = settings.exit_timeout
        self.lost = 0
        self._complained_at = 0.0
        # Re-entrant: a signal handler that ends a run may interrupt a call that holds it.
        self._lock = threading.RLock()
        self._writer = JournalWriter(self.outgoing.journal)
        self.worker = Worker(self._writer, self._make_shipper, self.overlay.forget, self.outgoing.beat)

    def record_batch(
        self, run_id: str, metrics: Sequence[MetricItem], params: Sequence[TextItem], tags: Sequence[TextItem]
    ) -> None:
        """Record metrics, params and tags of a run."""
        payload = encode_batch(run_id, metrics, params, tags)
        with self._lock:
            position = self._append(payload)
            if position is not None:
                self.overlay.add_batch(position, run_id, metrics, params, tags)
                self.worker.wake(position)

    def record_update(self, update: RunUpdate) -> None:
        """Record a change of a run."""
        payload = encode_update(update.run_id, update.status, update.end_time, update.run_name)
        with self._lock:
            position = self._append(payload)
            if position is not None:
                self.overlay.add_update(position, update)
                self.worker.wake(position)

    def note_open(self, run_id: str) -> None:
        """Remember that this process has a run open, so that the run is ended should the process vanish."""
        # Its thread gives the signs of life without which a sync on another machine takes the process for gone.
        self.worker.start()
        try:
            self.outgoing.open_run(run_id)
        except OSError as error:
            _logger.debug("The run %s cannot be noted as open: %s", run_id, error)

    def note_closed(self, run_id: str) -> None:
        """Forget that this process has a run open."""
        try:
            self.outgoing.close_run(run_id)
        except OSError as error:
            _logger.debug("The run %s cannot be noted as closed: %s", run_id, error)

    def flush(self, timeout: float, *, give_up_when_down: bool = False) -> bool:
        """Wait until everything that was recorded is on the server; tell whether it is."""
        return self.worker.flush(timeout, give_up_when_down=give_up_when_down)

    def close(self, timeout: float) -> None:
        """Deliver what is left within a time in seconds, and say what could not be."""
        try:
            delivered = self.flush(timeout)
        except KeyboardInterrupt:
            # Whoever does not want to wait loses nothing: it waits on disk.
            delivered = False
        with self._lock:
            try:
                self._writer.close()
            except OSError as error:
                # A network file system may say here that writes were lost; what was shipped was there to be read.
                _logger.warning("The journal in %s cannot be closed (%s).", self.outgoing.path, error)
        # Asked once more now that nothing can be added: another thread may have written since.
        delivered = delivered and self.flush(0)
        self.worker.stop()
        refused = sum(1 for _ in self.outgoing.quarantine.refusals())
        if delivered and not refused:
            self.outgoing.remove()
        if not delivered:
            _logger.warning(
                "Not everything has reached %s (%s). The rest is safe in %s and is sent by: mantik sync",
                self.uri,
                self.worker.problem or "there was no time",
                self.outgoing.path,
            )
        if refused:
            _logger.warning(
                "Refused by %s: %d of the records; the reasons are in %s",
                self.uri,
                refused,
                self.outgoing.quarantine.path,
            )
        if self.lost:
            _logger.warning("%d records could not be written to disk and are lost.", self.lost)

    def _append(self, payload: bytes) -> Position | None:
        try:
            return self._writer.append(payload)
        except (OSError, ValueError) as error:
            # ValueError: the record is larger than any journal takes, or the process is at its very end.
            self.lost += 1
            now = time.monotonic()
            if now - self._complained_at >= _COMPLAINT_SECONDS:
                self._complained_at = now
                _logger.warning(
                    "A record cannot be written to %s (%s). Training goes on; %d records are lost so far.",
                    self.outgoing.path,
                    error,
                    self.lost,
                )
            return None

    def _make_shipper(self) -> Shipper:
        api = MlflowApi(self.uri, self.auth)
        return Shipper(self.outgoing.journal, self.outgoing.cursor, self.outgoing.quarantine, api, tail="open")


_outboxes: dict[tuple[str, str | None, str], Outbox] = {}
_choices: dict[str, Outbox | None] = {}
_lock = threading.Lock()


def outbox_for(uri: str) -> Outbox | None:
    """Return this process's outbox for a tracking URI; None where nothing is to be recorded for it.

    That is so where another platform is claimed, or none, and where the spool cannot be written: a training that cannot
    be made durable is tracked as stock MLflow does it.
    """
    # The hot path: one look-up. What it says changes only with init_tracking() and with a fork.
    try:
        return _choices[uri]
    except KeyError:
        with _lock:
            return _choices.setdefault(uri, _choose(uri))


def choose_again() -> None:
    """Look at the settings again at the next write: who tracks where may have changed."""
    _choices.clear()


def close_all() -> None:
    """Deliver what is left, within `MANTIK_EXIT_TIMEOUT` for all together, and say what could not be.

    For the end of the process; what is written later goes into new folders.
    """
    deadline: float | None = None
    for outbox in list(_outboxes.values()):
        if deadline is None:
            deadline = time.monotonic() + outbox.exit_timeout
        outbox.close(max(0.0, deadline - time.monotonic()))
    _outboxes.clear()
    _choices.clear()


def _choose(uri: str) -> Outbox | None:
    settings = Settings.from_environment().for_claim()
    if settings.claim != uri.rstrip("/"):
        return None
    key = (settings.claim, settings.username, str(settings.spool))
    outbox = _outboxes.get(key)
    if outbox is None:
        try:
            outbox = Outbox(settings, settings.claim)
        except OSError as error:
            _logger.warning(
                "Nothing can be kept in %s (%s): calls of mlflow wait for the platform, and an outage is not bridged.",
                settings.spool,
                error.strerror,
            )
            return None
        _outboxes[key] = outbox
        _close_with_the_worker_process()
    return outbox


def _close_with_the_worker_process() -> None:
    """Deliver at the end of a process of `multiprocessing`, which ends without the handlers of `atexit`."""
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None:
        return
    from multiprocessing.util import Finalize

    # A priority at all is what makes it run at the end.
    Finalize(None, close_all, exitpriority=0)


def _leave_to_the_parent() -> None:
    """Forget, in a forked child, what belongs to the parent: its journal, its thread, its locks."""
    global _lock  # noqa: PLW0603  # the thread that may hold the old one does not exist here
    _lock = threading.Lock()
    _outboxes.clear()
    _choices.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
