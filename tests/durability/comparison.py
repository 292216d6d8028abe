"""What a platform holds of one experiment, in a form that two trainings with the same code have in common.

Ids that the platform made up and moments are replaced by words; everything else stays as it is, so that a difference
is a difference. Read with plain requests, all of it: nothing of mantik's or MLflow's client is asked.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.testing import Platform, ReadBack

__all__ = ["Holding", "difference", "holding_of"]

_TRACES = "/api/3.0/mlflow/traces"
_FILES = "/api/2.0/mlflow-artifacts/artifacts"

MOMENTS = frozenset(
    {
        "assessed_at",
        "creation_time",
        "creation_timestamp_ms",
        "end_time",
        "end_time_unix_nano",
        "execution_duration",
        "execution_duration_ms",
        "last_update_time",
        "last_updated_timestamp_ms",
        "request_time",
        "start_time",
        "start_time_unix_nano",
        "timestamp",
        "timestamp_ms",
    }
)
"""Fields of the platform's answers that hold a moment or a duration."""

RANDOM = frozenset({"span_id", "parent_span_id", "trace_id", "mlflow.traceRequestId"})
"""Fields that hold what OpenTelemetry made up; which span is whose child is compared beside them."""

SIZES = frozenset({"mlflow.trace.sizeBytes", "mlflow.trace.sizeStats"})
"""Fields that hold how large something with ids in it is: the length of ids differs."""

_WORDS = {
    **dict.fromkeys(MOMENTS, "<moment>"),
    **dict.fromkeys(RANDOM, "<random>"),
    **dict.fromkeys(SIZES, "<size>"),
}

OPERATION = "mantik.op_id"
"""A tag whose value differs for each run and model."""

SYSTEM = "system/"
"""Prefix of metrics whose values and number are the machine's affair."""

_MOMENT_TEXTS = (
    re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?"),
    # Names of logged images: key, step, moment, random id.
    re.compile(r"(?<=timestamp[+%])\d+[+%][0-9a-f-]{36}"),
)
_MODEL_SIZE = re.compile(r"model_size_bytes: \d+|\"model_size_bytes\": \d+")
_ZIP_MOMENT = re.compile(rb'"date_saved": "[^"]*"|"shared_object_id": \d+')
_ZIP_RANDOM = "/.data/serialization_id"
"""Derived by torch from the content, with the paths in it."""

_FOLDER = re.compile(r"/.*/checkpoints\b")
"""Lightning writes into a checkpoint where it lies: in a folder with the run's id."""


@dataclass
class Holding:
    """What the platform holds of one experiment.

    Attributes:
        run_ids: Ids of the runs by their labels: the tag `label`, or else the name.
        model_ids: Ids of the logged models by their labels: run and name.
        experiment: The experiment.
        runs: By label, each with the platform's whole answer.
        histories: By run and metric: value, step, model and dataset of each point, in order.
        system: By run, the names of the system metrics that have points.
        models: By label, each with the platform's whole answer.
        files: Content of every file of every run and model, by label and path.
        traces: Every trace with its spans, by the name of its first span.
        moments: Every time at which something was recorded, in milliseconds since 1970.
    """

    run_ids: dict[str, str] = field(default_factory=dict)
    model_ids: dict[str, str] = field(default_factory=dict)
    experiment: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    histories: dict[str, list[Any]] = field(default_factory=dict)
    system: dict[str, list[str]] = field(default_factory=dict)
    models: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)
    traces: dict[str, Any] = field(default_factory=dict)
    moments: list[int] = field(default_factory=list)


def holding_of(platform: Platform, experiment: str) -> Holding:
    """Read what a platform holds of an experiment, given by its name."""
    return _Reader(platform.read_back, experiment).read()


def difference(one: Holding, other: Holding) -> list[str]:
    """Return every place where two holdings differ, and what is there in each; empty where they are the same."""
    found: list[str] = []
    for name in ("experiment", "runs", "histories", "system", "models", "files", "traces"):
        _compare(name, getattr(one, name), getattr(other, name), found)
    return found


def _compare(where: str, one: Any, other: Any, found: list[str]) -> None:  # noqa: ANN401  # any JSON
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            if key not in one or key not in other:
                side, value = ("the first", one[key]) if key in one else ("the second", other[key])
                found.append(f"{where}/{key}: only in {side}: {str(value)[:300]}")
            else:
                _compare(f"{where}/{key}", one[key], other[key], found)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (left, right) in enumerate(zip(one, other, strict=True)):
            _compare(f"{where}[{place}]", left, right, found)
    elif one != other:
        found.append(f"{where}: {str(one)[:300]} != {str(other)[:300]}")


class _Reader:
    def __init__(self, reader: ReadBack, experiment: str) -> None:
        self._reader = reader
        self._experiment = reader.experiment(experiment)
        self._words: dict[str, str] = {
            self._experiment.name: "<experiment name>",
        }
        self._held = Holding()

    def read(self) -> Holding:
        held, experiment_id = self._held, self._experiment.experiment_id
        runs = [self._call("GET", "runs/get", {"run_id": run.run_id})["run"] for run in self._runs()]
        models = [
            self._call("GET", f"logged-models/{model.model_id}", {})["model"]
            for model in self._reader.logged_models(experiment_id)
        ]
        traces = self._traces(experiment_id)
        for run in runs:
            tags = _pairs(run["data"].get("tags", ()))
            label = tags.get("label") or run["info"]["run_name"]
            assert label not in held.run_ids, f"two runs {label}"
            held.run_ids[label] = run["info"]["run_id"]
            self._words[run["info"]["run_id"]] = f"<run {label}>"
            if "label" in tags:
                self._words[run["info"]["run_name"]] = "<made up name>"
        by_id = {run_id: label for label, run_id in held.run_ids.items()}
        # Several models of a run may have the same name; the order in which they were created tells them apart.
        for model in sorted(models, key=lambda model: int(model["info"]["creation_timestamp_ms"])):
            info = model["info"]
            label = f"{by_id.get(info.get('source_run_id', ''), 'no run')}/{info['name']}"
            while label in held.model_ids:
                label += "'"
            held.model_ids[label] = info["model_id"]
            self._words[info["model_id"]] = f"<model {label}>"
        for trace in traces:
            self._words[trace["trace_info"]["trace_id"]] = f"<trace {_root_of(trace)}>"
        self._words = dict(sorted(self._words.items(), key=lambda item: -len(item[0])))
        self._fill(runs, models, traces)
        return held

    def _fill(self, runs: list[Any], models: list[Any], traces: list[Any]) -> None:
        held = self._held
        by_id = {**{i: n for n, i in held.run_ids.items()}, **{i: n for n, i in held.model_ids.items()}}
        answer = self._call("GET", "experiments/get", {"experiment_id": self._experiment.experiment_id})
        held.experiment = self._plain(answer["experiment"])
        for run in runs:
            label = by_id[run["info"]["run_id"]]
            self._histories(label, run)
            _without_system_metrics(run)
            held.runs[label] = self._plain(run)
            held.files |= self._files(f"run {label}", run["info"]["artifact_uri"])
        for model in models:
            label = by_id[model["info"]["model_id"]]
            _without_system_metrics(model)
            held.models[label] = self._plain(model)
            held.files |= self._files(f"model {label}", model["info"]["artifact_uri"])
        for trace in traces:
            root = _root_of(trace)
            assert root not in held.traces, f"two traces {root}"
            names = {span["span_id"]: span["name"] for span in trace["spans"]}
            for span in trace["spans"]:
                span["child of"] = names.get(span.get("parent_span_id"))
            trace["spans"].sort(key=lambda span: str(span["name"]))
            held.traces[root] = self._plain(trace)

    def _histories(self, label: str, run: Any) -> None:  # noqa: ANN401  # JSON
        self._held.moments += [int(run["info"]["start_time"]), int(run["info"].get("end_time") or 0)]
        system = []
        for metric in run["data"].get("metrics", ()):
            query = {"run_id": run["info"]["run_id"], "metric_key": metric["key"], "max_results": 25000}
            points = self._call("GET", "metrics/get-history", query)["metrics"]
            self._held.moments += [int(point["timestamp"]) for point in points]
            if metric["key"].startswith(SYSTEM):
                system.append(metric["key"])
            else:
                # Points of one step may lie within a millisecond or not.
                points.sort(key=lambda point: (int(point.get("step", 0)), str(point.get("model_id"))))
                self._held.histories[f"{label}/{metric['key']}"] = self._plain(points)
        self._held.system[label] = sorted(system)

    def _runs(self) -> Any:  # noqa: ANN401  # holdings
        return self._reader.runs(self._experiment.name)

    def _traces(self, experiment_id: str) -> list[Any]:
        location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}}
        found = self._send("POST", f"{_TRACES}/search", {"locations": [location], "max_results": 100})
        whole = []
        for info in json.loads(found).get("traces", ()):
            answer = self._send("GET", f"{_TRACES}/get", {"trace_id": info["trace_id"], "allow_partial": "true"})
            whole.append(json.loads(answer)["trace"])
        return whole

    def _files(self, label: str, uri: str) -> dict[str, Any]:
        root = uri.removeprefix("mlflow-artifacts:").strip("/")
        return {
            self._text(f"{label}: {path}"): self._content(
                path, self._send("GET", f"{_FILES}/{quote(root + '/' + path)}")
            )
            for path in self._paths(root, "")
        }

    def _paths(self, root: str, below: str) -> Iterator[str]:
        where = f"{root}/{below}".rstrip("/")
        for item in json.loads(self._send("GET", _FILES, {"path": where})).get("files", ()):
            path = f"{below}/{item['path']}".lstrip("/")
            if item.get("is_dir"):
                yield from self._paths(root, path)
            else:
                yield path

    def _content(self, path: str, content: bytes) -> Any:  # noqa: ANN401  # text, bytes, or a dictionary of them
        if content[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(content)) as packed:
                # An archive holds the moment at which each of its files was packed.
                return {
                    name: self._content(name, _ZIP_MOMENT.sub(b"", packed.read(name)))
                    for name in packed.namelist()
                    if not name.endswith(_ZIP_RANDOM)
                }
        if path.endswith("/data.pkl"):
            steps = pickletools.genops(content)
            return [
                (step.name, _FOLDER.sub("<folder>", arg) if isinstance(arg, str) else arg) for step, arg, _ in steps
            ]
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return content
        if path.endswith("MLmodel"):
            # The file holds ids, whose length differs.
            text = _MODEL_SIZE.sub("<size>", text)
        return self._text(text)

    def _plain(self, value: Any, key: str = "") -> Any:  # noqa: ANN401  # any JSON
        if isinstance(value, dict):
            if value.get("key") == OPERATION:
                return {"key": OPERATION, "value": "<random>"}
            return {name: self._plain(item, name) for name, item in value.items()}
        if isinstance(value, list):
            items = [self._plain(item) for item in value]
            return sorted(items, key=_order) if all(isinstance(item, dict) for item in items) else items
        if value and key in _WORDS:
            return _WORDS[key]
        if key == "experiment_id" and value == self._experiment.experiment_id:
            return "<experiment>"
        return self._text(value) if isinstance(value, str) else value

    def _text(self, text: str) -> str:
        for word, label in self._words.items():
            text = text.replace(word, label)
        text = re.sub(
            rf"(mlflow-artifacts:/)(mlartifacts/)?{self._experiment.experiment_id}\b", r"\1<experiment>", text
        )
        for pattern in _MOMENT_TEXTS:
            text = pattern.sub("<moment>", text)
        return text

    def _call(self, method: str, endpoint: str, query: dict[str, Any]) -> Any:  # noqa: ANN401  # JSON
        return self._reader._call(method, endpoint, query)  # noqa: SLF001  # it has the login

    def _send(self, method: str, path: str, query: dict[str, Any] | None = None) -> bytes:
        return self._reader._send(method, path, query).content  # noqa: SLF001  # it has the login


def _order(item: dict[str, Any]) -> str:
    """Return what a list is sorted by whose order says nothing: the key of params, tags and metrics, or all of it."""
    return str(item.get("key") or json.dumps(item, sort_keys=True, default=str))


def _without_system_metrics(entity: Any) -> None:  # noqa: ANN401  # JSON
    metrics = entity.get("data", {}).get("metrics", ())
    entity.setdefault("data", {})["metrics"] = [metric for metric in metrics if not metric["key"].startswith(SYSTEM)]


def _root_of(trace: Any) -> str:  # noqa: ANN401  # JSON
    for span in trace["spans"]:
        if not span.get("parent_span_id"):
            return str(span["name"])
    return "without a span"


def _pairs(items: Any) -> dict[str, str]:  # noqa: ANN401  # JSON
    return {item["key"]: item.get("value", "") for item in items}
