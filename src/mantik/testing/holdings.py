"""What a platform holds, as `ReadBack` returns it. Times are milliseconds since 1970, as MLflow keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Experiment", "LoggedModel", "ModelVersion", "Point", "RegisteredModel", "Run"]


class Point(NamedTuple):
    """One value of a metric's history; equal to the plain tuple `(step, timestamp, value)`."""

    step: int
    timestamp: int
    value: float


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class Run:
    """A run. `metrics` holds the latest value of each metric; `end_time` is None while the run has none."""

    run_id: str
    name: str
    experiment_id: str
    status: str
    start_time: int
    end_time: int | None
    artifact_uri: str
    lifecycle_stage: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A logged model (MLflow 3). `source_run_id` is empty for a model without a run."""

    model_id: str
    name: str
    experiment_id: str
    source_run_id: str
    status: str
    artifact_uri: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a registered model."""

    version: str
    run_id: str
    source: str
    status: str


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A registered model with its versions, the oldest first."""

    name: str
    tags: dict[str, str]
    versions: tuple[ModelVersion, ...]
