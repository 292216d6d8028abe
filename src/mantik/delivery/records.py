"""What a journal's records say: the writes of a training, as JSON of one line each.

A record is a list whose first item is its kind. Metrics, params and tags travel as lists too, because a training writes
them thousands of times and names would be half of their bytes:

* ``["batch", run_id, [[key, value, timestamp, step, model_id, dataset_name, dataset_digest], ...], [[key, value], ...],
  [[key, value], ...]]``: metrics, params and tags of one call; the last three items of a metric are left out where they
  are not set;
* ``["update", run_id, status, end_time, run_name]``: a run's status as MLflow names it, its end in milliseconds since
  1970 and its name; null is "leave as it is".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Batch", "MetricItem", "Record", "RunUpdate", "TextItem", "decode", "encode_batch", "encode_update"]

MetricItem: TypeAlias = "list[Any]"
"""``[key, value, timestamp, step]``, and ``model_id, dataset_name, dataset_digest`` where one of them is set."""

TextItem: TypeAlias = "list[str]"
"""``[key, value]`` of a param or a tag."""

_METRIC_SIZES = (4, 7)


@dataclass(frozen=True, slots=True)
class Batch:
    """Metrics, params and tags that one call wrote to one run."""

    run_id: str
    metrics: list[MetricItem]
    params: list[TextItem]
    tags: list[TextItem]


@dataclass(frozen=True, slots=True)
class RunUpdate:
    """A change of a run itself; None leaves a field as it is."""

    run_id: str
    status: str | None
    end_time: int | None
    run_name: str | None


Record: TypeAlias = "Batch | RunUpdate"

# One encoder for all calls: json.dumps with options builds a new one each time. ASCII only, so that no line separator
# of Unicode is ever taken for the end of a record's line.
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), check_circular=False).encode


def encode_batch(
    run_id: str, metrics: Sequence[MetricItem], params: Sequence[TextItem], tags: Sequence[TextItem]
) -> bytes:
    """Encode what one call wrote to a run."""
    return _encode(["batch", run_id, metrics, params, tags]).encode()


def encode_update(run_id: str, status: str | None, end_time: int | None, run_name: str | None) -> bytes:
    """Encode a change of a run."""
    return _encode(["update", run_id, status, end_time, run_name]).encode()


def decode(payload: bytes) -> Record:
    """Decode a record.

    Raises:
        ValueError: It is none that this version of mantik knows; the text says why.
    """
    try:
        items = json.loads(payload)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    match items:
        case ["batch", str() as run_id, list() as metrics, list() as params, list() as tags]:
            if not all(_is_metric(item) for item in metrics):
                raise ValueError("a metric is not key, value, timestamp and step")
            if not all(_is_text(item) for item in (*params, *tags)):
                raise ValueError("a param or tag is not key and value")
            return Batch(run_id, metrics, params, tags)
        case ["update", str() as run_id, str() | None as status, int() | None as end_time, str() | None as run_name]:
            return RunUpdate(run_id, status, end_time, run_name)
    raise ValueError("a record of a kind that this version does not know")


def _is_metric(item: object) -> bool:
    return (
        isinstance(item, list)
        and len(item) in _METRIC_SIZES
        and isinstance(item[0], str)
        and isinstance(item[1], int | float)
        and isinstance(item[2], int)
        and isinstance(item[3], int)
    )


def _is_text(item: object) -> bool:
    return isinstance(item, list) and len(item) == 2 and all(isinstance(part, str) for part in item)  # noqa: PLR2004
