"""Work that takes its time, done beside the loop that must not wait: at most one thing at a time for each job."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_logger = logging.getLogger(__name__)


class Errands:
    """Threads that do what they are handed, in its order. They end with their process, in the middle of whatever.

    Args:
        name: What the threads are called.
        threads: How many there are.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._queue: queue.SimpleQueue[tuple[str, Callable[[], None]]] = queue.SimpleQueue()
        self._busy: set[str] = set()
        for number in range(threads):
            threading.Thread(target=self._work, name=f"mantik-{name}-{number}", daemon=True).start()

    def is_busy(self, job_id: str) -> bool:
        """Tell whether something for a job is waiting or being done."""
        return job_id in self._busy

    def do(self, job_id: str, errand: Callable[[], None]) -> None:
        """Hand over something to be done for a job, for which nothing else is."""
        self._busy.add(job_id)
        self._queue.put((job_id, errand))

    def _work(self) -> None:
        while True:
            job_id, errand = self._queue.get()
            try:
                errand()
            except Exception:  # the one guard of a thread: one job's trouble is not the next one's
                _logger.exception("Job %s is in trouble; it is tried again.", job_id)
            finally:
                self._busy.discard(job_id)
