"""What was recorded but may not have arrived yet: lets a training read its own writes.

Memory is bounded by what is open, not by what waits: of a metric the latest point is kept, of a param and a tag the
value; older points of a metric are read from the journal when somebody asks for them. An entry goes away once
everything that was recorded for it has been delivered. Where nothing can be delivered, runs that have ended go away
when there are many; they can be read from the journal again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mantik.delivery.records import Batch, Call, RunUpdate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mantik.delivery.journal import Position
    from mantik.delivery.records import MetricItem, Record, TextItem

__all__ = ["LaneName", "Overlay", "Writes", "writes_in"]

LaneName: TypeAlias = Literal["points", "uploads"]

_MANY = 1000

_READ_CALLS = frozenset({"inputs", "outputs", "finalize", "model-params", "model-tags"})
"""Requests of which somebody reads what they say. All others, of traces above all, would only fill the memory."""


@dataclass(slots=True)
class Writes:
    """What was recorded for one run or model and waits.

    Attributes:
        metrics: The latest point of each metric: of those with the highest step, the one with the highest time.
        params: The first value of each param: that is the one which the server keeps.
        tags: The last value of each tag.
        status: The last status, if one was recorded: of a run its name, of a model MLflow's name of it.
        end_time: The last end time in milliseconds since 1970, if one was recorded.
        run_name: The last name, if one was recorded.
        inputs: Bodies of the requests that log inputs of a run.
        outputs: Bodies of the requests that log outputs of a run.
    """

    metrics: dict[str, MetricItem] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    status: str | None = None
    end_time: int | None = None
    run_name: str | None = None
    inputs: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)

    def add_batch(
        self, metrics: Sequence[MetricItem], params: Sequence[TextItem] = (), tags: Sequence[TextItem] = ()
    ) -> None:
        """Take in metrics, params and tags."""
        latest = self.metrics
        for item in metrics:
            known = latest.get(item[0])
            if known is None or item[3] > known[3] or (item[3] == known[3] and item[2] >= known[2]):
                latest[item[0]] = item
        for key, value in params:
            self.params.setdefault(key, value)
        for key, value in tags:
            self.tags[key] = value

    def add_update(self, update: RunUpdate) -> None:
        """Take in a change of a run."""
        self.status = update.status or self.status
        self.end_time = self.end_time if update.end_time is None else update.end_time
        self.run_name = update.run_name or self.run_name

    def add_call(self, call: Call) -> None:
        """Take in a request, as far as anybody reads what it says."""
        if call.name == "inputs":
            self.inputs.append(call.body)
        elif call.name == "outputs":
            self.outputs.append(call.body)
        elif call.name == "finalize":
            self.status = call.body.get("status")
        elif call.name in {"model-params", "model-tags"}:
            items = call.body.get("params") or call.body.get("tags") or []
            pairs = [[item["key"], item.get("value", "")] for item in items]
            self.add_batch((), pairs if call.name == "model-params" else (), pairs if call.name == "model-tags" else ())

    def copy(self) -> Writes:
        """Return a copy that nobody else changes."""
        return Writes(
            dict(self.metrics),
            dict(self.params),
            dict(self.tags),
            self.status,
            self.end_time,
            self.run_name,
            list(self.inputs),
            list(self.outputs),
        )


class Overlay:
    """The writes that wait, by run and by model. Any thread may call."""

    def __init__(self) -> None:
        # Re-entrant: a signal handler that ends a run may interrupt a call that holds it.
        self._lock = threading.RLock()
        self._entries: dict[str, Writes] = {}
        self._last: dict[LaneName, dict[str, Position]] = {"points": {}, "uploads": {}}

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
            self._last["points"][run_id] = position
            writes = self._entries.get(run_id)
            if writes is None:
                writes = self._writes(run_id)
            writes.add_batch(metrics, params, tags)
            for item in metrics:
                if len(item) > 4 and item[4] is not None:  # noqa: PLR2004  # a model's point
                    self._last["points"][item[4]] = position
                    self._writes(item[4]).add_batch([item])

    def add(self, lane: LaneName, position: Position, record: RunUpdate | Call) -> None:
        """Take in a change or a request; `position` is the end of its record in a lane."""
        with self._lock:
            if isinstance(record, RunUpdate):
                self._last[lane][record.run_id] = position
                self._writes(record.run_id).add_update(record)
            elif record.name in _READ_CALLS:
                self._last[lane][record.about] = position
                self._writes(record.about).add_call(record)

    def writes(self, entity: str) -> Writes | None:
        """Return a copy of what waits for a run or model, or None where nothing does."""
        with self._lock:
            known = self._entries.get(entity)
            return known.copy() if known is not None else None

    def restore(self, entity: str, writes: Writes) -> None:
        """Put back what was read from a journal, unless something is here meanwhile."""
        with self._lock:
            self._entries.setdefault(entity, writes)

    def forget(self, lane: LaneName, delivered: Position) -> None:
        """Drop the entries of which everything has been delivered, in this lane up to a position."""
        with self._lock:
            last = self._last[lane]
            other = self._last["uploads" if lane == "points" else "points"]
            for entity in [entity for entity, position in last.items() if position <= delivered]:
                del last[entity]
                if entity not in other:
                    self._entries.pop(entity, None)

    def _writes(self, entity: str) -> Writes:
        writes = self._entries.get(entity)
        if writes is None:
            if len(self._entries) >= _MANY:
                self._drop_ended()
            writes = self._entries[entity] = Writes()
        return writes

    def _drop_ended(self) -> None:
        ended = [entity for entity, writes in self._entries.items() if writes.status not in {None, "RUNNING"}]
        for entity in ended[: _MANY // 2]:
            del self._entries[entity]


def writes_in(records: Iterable[Record], entity: str) -> Writes | None:
    """Gather from records what was written for a run or model; None if they say nothing about it."""
    writes = Writes()
    found = False
    for record in records:
        if isinstance(record, Batch):
            own = record.run_id == entity
            points = record.metrics if own else [item for item in record.metrics if item[4:5] == [entity]]
            if own or points:
                found = True
                writes.add_batch(points, record.params if own else (), record.tags if own else ())
        elif isinstance(record, RunUpdate) and record.run_id == entity:
            found = True
            writes.add_update(record)
        elif isinstance(record, Call) and record.about == entity:
            found = True
            writes.add_call(record)
    return writes if found else None
