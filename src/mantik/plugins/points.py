"""Points of metrics, checked as MLflow does and put into the form of their records, in a microsecond each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.utils.validation import _validate_metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mantik.delivery.records import MetricItem

__all__ = ["PointFormatter"]

_KNOWN_NAMES = 10_000
_LARGEST = 2**63 - 1
_HAS_LINKS = hasattr(Metric, "model_id")


class PointFormatter:
    """Checks points and formats them. Any thread may call."""

    def __init__(self) -> None:
        # Names of metrics that were found sound, as JSON.
        self._names: dict[str, str] = {}

    def formatted(self, metrics: Sequence[Metric]) -> tuple[list[MetricItem], list[str]]:
        """Return points as records hold them, and the same as JSON texts.

        Raises:
            MlflowException: One is none that a server can hold.
        """
        # The hot path: everything that is looked up or formatted once here is not for each point.
        items: list[MetricItem] = []
        texts: list[str] = []
        names = self._names
        timestamp = step = tail = None
        for metric in metrics:
            key, value = metric.key, metric.value
            # The points of one call mostly share their time and step, the very objects.
            if metric.timestamp is not timestamp or metric.step is not step:
                timestamp, step = metric.timestamp, metric.step
                sound = type(timestamp) is int and 0 <= timestamp <= _LARGEST
                sound = sound and type(step) is int and -_LARGEST <= step <= _LARGEST
                tail = f"{timestamp},{step}]" if sound else None
            name = names.get(key)
            if name is None or tail is None or type(value) is not float or value - value != 0.0 or _links(metric):
                item, text = self._item(metric)
                items.append(item)
                texts.append(text)
            else:
                items.append([key, value, timestamp, step])
                texts.append(f"[{name},{value!r},{tail}")
        return items, texts

    def _item(self, metric: Metric) -> tuple[MetricItem, str]:
        """Check a point as MLflow does, and return it as a record holds it, and the same as JSON."""
        item = self._sound(metric.key, metric.value, metric.timestamp, metric.step)
        if _links(metric):
            item += [metric.model_id, metric.dataset_name, metric.dataset_digest]
        return item, json.dumps(item, separators=(",", ":"))

    def _sound(self, key: str, value: Any, timestamp: Any, step: Any) -> MetricItem:  # noqa: ANN401
        """Check a point as MLflow does, and return it with numbers as they are to MLflow.

        Raises:
            MlflowException: It is none that a server can hold.
        """
        _validate_metric(key, value, timestamp, step)
        # numpy's and other numbers.
        value, timestamp, step = float(value), int(timestamp), int(step)
        if max(abs(step), timestamp) > _LARGEST:
            # The server would drop it in silence, and with it whatever comes after it in the same request.
            raise MlflowException(
                f"Step {step} or time {timestamp} of the metric {key!r} is no 64-bit number.",
                error_code=INVALID_PARAMETER_VALUE,
            )
        # Names are few; where they are not, memory stays bounded.
        if len(self._names) < _KNOWN_NAMES:
            self._names[key] = json.dumps(key)
        return [key, value, timestamp, step]


def _links(metric: Metric) -> bool:
    """Tell whether a point is about a model or a dataset; in MLflow 2 none is."""
    return _HAS_LINKS and (metric.model_id is not None or metric.dataset_name is not None)
