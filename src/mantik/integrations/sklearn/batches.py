"""Estimators that are fitted batch by batch: one run for all calls of `partial_fit`, with a point of each."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mantik.delivery.ending import begin_end
from mantik.integrations.sklearn.data import data_of_call
from mantik.integrations.sklearn.fits import Fit, describe
from mantik.training.boundary import extra

if TYPE_CHECKING:
    from collections.abc import Callable

    from sklearn.base import BaseEstimator

    from mantik.integrations.sklearn.afterwards import Job
    from mantik.integrations.sklearn.data import Data
    from mantik.integrations.sklearn.options import Options
    from mantik.integrations.sklearn.runs import Place, Runs

__all__ = ["Batch", "Batches"]

_MOST_OPEN = 16
"""Estimators that are held for their next batch. When one more comes, the oldest one's fit is taken for ended."""

_MOST_ROWS = 1000
"""Of a batch that are scored, which the user waits for."""


@dataclass(slots=True)
class Batch:
    """A call of `partial_fit`.

    Attributes:
        place: Where it is recorded.
        data: A copy of some of its samples.
        rows: How many it has.
        is_first: Whether it is the first one of its run.
    """

    place: Place
    data: Data | None
    rows: int
    is_first: bool


@dataclass(slots=True)
class _Growing:
    """An estimator between two calls."""

    fit: Fit
    place: Place
    calls: int = 0
    rows: int = 0
    last: Data | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    pid: int = field(default_factory=os.getpid)


class Batches:
    """Knows the estimators that are fitted batch by batch. Any thread may call.

    Args:
        runs: Finds runs.
        do: Has a job done.
    """

    def __init__(self, runs: Runs, do: Callable[[Job], None]) -> None:
        self._runs = runs
        self._do = do
        self._growing: dict[int, _Growing] = {}

    def begin(
        self,
        estimator: BaseEstimator,
        options: Options,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> Batch | None:
        """Find the run of an estimator, or begin it; None where there is to be none."""
        growing = self._growing.get(id(estimator))
        if growing is None:
            place = self._runs.lasting(type(estimator).__name__, options)
            if place is None:
                return None
            growing = _Growing(Fit(estimator, place.record, options, None), place)
            growing.fit.begin()
            while len(self._growing) >= _MOST_OPEN:
                self._end(next(iter(self._growing)))
            self._growing[id(estimator)] = growing
        data = data_of_call(call, arguments, keywords)
        some = None
        if data is not None:
            with extra("The batch is not scored", strict=False):
                some = data.first(_MOST_ROWS).kept_as_is()
        rows = 0 if data is None or data.rows is None else data.rows
        return Batch(growing.place, some, rows, is_first=growing.calls == 0)

    def note(self, estimator: BaseEstimator, batch: Batch) -> None:
        """Record what came of a call."""
        growing = self._growing[id(estimator)]
        with growing.lock:
            growing.calls += 1
            growing.rows += batch.rows
            growing.last = batch.data
            step = growing.calls
            metrics = {"samples_seen": float(growing.rows)}
        loss = getattr(estimator, "loss_", None)
        if isinstance(loss, float):
            metrics["training_loss"] = loss
        if batch.data is not None and hasattr(estimator, "score"):
            with extra("The batch is not scored", strict=False):
                targets = () if batch.data.targets is None else (batch.data.targets,)
                metrics["training_score"] = float(estimator.score(batch.data.features, *targets))
        growing.place.record.metrics(metrics, step)

    def fail(self, estimator: BaseEstimator, error: BaseException) -> None:
        """Record what ended a call, and the run with it, if it is the estimator's own."""
        growing = self._growing.pop(id(estimator))
        growing.place.record.tags({"mantik.error": describe(error)})
        growing.place.end("FAILED" if isinstance(error, Exception) else "KILLED")

    def finish(self, estimator: BaseEstimator) -> None:
        """Take the fit of an estimator for ended, where there is one: it is to be fitted anew."""
        if id(estimator) in self._growing:
            self._end(id(estimator))

    def run_ended(self, run_id: str | None) -> None:
        """Take the fits in a run for ended; with None all of them, as the process is at its end."""
        if run_id is None:
            begin_end()
        for key, growing in list(self._growing.items()):
            if run_id in {None, growing.place.record.run_id}:
                self._end(key)

    def _end(self, key: int) -> None:
        growing = self._growing.pop(key, None)
        if growing is None or growing.pid != os.getpid():
            # The one of a process that was forked is its parent's to end.
            return
        with extra("The end of a fit in batches is not recorded", strict=False):
            growing.fit.data, growing.fit.step = growing.last, growing.calls
            self._do(growing.fit.job())
            growing.place.end("FINISHED")
