"""What a `MantikCallback` knows of its run: which one it is, whether it is open, and how it ends."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import mlflow

from mantik.integrations.keras.activity import Activity
from mantik.integrations.keras.axis import Axis, Mark
from mantik.integrations.keras.backups import mark_backups, origin_of
from mantik.integrations.keras.call import Call
from mantik.training.announcement import announce
from mantik.training.documents import Documents
from mantik.training.run import TrackedRun
from mantik.training.status import status_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mantik.integrations.keras.activity import Kind
    from mantik.integrations.keras.batches import Batches
    from mantik.training.request import RunRequest
    from mantik.training.writer import RunWriter

__all__ = ["Session"]

_logger = logging.getLogger(__name__)

_marks: dict[tuple[str, str], Mark] = {}
"""How far the runs of this process are, by run and prefix: another callback may go on with one."""


class Session:
    """The run of one callback in this process. Metrics may be written from any thread, all else from one.

    Args:
        request: Which run is wanted.
        prefix: What is put before the names of metrics.
        initial_global_step: The step of the first batch; None: found out.
    """

    def __init__(self, request: RunRequest, prefix: str, initial_global_step: int | None) -> None:
        self.run = TrackedRun(request)
        self.documents = Documents(self.run)
        self.axis = Axis(initial_global_step)
        self._prefix = prefix
        self._activity: Activity | None = None
        self._batches: Batches | None = None
        self._fault: str | None = None
        self._is_held = False
        # Re-entrant: a signal handler that records what waits may interrupt a call that holds it.
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Keep what a copy needs to go on with the run, if there is one, in a call of its own."""
        of_the_call = {"_activity": None, "_batches": None, "_fault": None, "_is_held": False, "_lock": None}
        return {**self.__dict__, **of_the_call}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin with no call under way."""
        self.__dict__.update(state)
        self._lock = threading.RLock()

    @property
    def activity(self) -> Activity | None:
        """The call that is under way."""
        return self._activity

    @property
    def writer(self) -> RunWriter:
        """What writes to the run, which is begun for it where it is not known yet."""
        if self.run.run_id is None:
            self.open(Call())
        return self.run.writer

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record points. Any thread may call."""
        writer = self.writer
        with self._lock:
            writer.log_metrics(metrics, step)

    def log_history(self, moments: Iterable[tuple[Mapping[str, float], int, int]]) -> None:
        """Record points of several moments: metrics, step, and time in milliseconds. Any thread may call."""
        writer = self.writer
        with self._lock:
            writer.log_history(moments)

    def add_batch(self, batch: int, metrics: Mapping[str, Any]) -> None:
        """Take in the metrics of a batch of the ``fit`` that is under way. Any thread may call: Keras has its own."""
        if self._batches is not None:
            self._batches.add(batch, metrics)

    def record_batches(self) -> None:
        """Record the metrics of batches that are gathered, before anything else changes."""
        if self._batches is not None:
            self._batches.record()

    def open(self, call: Call) -> None:
        """Open the run, or open it again.

        Args:
            call: The call that it is for.
        """
        if self.run.is_open:
            return
        is_known = self.run.run_id is not None
        active = mlflow.active_run()
        source, whence = (None, "") if is_known else origin_of(call)
        self.run.open(source, whence)
        if not is_known:
            announce(self.run)
            self._find_out_how_far(active)

    def begin(self, kind: Kind, call: Call, batches: Batches | None = None) -> bool:
        """Begin a call; tell whether it is one of its own and not a part of another.

        Args:
            kind: Which call.
            call: What is known of it.
            batches: Gathers the metrics of its batches, until it ends.
        """
        before = self._activity
        if before is not None:
            if before.is_under_way and (kind != "fit" or before.kind != "fit"):
                return False
            before.lose()
        if kind == "fit":
            self._fault = None
            self._compare(call)
        self.open(call)
        identity = self.run.identity
        if identity is not None:
            mark_backups(call, identity)
        self._batches = batches
        if batches is not None:
            batches.begin()
        self._activity = Activity(kind, call, self._lose, None if batches is None else batches.record_at_once)
        return True

    def end(self) -> None:
        """End the call that is under way, and the run unless more is to come."""
        if self._activity is not None:
            self._activity.end()
            self._activity = None
        self._end_batches()
        self._keep_mark()
        if not self._is_held:
            self.run.end(self._fault or "FINISHED")

    def hold(self) -> None:
        """Keep the run open from now on, over all calls, until `release`."""
        self.open(Call())
        self._is_held = True

    def release(self, error: BaseException | None) -> None:
        """End the run that was held.

        Args:
            error: What ended the block in which it was held.
        """
        self._is_held = False
        activity, self._activity = self._activity, None
        if activity is not None:
            if error is None and not activity.is_under_way:
                # Somebody keeps the error that ended it.
                self._fault = "FAILED"
            activity.end()
        self._end_batches()
        self._keep_mark()
        status = status_of(error)
        self.run.end(self._fault or status if status == "FINISHED" else status)

    def _compare(self, call: Call) -> None:
        """Say that a training goes on from another run's backup, where the run was begun before that could be seen."""
        if self.run.run_id is None:
            return
        source, whence = origin_of(call)
        if source is not None and source.run_id != self.run.run_id:
            _logger.warning(
                "The training goes on from %s, which is of the run %s, but the run was begun before the fit and is %s. "
                "Give run_id=%r to go on with it.",
                whence,
                source.run_id,
                self.run.run_id,
                source.run_id,
            )

    def _lose(self, status: str) -> None:
        """Take note of a call that will never end."""
        self._activity = None
        self._fault = status
        self._end_batches()
        self._keep_mark()
        if not self._is_held:
            self.run.end(status)

    def _end_batches(self) -> None:
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.end()

    def _find_out_how_far(self, active: mlflow.ActiveRun | None) -> None:
        run_id = str(self.run.run_id)
        mark = _marks.get((run_id, self._prefix))
        begun_before = self.run.attempt > 1 or (active is not None and bool(active.data.metrics))
        if mark is None and begun_before:
            run = self.run.client.get_run(run_id)
            front = f"{self._prefix}-" if self._prefix else ""
            mark = Mark.of(run, f"{front}epoch_time", f"{front}batch/")
        if mark is not None:
            self.axis.go_on_from(mark)

    def _keep_mark(self) -> None:
        if self.run.run_id is not None:
            _marks[self.run.run_id, self._prefix] = self.axis.mark
