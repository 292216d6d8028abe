"""How much of the disk the spool may take, and what was lost because there was no more."""

from __future__ import annotations

import errno
import logging
import threading
import time
from typing import TYPE_CHECKING

from mantik.delivery.disk import size_of
from mantik.delivery.ledger import Counts
from mantik.delivery.spool import outgoing_in

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.delivery.records import Record

__all__ = ["Budget", "Losses", "usage_of"]

_logger = logging.getLogger(__name__)

_COMPLAINT_SECONDS = 60.0
_MEASURE_SECONDS = 10.0


class Budget:
    """The disk budget of a spool. Any thread may call.

    All processes of a spool share it. Each measures the whole of it every ten seconds and counts what it adds itself in
    between, so many processes together may exceed it by what they write in that time.

    Args:
        spool: The folder.
        limit: Bytes; None is no limit.
    """

    def __init__(self, spool: Path, limit: int | None) -> None:
        self._spool = spool
        self._limit = limit
        # Re-entrant: a signal handler that ends a run may interrupt a call that holds it.
        self._lock = threading.RLock()
        self._used = 0
        self._measured_at = float("-inf")

    def take(self, size: int) -> None:
        """Ask for room.

        Raises:
            OSError: There is none; as when the disk is full, with ``ENOSPC``.
        """
        if self._limit is None:
            return
        with self._lock:
            now = time.monotonic()
            if now - self._measured_at >= _MEASURE_SECONDS:
                self._measured_at, self._used = now, usage_of(self._spool)
            if self._used + size > self._limit:
                raise OSError(errno.ENOSPC, f"MANTIK_SPOOL_LIMIT of {self._limit:,} bytes is reached")
            self._used += size

    def give(self, size: int) -> None:
        """Give room back that was taken."""
        with self._lock:
            self._used = max(0, self._used - size)


class Losses:
    """What could not be put on disk. Any thread may call.

    Args:
        path: Where it should have been put, for the message.
    """

    def __init__(self, path: Path) -> None:
        self.counts = Counts()
        self._path = path
        # Re-entrant: a signal handler that ends a run may interrupt a call that holds it.
        self._lock = threading.RLock()
        self._complained_at = float("-inf")

    def note(self, record: Record, error: Exception) -> None:
        """Count a record that is lost, and say so at most once a minute."""
        with self._lock:
            self.counts.count(record)
            now = time.monotonic()
            if now - self._complained_at < _COMPLAINT_SECONDS:
                return
            self._complained_at = now
        _logger.warning(
            "A record cannot be written to %s (%s). Training goes on; lost so far: %s.",
            self._path,
            getattr(error, "strerror", None) or error,
            self.counts,
        )


def usage_of(spool: Path) -> int:
    """Return the bytes that mantik takes in a spool; what else lies there is not looked at."""
    return size_of(spool / "ids") + sum(size_of(outgoing.path) for outgoing in outgoing_in(spool))
