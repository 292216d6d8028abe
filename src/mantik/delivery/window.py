"""Turns a stretch of a journal into as few requests as the server takes, without changing what they mean.

Within a run the order stays: what a later record says wins over an earlier one, and a run's end is sent after what was
recorded before it. Between runs there is no order to keep. Everything but metrics, params and tags is a request of its
own; that it comes before points that were recorded earlier does no harm, and points find the model that they are of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from mantik.delivery.records import Batch, RunUpdate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mantik.delivery.records import Artifact, Call, Create, MetricItem, Record, Removal, Spans, TextItem

__all__ = ["Request", "requests_for"]

MAX_METRICS = 1000
"""Metrics of one request (MLflow, `utils/validation.py`)."""

MAX_TEXTS = 100
"""Params or tags of one request, and metrics that need care."""

Request: TypeAlias = "Batch | RunUpdate | Create | Call | Spans | Artifact | Removal"


@dataclass(slots=True)
class _RunPart:
    """What several records say about one run, up to its next update."""

    metrics: list[MetricItem] = field(default_factory=list)
    params: list[TextItem] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def take(self, batch: Batch) -> None:
        self.metrics += batch.metrics
        self.params += batch.params
        for key, value in batch.tags:
            # Last one wins, and takes its place at the end.
            self.tags.pop(key, None)
            self.tags[key] = value

    def requests(self, run_id: str) -> Iterator[Batch]:
        """Yield the requests: params, tags and metrics apart, so that a bad one of a kind harms no other."""
        for params in _unique_chunks(self.params):
            yield Batch(run_id, [], params, [])
        tags = [[key, value] for key, value in self.tags.items()]
        for start in range(0, len(tags), MAX_TEXTS):
            yield Batch(run_id, [], [], tags[start : start + MAX_TEXTS])
        plain = [item for item in self.metrics if not _needs_care(item)]
        careful = [item for item in self.metrics if _needs_care(item)]
        for start in range(0, len(plain), MAX_METRICS):
            yield Batch(run_id, plain[start : start + MAX_METRICS], [], [])
        for start in range(0, len(careful), MAX_TEXTS):
            yield Batch(run_id, careful[start : start + MAX_TEXTS], [], [])


def requests_for(records: Iterable[Record]) -> list[Request]:
    """Return the requests that say what the records say."""
    requests: list[Request] = []
    parts: dict[str, _RunPart] = {}
    for record in records:
        if isinstance(record, Batch):
            parts.setdefault(record.run_id, _RunPart()).take(record)
            continue
        if isinstance(record, RunUpdate):
            part = parts.pop(record.run_id, None)
            if part is not None:
                requests += part.requests(record.run_id)
        requests.append(record)
    for run_id, part in parts.items():
        requests += part.requests(run_id)
    return requests


def _needs_care(item: MetricItem) -> bool:
    """Tell whether a metric goes into small requests of its kind.

    A server up to 3.14 refuses a request with NaN or infinity when it has it already; and it takes model metrics twice
    only in requests of at most 100.
    """
    return len(item) > 4 or not math.isfinite(item[1])  # noqa: PLR2004  # the short form ends with the step


def _unique_chunks(params: list[TextItem]) -> Iterator[list[TextItem]]:
    """Yield params in requests of at most 100 without a key twice, which the server refuses as a whole.

    The same value again says nothing new. Another value is for the server to judge, in a request of its own after the
    first one.
    """
    chunk: dict[str, str] = {}
    seen: dict[str, str] = {}
    for key, value in params:
        if seen.get(key) == value:
            continue
        if key in chunk or len(chunk) == MAX_TEXTS:
            yield [[known, text] for known, text in chunk.items()]
            chunk = {}
        chunk[key] = value
        seen.setdefault(key, value)
    if chunk:
        yield [[known, text] for known, text in chunk.items()]
