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
* ``["artifact", uri, staged, size]``: a file for an artifact URI, its name among the staged files, its size in bytes;
* ``["removal", uri]``: the file at an artifact URI, or the folder with all that is in it, is to be removed.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mantik.delivery.calls import CALLS
from mantik.delivery.ids import is_provisional

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
    "Removal",
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
_LARGEST = 2**63
"""Beyond what a server can hold in a time or a step."""

_HUGE = 2**1023
"""More than a float can hold."""

_DEEPEST = 50
_STAGED = re.compile(r"[0-9A-Za-z]{1,40}")
_EXPERIMENT = re.compile(r"[0-9A-Za-z_-]{1,64}")
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


@dataclass(frozen=True, slots=True)
class Removal:
    """An artifact URI of which nothing is to be left: neither a file nor a folder with what is in it."""

    uri: str

    def as_list(self) -> list[Any]:
        """Return what is encoded."""
        return ["removal", self.uri]

    def covers(self, uri: str) -> bool:
        """Tell whether an artifact goes with it."""
        top = self.uri.rstrip("/")
        return uri == top or uri.startswith(f"{top}/")


Record: TypeAlias = "Batch | RunUpdate | Create | Call | Spans | Artifact | Removal"

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
        case [
            "update",
            str() as run_id,
            str() | None as status,
            int() | None as end_time,
            str() | None as run_name,
        ] if _fits(end_time or 0):
            return RunUpdate(run_id, status, end_time, run_name)
    return _decode_rare(items)


def _decode_rare(items: object) -> Record:
    match items:
        case ["create", str() as kind, str() as local_id, int() | float() | None as asked_at, dict() as body]:
            return _create(kind, local_id, asked_at, body)
        case ["call", str() as name, str() as about, dict() as body]:
            if name not in CALLS:
                raise ValueError(f"a call {name[:80]!r}, which this version does not know")
            _require_plain(body)
            return Call(name, about, body)
        case ["spans", str() as experiment_id, str() as request] if _EXPERIMENT.fullmatch(experiment_id):
            return Spans(experiment_id, request)
        case ["artifact", str() as uri, str() as staged, int() as size]:
            # A path would make mantik send, move or delete a file that is none of its own.
            if not _STAGED.fullmatch(staged):
                raise ValueError(f"an artifact whose copy is named {staged[:80]!r}, which is no name of a staged file")
            return Artifact(uri, staged, size)
        case ["removal", str() as uri]:
            return Removal(uri)
    raise ValueError("a record of a kind that this version does not know")


def _create(kind: str, local_id: str, asked_at: float | None, body: dict[str, Any]) -> Create:
    for known in _KINDS:
        if kind == known:
            # The id becomes a file's name.
            if not is_provisional(local_id):
                raise ValueError(f"it is to create {local_id[:80]!r}, which is no provisional id")
            _require_plain(body)
            return Create(known, local_id, asked_at, body)
    raise ValueError(f"it is to create {kind[:80]!r}, which this version does not know")


def _require_plain(body: dict[str, Any]) -> None:
    if not _is_plain(body):
        raise ValueError("its body is nested too deep, or holds NaN or an infinity, which JSON does not have")


def _is_metric(item: object) -> bool:
    return (
        isinstance(item, list)
        and len(item) in _METRIC_SIZES
        and isinstance(item[0], str)
        and (isinstance(item[1], float) or (isinstance(item[1], int) and abs(item[1]) < _HUGE))
        and isinstance(item[2], int)
        and isinstance(item[3], int)
        and _fits(item[2])
        and _fits(item[3])
        and all(part is None or isinstance(part, str) for part in item[4:])
    )


def _fits(number: int) -> bool:
    return -_LARGEST <= number < _LARGEST


def _is_plain(content: object, depth: int = 0) -> bool:
    """Tell whether a body can be sent: JSON has no NaN, and nobody nests it this deep."""
    if isinstance(content, dict):
        return depth < _DEEPEST and all(_is_plain(item, depth + 1) for item in content.values())
    if isinstance(content, list):
        return depth < _DEEPEST and all(_is_plain(item, depth + 1) for item in content)
    return not isinstance(content, float) or math.isfinite(content)


def _is_text(item: object) -> bool:
    return isinstance(item, list) and len(item) == 2 and all(isinstance(part, str) for part in item)  # noqa: PLR2004
