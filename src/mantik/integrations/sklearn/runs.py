"""The runs that calls are recorded in: MLflow's active one, or one of their own."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import mlflow
from mlflow.utils.mlflow_tags import MLFLOW_AUTOLOGGING

from mantik.integrations.sklearn.record import Record
from mantik.training.names import mapped
from mantik.training.writer import RunWriter

if TYPE_CHECKING:
    from mlflow.entities import Run

    from mantik.integrations.sklearn.options import Options

__all__ = ["RUNS", "Place", "Runs", "mlflow_begun_by"]

_MOST_KNOWN = 1000
"""Runs whose names are remembered; of older ones the platform is asked."""


@dataclass(slots=True)
class _Book:
    """What is known of a run."""

    writer: RunWriter
    taken: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call is recorded.

    Attributes:
        record: What writes.
        is_own: Whether the run was begun for this call, and ends with it.
    """

    record: Record
    is_own: bool

    def end(self, status: str) -> None:
        """End the run, if it is the call's own."""
        if not self.is_own:
            return
        active = mlflow.active_run()
        if active is not None and active.info.run_id == self.record.run_id:
            mlflow.end_run(status)
        else:
            self.record.client.set_terminated(self.record.run_id, status)


class Runs:
    """Finds a place for calls. Any thread may call. What is known of runs is the same for all of the process."""

    _books: ClassVar[dict[str, _Book]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def place(self, name: str, options: Options, *, apart: bool = False) -> Place | None:
        """Join MLflow's active run or begin one; None where the options say that the active one is not to be joined.

        Args:
            name: Of the call: that of the estimator's class, or of the function.
            options: What the user asked for.
            apart: Whether the call never takes the plain names of a run that it joins.
        """
        active = mlflow.active_run()
        if active is not None:
            if options.exclusive and MLFLOW_AUTOLOGGING not in active.data.tags:
                return None
            return Place(self._record(active, name, is_current=False, apart=apart), is_own=False)
        run = mlflow.start_run(tags=_tags(options))
        return Place(self._record(run, name, is_current=True), is_own=True)

    def asked(self, name: str | None) -> Place:
        """Join MLflow's active run or begin one for what the user asked to have recorded, without autologging.

        Args:
            name: As of `place`; None of what has names of its own, and takes none from others.
        """
        active = mlflow.active_run()
        run = mlflow.start_run() if active is None else active
        is_own = active is None
        if name is not None:
            return Place(self._record(run, name, is_current=is_own), is_own)
        client = mlflow.MlflowClient()
        book = self._book(client, run, is_current=is_own)
        return Place(Record(run.info.run_id, run.info.experiment_id, "", client, book.writer, book.lock), is_own)

    def lasting(self, name: str, options: Options) -> Place | None:
        """As `place`, for a fit of several calls: a run of its own is not MLflow's active one between them."""
        if mlflow.active_run() is not None:
            return self.place(name, options)
        from mlflow.tracking.context.registry import resolve_tags
        from mlflow.tracking.fluent import _get_experiment_id

        run = mlflow.MlflowClient().create_run(str(_get_experiment_id()), tags=resolve_tags(_tags(options)))
        return Place(self._record(run, name, is_current=True), is_own=True)

    def beside(self, record: Record, name: str) -> Record:
        """Return what writes to the same run, below other names."""
        with self._lock:
            book = self._books.setdefault(record.run_id, _Book(record.writer, lock=record.lock))
            prefix = _free(book.taken, record.prefix + name)
        return Record(record.run_id, record.experiment_id, prefix, record.client, book.writer, book.lock)

    def _record(self, run: Run, name: str, *, is_current: bool, apart: bool = False) -> Record:
        client = mlflow.MlflowClient()
        book = self._book(client, run, is_current=is_current)
        with self._lock:
            is_plain = not apart and "" not in book.taken
            if is_plain:
                book.taken.append("")
            prefix = "" if is_plain else _free(book.taken, name)
        return Record(run.info.run_id, run.info.experiment_id, prefix, client, book.writer, book.lock)

    def _book(self, client: mlflow.MlflowClient, run: Run, *, is_current: bool) -> _Book:
        run_id = run.info.run_id
        book = self._books.get(run_id)
        if book is None:
            # MLflow's active run is known as it was when it began.
            data = run.data if is_current else client.get_run(run_id).data
            book = _Book(RunWriter(client, run_id, known_params=dict(data.params)))
            if "estimator_name" in data.tags:
                # Of an earlier process.
                book.taken.append("")
        with self._lock:
            book = self._books.setdefault(run_id, book)
            while len(self._books) > _MOST_KNOWN:
                del self._books[next(iter(self._books))]
        return book


RUNS = Runs()
"""Those of this process, for autologging and plain functions alike."""


def mlflow_begun_by() -> str | None:
    """Return which of MLflow's own integrations is tracking the present call; None where none does."""
    try:
        from mlflow.utils.autologging_utils.safety import _AutologgingSessionManager
    except ImportError:
        return None
    session = _AutologgingSessionManager.active_session()
    return None if session is None else str(session.integration)


def _free(taken: list[str], name: str) -> str:
    """Take the first free prefix for a name."""
    name = mapped(name)
    count = 1
    while (prefix := f"{name}/" if count == 1 else f"{name}-{count}/") in taken:
        count += 1
    taken.append(prefix)
    return prefix


def _tags(options: Options) -> dict[str, str]:
    tags = {mapped(str(key)): str(value) for key, value in (options.extra_tags or {}).items()}
    return {MLFLOW_AUTOLOGGING: "sklearn", **tags}
