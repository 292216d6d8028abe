"""A thread that ships while training goes on."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from mantik.delivery.creation import WaitingError
from mantik.delivery.rest import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mantik.delivery.journal import JournalWriter, Position
    from mantik.delivery.shipper import Shipper

__all__ = ["Worker"]

_logger = logging.getLogger(__name__)

_GATHER_SECONDS = 0.5
"""How long records are gathered into one request; a point is visible on a healthy server within about this time. Each
request takes the interpreter from the training for some milliseconds, so fewer are better."""

_SYNC_SECONDS = 1.0
"""How often what was written is forced to the disk: at most this much is lost when the node itself dies."""

_BEAT_SECONDS = 20.0
"""How often the writer shows that it lives: often enough for others, seldom enough for a parallel file system."""

_WAITING_SECONDS = 0.5
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_COMPLAINT_SECONDS = 60.0


class Worker:
    """A daemon thread around a shipper: started by the first run or record, one per lane and process.

    Promises: `wake` costs microseconds and waits for nobody; `flush` returns within its timeout; whatever goes wrong
    with the network stays in the thread. Does not promise to live after a fork: the child makes its own.

    Args:
        name: Name of the thread.
        writer: The journal's writer, whose data is forced to the disk about once a second.
        make_shipper: Called in the thread, so that its imports and connections cost the training nothing; None where
            nothing is to be sent from here.
        delivered: Called after each stretch with the position up to which everything is on the server.
        keep_safe: Called about once a second, to force what else was written to the disk.
        beat: Called from time to time, to show other processes that this one lives.
    """

    def __init__(  # noqa: PLR0913  # each is one thing that the thread does
        self,
        name: str,
        writer: JournalWriter,
        make_shipper: Callable[[], Shipper] | None,
        *,
        delivered: Callable[[Position], None],
        keep_safe: Callable[[], None],
        beat: Callable[[], None],
    ) -> None:
        self._name = name
        self._writer = writer
        self._make_shipper = make_shipper
        self._delivered = delivered
        self._safe = keep_safe
        self._beat = beat
        self._changed = threading.Condition()
        self._bell = _Bell()
        self._pending = False
        self._hurried = 0
        self._nudged = False
        self._thread: threading.Thread | None = None
        self._position: Position | None = None
        self._written: Position | None = None
        self._problem: str | None = None
        self._is_down = False
        self._complained_at = 0.0
        self._next_sync = 0.0
        self._next_beat = 0.0
        self._ending = False
        self.shipper: Shipper | None = None

    @property
    def problem(self) -> str | None:
        """Why nothing can be delivered at the moment; None while all is well."""
        return self._problem

    @property
    def has_work(self) -> bool:
        """Whether something was written that is not known to be on the server."""
        return self._written is not None and (self._position is None or self._position < self._written)

    def start(self) -> None:
        """Start the thread, if it is not running: from then on the process shows that it lives."""
        with self._changed:
            if self._thread is None:
                # Named first: a signal handler that comes in between must not start a second one.
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as error:
                    # No thread to be had, as in the last moments of the interpreter: what waits is safe, and the next
                    # record tries again.
                    _logger.debug("%s cannot be started: %s", self._name, error)
                    self._thread, self._pending = None, False

    def wake(self, written: Position) -> None:
        """Say that there is something to ship, up to a position. Calls come one at a time and in order."""
        if self._written is None or written > self._written:
            # Otherwise a signal handler has recorded something since.
            self._written = written
        if not self._pending:
            self._pending = True
            self._bell.ring()
            if self._thread is None:
                self.start()

    def stop(self) -> None:
        """Let the thread end after what it is doing; what it has not shipped stays in the journal."""
        self._ending = True
        self._bell.ring()

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
        if self._make_shipper is None:
            return False
        deadline = time.monotonic() + timeout
        self._hurried += 1
        self._nudged = True
        self._bell.ring()
        try:
            with self._changed:
                while self._position is None or self._position < target:
                    remaining = deadline - time.monotonic()
                    if remaining <= 0 or (give_up_when_down and self._is_down) or not self._is_at_work:
                        return False
                    self._changed.wait(min(remaining, 1.0))
                return True
        finally:
            self._hurried -= 1

    @property
    def _is_at_work(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        failures = 0
        while not self._ending:
            if not self._pending:
                self._bell.wait(_SYNC_SECONDS)
            if not self._pending:
                self._keep_safe()
                continue
            self._gather()
            try:
                self._keep_safe()
                self._ship()
            except WaitingError as error:
                self._pause(error, 0)
            except UnavailableError as error:
                failures += 1
                self._pause(error, failures)
            except OSError as error:
                failures += 1
                self._pause(UnavailableError(f"the journal cannot be read or written: {error.strerror}"), failures)
            except Exception as error:  # a thread that died would deliver nothing and say nothing
                failures += 1
                _logger.debug("Delivery failed.", exc_info=True)
                self._pause(UnavailableError(f"an error of mantik's own: {error!r}"), failures)
            else:
                failures = 0

    def _gather(self) -> None:
        """Let records come together, unless somebody waits for them."""
        until = time.monotonic() + _GATHER_SECONDS
        while not self._hurried and not self._ending and (left := until - time.monotonic()) > 0:
            self._bell.wait(left)

    def _keep_safe(self) -> None:
        now = time.monotonic()
        if now < self._next_sync:
            return
        self._next_sync = now + _SYNC_SECONDS
        try:
            # Files first: a record that survives speaks of a file that does.
            self._safe()
            self._writer.sync()
            if now >= self._next_beat:
                self._next_beat = now + _BEAT_SECONDS
                self._beat()
        except OSError as error:
            # Nothing to be done about it here: what can be shipped is shipped all the same.
            _logger.debug("The journal cannot be forced to the disk: %s", error)

    def _ship(self) -> None:
        # Before looking: what comes later wakes again.
        self._pending = self._nudged = False
        if self._make_shipper is None:
            return
        if self.shipper is None:
            self.shipper = self._make_shipper()
        while self.shipper.ship():
            self._arrived(self.shipper.position)
            self._keep_safe()
        self._arrived(self.shipper.position)

    def _arrived(self, position: Position) -> None:
        self._delivered(position)
        with self._changed:
            self._position, self._problem, self._is_down = position, None, False
            self._changed.notify_all()

    def _pause(self, error: UnavailableError, failures: int) -> None:
        self._pending = True
        with self._changed:
            self._problem = str(error)
            # To wait for something else than the server is no reason to give up.
            self._is_down = not isinstance(error, WaitingError)
            self._changed.notify_all()
        if not self._is_down:
            # Nothing is wrong with the server: something else will be there in a moment.
            self._wait(time.monotonic() + _WAITING_SECONDS)
            return
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
        self._wait(now + pause * random.uniform(0.5, 1.5))  # noqa: S311  # nothing secret

    def _wait(self, until: float) -> None:
        while not self._ending and (left := until - time.monotonic()) > 0:
            self._keep_safe()
            self._bell.wait(min(_SYNC_SECONDS, left))
            if self._nudged:
                # Somebody waits for delivery: one attempt at once, then the pauses go on.
                return


class _Bell:
    """Wakes one waiting thread.

    It may be rung in a signal handler, whatever the handler interrupted: unlike an event of `threading`, it holds no
    lock while it is rung.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):
            # RuntimeError: it was rung already.
            self._lock.release()

    def wait(self, seconds: float) -> None:
        self._lock.acquire(timeout=seconds)
