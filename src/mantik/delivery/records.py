"""What a journal's records say: the writes of a training, as JSON of one line each.

A record is a list whose first item is its kind. Metrics, params and tags travel as lists too, because a training writes
them thousands of times and names would be half of their bytes:

* ``["batch", run_id, [[key, value, timestamp, step, model_id, dataset_name, dataset_digest], ...], [[key, value], ...],
  [[key, value], ...]]``: metrics, params and tags of one call; the last three items of a metric are left out where they
  are not set;
* ``["update", run_id, status, end_time, run_name]``: a run's status as MLflow names it, its end in milliseconds since
  1970 and its name; null is "leave as it is";
* ``["create", kind, local_id, asked_at, body]``: a run, model or experiment that the server was not asked for, or that
  it was asked for at a time (seconds since 1970) without an answer; what to send;
* ``["call", name, about, body]``: one request of `mantik.delivery.calls` about one entity;
* ``["spans", experiment_id, base64]``: spans of traces, as OpenTelemetry's protocol has them;
* ``["artifact", uri, staged, size]``: a file for an artifact URI, its name among the staged files, its size in bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mantik.delivery.calls import CALLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mantik.delivery.ids import Kind

__all__ = [
    "Artifact",
    "Batch",
    "Call",
    "Create",
    "MetricItem",
    "Record",
    "RunUpdate",
    "Spans",
    "TextItem",
    "decode",
    "encode",
    "encode_batch",
    "encode_points",
    "encode_update",
]

MetricItem: TypeAlias = "list[Any]"
"""``[key, value, timestamp, step]``, and ``model_id, dataset_name, dataset_digest`` where one of them is set."""

TextItem: TypeAlias = "list[str]"
"""``[key, value]`` of a param or a tag."""

_METRIC_SIZES = (4, 7)
_KINDS: tuple[Kind, ...] = ("run", "model", "experiment")


@dataclass(frozen=True, slots=True)
class Batch:
    """Metrics, params and tags that one call wrote to one run."""

    run_id: str
    metrics: list[MetricItem]
    params: list[TextItem]
    tags: list[TextItem]

    def as_list(self) -> list[Any]:
        """Return what is encoded."""
        return ["batch", self.run_id, self.metrics, self.params, self.tags]


@dataclass(frozen=True, slots=True)
class RunUpdate:
    """A change of a run itself; None leaves a field as it is."""

    run_id: str
    status: str | None
    end_time: int | None
    run_name: str | None

    def as_list(self) -> list[Any]:
        """Return what is encoded."""
        return ["update", self.run_id, self.status, self.end_time, self.run_name]


@dataclass(frozen=True, slots=True)
class Create:
    """Something that has a provisional id and is to be created on the server."""

    kind: Kind
    local_id: str
    asked_at: float | None
    body: dict[str, Any]

    def as_list(self) -> list[Any]:
        """Return what is encoded."""
        return ["create", self.kind, self.local_id, self.asked_at, self.body]


@dataclass(frozen=True, slots=True)
class Call:
    """One request of `mantik.delivery.calls`; `about` is the run, model, experiment or trace that it is about."""

    name: str
    about: str
    body: dict[str, Any]

    def as_list(self) -> list[Any]:
        """Return what is encoded."""
        return ["call", self.name, self.about, self.body]


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of traces; `request` is OpenTelemetry's export request, in base64."""

    experiment_id: str
    request: str

    def as_list(self) -> list[Any]:
        """Return what is encoded."""
        return ["spans", self.experiment_id, self.request]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A staged file and the artifact URI that it is for."""

    uri: str
    staged: str
    size: int

    def as_list(self) -> list[Any]:
        """Return what is encoded."""
        return ["artifact", self.uri, self.staged, self.size]


Record: TypeAlias = "Batch | RunUpdate | Create | Call | Spans | Artifact"

# One encoder for all calls: json.dumps with options builds a new one each time. ASCII only, so that no line separator
# of Unicode is ever taken for the end of a record's line.
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), check_circular=False).encode


def encode(record: Record) -> bytes:
    """Encode any record."""
    return _encode(record.as_list()).encode()


def encode_batch(
    run_id: str, metrics: Sequence[MetricItem], params: Sequence[TextItem], tags: Sequence[TextItem]
) -> bytes:
    """Encode what one call wrote to a run."""
    return _encode(["batch", run_id, metrics, params, tags]).encode()


def encode_points(run_id: str, points: Sequence[str]) -> bytes:
    """Encode points of metrics that are JSON texts already; `run_id` must need no escapes."""
    return f'["batch","{run_id}",[{",".join(points)}],[],[]]'.encode()


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
    except (ValueError, RecursionError) as error:
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
    return _decode_rare(items)


def _decode_rare(items: object) -> Record:
    match items:
        case ["create", str() as kind, str() as local_id, int() | float() | None as asked_at, dict() as body]:
            for known in _KINDS:
                if kind == known:
                    return Create(known, local_id, asked_at, body)
        case ["call", str() as name, str() as about, dict() as body]:
            if name not in CALLS:
                raise ValueError(f"a call {name!r}, which this version does not know")
            return Call(name, about, body)
        case ["spans", str() as experiment_id, str() as request]:
            return Spans(experiment_id, request)
        case ["artifact", str() as uri, str() as staged, int() as size] if staged and "/" not in staged:
            return Artifact(uri, staged, size)
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
