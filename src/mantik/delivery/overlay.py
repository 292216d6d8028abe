"""What was recorded but may not have arrived yet: lets a training read its own writes.

Memory is bounded by what is open, not by what waits: of a metric the latest point is kept, of a param and a tag the
value; older points of a metric are read from the journal when somebody asks for them. A run's entry goes away once
everything that was recorded for it has been delivered.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mantik.delivery.journal import Position
    from mantik.delivery.records import MetricItem, RunUpdate, TextItem

__all__ = ["Overlay", "RunWrites"]


@dataclass(slots=True)
class RunWrites:
    """What was recorded for one run and waits.

    Attributes:
        metrics: The latest point of each metric: of those with the highest step, the one with the highest time.
        params: The first value of each param: that is the one which the server keeps.
        tags: The last value of each tag.
        status: The last status, if one was recorded.
        end_time: The last end time in milliseconds since 1970, if one was recorded.
        run_name: The last name, if one was recorded.
    """

    metrics: dict[str, MetricItem] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    status: str | None = None
    end_time: int | None = None
    run_name: str | None = None


class Overlay:
    """The writes that wait, by run. Any thread may call."""

    def __init__(self) -> None:
        # Re-entrant: a signal handler that ends a run may interrupt a call that holds it.
        self._lock = threading.RLock()
        self._runs: dict[str, RunWrites] = {}
        self._last: dict[str, Position] = {}

    def add_batch(
        self,
        position: Position,
        run_id: str,
        metrics: Sequence[MetricItem],
        params: Sequence[TextItem],
        tags: Sequence[TextItem],
    ) -> None:
        """Take in what one call recorded; `position` is the end of its record."""
        with self._lock:
            writes = self._writes(run_id, position)
            latest = writes.metrics
            for item in metrics:
                known = latest.get(item[0])
                if known is None or (item[3], item[2]) >= (known[3], known[2]):
                    latest[item[0]] = item
            for key, value in params:
                writes.params.setdefault(key, value)
            for key, value in tags:
                writes.tags[key] = value

    def add_update(self, position: Position, update: RunUpdate) -> None:
        """Take in a change of a run; `position` is the end of its record."""
        with self._lock:
            writes = self._writes(update.run_id, position)
            writes.status = update.status or writes.status
            writes.end_time = writes.end_time if update.end_time is None else update.end_time
            writes.run_name = update.run_name or writes.run_name

    def writes(self, run_id: str) -> RunWrites | None:
        """Return a copy of what waits for a run, or None where nothing does."""
        with self._lock:
            known = self._runs.get(run_id)
            if known is None:
                return None
            return RunWrites(
                dict(known.metrics),
                dict(known.params),
                dict(known.tags),
                known.status,
                known.end_time,
                known.run_name,
            )

    def forget(self, delivered: Position) -> None:
        """Drop the runs of which everything has been delivered up to a position."""
        with self._lock:
            for run_id in [run_id for run_id, last in self._last.items() if last <= delivered]:
                del self._last[run_id], self._runs[run_id]

    def _writes(self, run_id: str, position: Position) -> RunWrites:
        self._last[run_id] = position
        writes = self._runs.get(run_id)
        if writes is None:
            writes = self._runs[run_id] = RunWrites()
        return writes
