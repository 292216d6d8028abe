"""The metrics of batches on their way to the run: gathered for a moment, and recorded together."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Batch", "Batches"]

_SECONDS = 0.25
"""How long batches are gathered. To record one takes some 200 microseconds in the middle of a training, which has
driven all that it needs out of the processor's caches; to record fifty together takes hardly longer."""

_SIGNAL_SECONDS = 1.0

Batch: TypeAlias = "tuple[int, int, Mapping[str, Any]]"
"""A batch's number in its epoch, the time at its end in milliseconds since 1970, and its metrics."""


class Batches:
    """Gathers the metrics of the batches of one ``fit``, and records them four times a second. Any thread may call.

    Promises: what was added is recorded a quarter of a second later, whatever the training does meanwhile; `record` and
    `end` return when what was added before is recorded. What is recorded together is in the order of the batches, also
    where it was added in another one. What was not recorded is lost if the process is killed outright.

    Args:
        write: Records batches. Must not raise where they are gathered.
        gathers: Otherwise each is recorded when it is added, and what fails is raised there.
    """

    def __init__(self, write: Callable[[list[Batch]], None], *, gathers: bool) -> None:
        self._write = write
        self._gathers = gathers
        self._waiting: deque[Batch] = deque()
        # Re-entrant: a signal handler may interrupt `record`.
        self._lock = threading.RLock()
        self._is_over = threading.Event()

    def begin(self) -> None:
        """Begin to record what comes."""
        if self._gathers:
            threading.Thread(target=self._run, name="mantik-batches", daemon=True).start()

    def add(self, batch: int, metrics: Mapping[str, Any]) -> None:
        """Take a batch in.

        Args:
            batch: Its number in its epoch.
            metrics: Its metrics; they may be changed afterwards.
        """
        self._waiting.append((batch, int(time.time() * 1000), dict(metrics)))
        if not self._gathers:
            self.record()

    def record(self) -> None:
        """Record what waits."""
        with self._lock:
            self._record()

    def record_at_once(self) -> None:
        """Record what waits, in a signal handler: it may have interrupted who holds what the recording thread needs."""
        if self._lock.acquire(timeout=_SIGNAL_SECONDS):
            try:
                self._record()
            finally:
                self._lock.release()

    def end(self) -> None:
        """Record what waits, and end."""
        self._is_over.set()
        self.record()

    def _run(self) -> None:
        while not self._is_over.wait(_SECONDS):
            self.record()

    def _record(self) -> None:
        batches: list[Batch] = []
        try:
            while True:
                # One by one: threads add meanwhile, and a signal handler may take the rest.
                batches.append(self._waiting.popleft())
        except IndexError:
            pass
        if batches:
            # Keras has threads of its own call for them, of which a later one may be quicker.
            times = sorted(timestamp for _, timestamp, _ in batches)
            batches.sort(key=lambda batch: batch[0])
            self._write([(batch, timestamp, logs) for (batch, _, logs), timestamp in zip(batches, times, strict=True)])
