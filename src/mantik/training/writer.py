"""What a training writes to its run: points, params, tags, artifacts."""

from __future__ import annotations

import errno
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, Param, RunTag

from mantik.training.drift import Change, changes, drift_text, drift_yaml
from mantik.training.names import NameMap
from mantik.training.params import flatten, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mlflow import MlflowClient

__all__ = ["RunWriter"]

_logger = logging.getLogger(__name__)

_DRIFT_TAG = "mantik.param_drift"
_NAME_TAG = "mantik.name"
_LONGEST_TAG = 250
"""Characters of a tag's key (MLflow's limit)."""
_DIGITS = 9
"""Characters at the end of a mapped name that tell it from all others."""
_MOST_PARAMS = 100
"""Params in one request (MLflow's limit)."""


class RunWriter:
    """Writes to one run. One thread at a time may call.

    Everything goes through MLflow's client, and so is on disk before a call returns and reaches the platform by itself.

    Args:
        client: MLflow's client for the platform.
        run_id: The run.
        attempt: The how manieth process this is that goes on with the run, from 1.
        known_params: The params that the run has; None where they have to be asked for.
    """

    def __init__(
        self, client: MlflowClient, run_id: str, attempt: int = 1, known_params: Mapping[str, str] | None = None
    ) -> None:
        self.run_id = run_id
        self.attempt = attempt
        self._client = client
        self._known_params = None if known_params is None else dict(known_params)
        self._last: dict[str, tuple[int, float]] = {}
        self._drift: dict[str, Change] = {}
        self._metric_names = NameMap()
        self._param_names = NameMap()

    def log_metrics(self, metrics: Mapping[str, float], step: int, model_id: str | None = None) -> None:
        """Record one point of each metric; a point that was the last one already is not recorded twice.

        Args:
            metrics: Values by name.
            step: The step of all of them.
            model_id: The logged model that they are facts of, where there is one (MLflow 3).
        """
        self.log_history([(metrics, step, int(time.time() * 1000))], model_id)

    def log_history(self, moments: Iterable[tuple[Mapping[str, float], int, int]], model_id: str | None = None) -> None:
        """Record points of several moments together, which takes hardly longer than those of one.

        Args:
            moments: Of each the values by name, their step, and their time in milliseconds since 1970.
            model_id: As of `log_metrics`.
        """
        model = {} if model_id is None else {"model_id": model_id}
        name_of, last = self._metric_names.name_of, self._last
        points = []
        for metrics, step, timestamp in moments:
            for name, value in metrics.items():
                # Frameworks log some numbers, such as the epoch, once with training's and once with validation's.
                if last.get(name) != (step, value):
                    last[name] = step, value
                    points.append(Metric(name_of(name), value, timestamp, step, **model))
        if points:
            self._client.log_batch(self.run_id, metrics=points)
        if self._metric_names.has_new:
            self._tell_names(self._metric_names, "Metrics")

    def log_params(self, params: object) -> None:
        """Record hyper-parameters; what differs from what the run has already is recorded as drift.

        Args:
            params: A mapping, namespace or dataclass, nested or not.
        """
        texts = {self._param_names.name_of(name): text_of(value) for name, value in flatten(params).items()}
        known = self._params()
        new = {name: text for name, text in texts.items() if name not in known}
        entries = [Param(name, text) for name, text in new.items()]
        for first in range(0, len(entries), _MOST_PARAMS):
            self._client.log_batch(self.run_id, params=entries[first : first + _MOST_PARAMS])
        if self._param_names.has_new:
            self._tell_names(self._param_names, "Params")
        drift = changes(known, texts)
        known.update(new)
        if drift:
            self._record_drift(drift)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags."""
        self._client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def log_text(self, text: str, artifact_file: str) -> None:
        """Keep a text as an artifact."""
        self._client.log_text(self.run_id, text, artifact_file)

    def log_file(self, path: Path, artifact_path: str | None) -> None:
        """Keep a file, or a folder with all that is in it, as an artifact.

        Raises:
            OSError: It cannot be read.
        """
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), artifact_path)
        else:
            self._client.log_artifact(self.run_id, str(path), artifact_path)

    def remove_artifacts(self, artifact_path: str) -> None:
        """Delete an artifact, or a folder of them."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        root = self._client.get_run(self.run_id).info.artifact_uri
        get_artifact_repository(root).delete_artifacts(artifact_path)

    def _params(self) -> dict[str, str]:
        """Return the params that the run has, as far as they are known here."""
        if self._known_params is None:
            self._known_params = dict(self._client.get_run(self.run_id).data.params)
        return self._known_params

    def _record_drift(self, drift: list[Change]) -> None:
        self._drift.update({change.key: change for change in drift})
        drift = list(self._drift.values())
        _logger.warning(
            "Hyper-parameters differ from those that the run has, which MLflow does not change: %s. The run keeps the "
            "first values; the tag %s and the artifact config/drift-%d.yaml tell.",
            drift_text(drift, 300),
            _DRIFT_TAG,
            self.attempt,
        )
        self.set_tags({_DRIFT_TAG: drift_text(drift)})
        self._client.log_text(self.run_id, drift_yaml(drift), f"config/drift-{self.attempt}.yaml")

    def _tell_names(self, names: NameMap, what: str) -> None:
        """Keep the names that MLflow cannot hold, and say once what became of them."""
        new = names.take_new()
        self.set_tags({_name_tag(mapped): original[:5000] for mapped, original in new.items()})
        shown = [f"{original!r} as {mapped!r}" for mapped, original in list(new.items())[:3]]
        more = f" and {len(new) - len(shown)} more" if len(new) > len(shown) else ""
        _logger.warning(
            "%s have names that MLflow cannot hold. They are recorded under others: %s%s. Tags %s.* keep them.",
            what,
            ", ".join(shown)[:1000],
            more,
            _NAME_TAG,
        )


def _name_tag(mapped: str) -> str:
    """Return the tag of a mapped name; in one that is too long for a tag, the digits at its end tell it from others."""
    key = f"{_NAME_TAG}.{mapped}"
    return key if len(key) <= _LONGEST_TAG else key[: _LONGEST_TAG - _DIGITS] + key[-_DIGITS:]
