"""The thread that ships while training goes on."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from mantik.delivery.rest import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mantik.delivery.journal import JournalWriter, Position
    from mantik.delivery.shipper import Shipper

__all__ = ["Worker"]

_logger = logging.getLogger(__name__)

_GATHER_SECONDS = 0.2
"""How long records are gathered into one request; a point is visible on a healthy server within about this time."""

_SYNC_SECONDS = 1.0
"""How often what was written is forced to the disk: at most this much is lost when the node itself dies."""

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_COMPLAINT_SECONDS = 60.0


class Worker:
    """A daemon thread around a shipper: started by the first run or record, one per journal and process.

    Promises: `wake` costs microseconds and waits for nobody; `flush` returns within its timeout; whatever goes wrong
    with the network stays in the thread. Does not promise to live after a fork: the child makes its own.

    Args:
        writer: The journal's writer, whose data is forced to the disk about once a second.
        make_shipper: Called in the thread, so that its imports and connections cost the training nothing.
        delivered: Called after each stretch with the position up to which everything is on the server.
        beat: Called about once a second, to show other processes that this one lives.
    """

    def __init__(
        self,
        writer: JournalWriter,
        make_shipper: Callable[[], Shipper],
        delivered: Callable[[Position], None],
        beat: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._make_shipper = make_shipper
        self._delivered = delivered
        self._beat = beat
        self._changed = threading.Condition()
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._nudge = threading.Event()
        self._thread: threading.Thread | None = None
        self._position: Position | None = None
        self._written: Position | None = None
        self._problem: str | None = None
        self._complained_at = 0.0
        self._next_sync = 0.0
        self._ending = False
        self.shipper: Shipper | None = None

    @property
    def problem(self) -> str | None:
        """Why the server cannot be asked at the moment; None while all is well."""
        return self._problem

    def start(self) -> None:
        """Start the thread, if it is not running: from then on the process shows that it lives."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mantik-shipper", daemon=True)
                self._thread.start()

    def wake(self, written: Position) -> None:
        """Say that there is something to ship, up to a position. Calls come one at a time and in order."""
        self._written = written
        if not self._work.is_set():
            self._work.set()
            if self._thread is None:
                self.start()

    def stop(self) -> None:
        """Let the thread end after what it is doing; what it has not shipped stays in the journal."""
        self._ending = True
        self._work.set()
        self._nudge.set()

    def flush(self, timeout: float, *, give_up_when_down: bool = False) -> bool:
        """Wait until everything that was written before this call is on the server.

        Args:
            timeout: Seconds to wait at most.
            give_up_when_down: Do not wait for a server that cannot be reached.

        Returns:
            Whether it is.
        """
        target = self._written
        if target is None:
            return True
        deadline = time.monotonic() + timeout
        self._hurry.set()
        self._nudge.set()
        try:
            with self._changed:
                while self._position is None or self._position < target:
                    remaining = deadline - time.monotonic()
                    if remaining <= 0 or (give_up_when_down and self._problem is not None):
                        return False
                    self._changed.wait(min(remaining, 1.0))
                return True
        finally:
            self._hurry.clear()

    def _run(self) -> None:
        failures = 0
        while not self._ending:
            self._work.wait(_SYNC_SECONDS)
            if not self._hurry.is_set():
                # Not a sleep: whoever flushes ends it.
                self._hurry.wait(_GATHER_SECONDS)
            try:
                self._keep_safe()
                self._ship()
            except UnavailableError as error:
                failures += 1
                self._pause(error, failures)
            except OSError as error:
                failures += 1
                self._pause(UnavailableError(f"the journal cannot be read or written: {error.strerror}"), failures)
            else:
                failures = 0

    def _keep_safe(self) -> None:
        now = time.monotonic()
        if now < self._next_sync:
            return
        self._next_sync = now + _SYNC_SECONDS
        try:
            self._writer.sync()
            self._beat()
        except OSError as error:
            # Nothing to be done about it here: what can be shipped is shipped all the same.
            _logger.debug("The journal cannot be forced to the disk: %s", error)

    def _ship(self) -> None:
        if self.shipper is None:
            self.shipper = self._make_shipper()
        # Cleared before looking: what comes later wakes again.
        self._work.clear()
        while self.shipper.ship():
            self._arrived(self.shipper.position)
            self._keep_safe()
        self._arrived(self.shipper.position)

    def _arrived(self, position: Position) -> None:
        self._delivered(position)
        with self._changed:
            self._position, self._problem = position, None
            self._changed.notify_all()

    def _pause(self, error: UnavailableError, failures: int) -> None:
        self._work.set()
        with self._changed:
            self._problem = str(error)
            self._changed.notify_all()
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAINT_SECONDS:
            self._complained_at = now
            _logger.warning(
                "The platform cannot take records now (%s). Training goes on; they wait on disk and are sent later.",
                error,
            )
        pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10), _LONGEST_PAUSE_SECONDS)
        if error.retry_after is not None:
            pause = max(pause, min(error.retry_after, _LONGEST_PAUSE_SECONDS))
        # Jitter: a thousand jobs that wait for one server do not come back at the same moment.
        until = now + pause * random.uniform(0.5, 1.5)  # noqa: S311  # nothing secret
        while time.monotonic() < until:
            self._keep_safe()
            if self._nudge.wait(min(_SYNC_SECONDS, max(0.0, until - time.monotonic()))):
                # Somebody waits for delivery: one attempt at once, then the pauses go on.
                self._nudge.clear()
                return
