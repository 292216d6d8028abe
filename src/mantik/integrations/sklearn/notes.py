"""What is noted of one fit after it has ended, and is written down in the background."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mantik.integrations.sklearn.afterwards import Job
from mantik.integrations.sklearn.identities import Identities
from mantik.integrations.sklearn.metric_calls import MetricCalls, text_of_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mantik.integrations.sklearn.record import Record

__all__ = ["Notes"]

_INFO = "metric_info.json"
"""MLflow's file that says how each metric has come about."""


class Notes:
    """Results of metric functions, on their way to the record. Any thread may call.

    Args:
        record: Where the fit is recorded.
        later: Takes what is to be done in the background.
    """

    def __init__(self, record: Record, later: Callable[[Job], None]) -> None:
        self.record = record
        self._later = later
        self._calls = MetricCalls()
        self._metrics: dict[str, float] = {}
        self._files: dict[str, Any] = {}
        self._waits_in: int | None = None

    def metric(self, function: str, value: float, dataset: str, text: str) -> None:
        """Note a number.

        Args:
            function: What has returned it.
            value: The number.
            dataset: What the data are called that it is about.
            text: The call.
        """
        with Identities.lock:
            name = self._calls.name(function, dataset)
            if name is None:
                return
            self._calls.tell(name, text)
            is_first = self._is_first()
            self._metrics[name] = float(value)
        if is_first:
            self._write_later()

    def file(self, function: str, content: tuple[str, Any], dataset: str) -> None:
        """Note a result that is no number.

        Args:
            function: What has returned it.
            content: As `kept` returns it.
            dataset: What the data are called that it is about.
        """
        ending, value = content
        with Identities.lock:
            name = self._calls.name(function, dataset, is_metric=False)
            if name is None:
                return
            is_first = self._is_first()
            self._files[name + ending] = value
        if is_first:
            self._write_later()

    def evaluated(self, metrics: Mapping[str, float], dataset: str) -> None:
        """Write metrics that nobody has asked for, without those that the user has."""
        named = {f"{name}_{dataset}": value for name, value in metrics.items()}
        with Identities.lock:
            new = {name: value for name, value in named.items() if not self._calls.has(name)}
        self.record.metrics(new)

    def _is_first(self) -> bool:
        """Tell whether nothing waits to be written in this process, with which what is noted next would be."""
        before, self._waits_in = self._waits_in, os.getpid()
        if before not in {None, self._waits_in}:
            # What the parent of a forked process has noted is written by itself.
            self._metrics, self._files = {}, {}
        return before != self._waits_in

    def _write_later(self) -> None:
        self._later(
            Job(
                self.record.run_id,
                [("Metrics are not recorded", self._write_metrics), ("Results are not recorded", self._write_files)],
            )
        )

    def _write_metrics(self) -> None:
        with Identities.lock:
            self._waits_in = None
            metrics, self._metrics = self._metrics, {}
            info = self._calls.as_json()
        if metrics:
            self.record.metrics(metrics)
            self.record.text(info, _INFO)

    def _write_files(self) -> None:
        with Identities.lock:
            files, self._files = self._files, {}
        for name, content in files.items():
            self.record.text(text_of_kept(content), name)
