"""What is written of one fit: into its run, and below its own names where the run holds others."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from mlflow import MlflowClient

    from mantik.integrations.sklearn.pictures import Picture
    from mantik.training.writer import RunWriter

__all__ = ["Record"]


@dataclass(slots=True)
class Record:
    """Writes what there is to say of one fit. Any thread may call.

    Attributes:
        run_id: The run.
        experiment_id: Its experiment.
        prefix: What comes before the names of params, metrics and artifacts: empty, or the name of the fit and a slash
            where the run holds an earlier one.
        client: MLflow's client.
        model_id: The logged model of the fit, once there is one.
    """

    run_id: str
    experiment_id: str
    prefix: str
    client: MlflowClient
    writer: RunWriter = field(repr=False)
    lock: threading.Lock = field(repr=False)
    model_id: str | None = None

    def params(self, params: Mapping[str, str]) -> None:
        """Record params; what the run has with another value already is kept as drift."""
        with self.lock:
            self.writer.log_params({self.prefix + name: value for name, value in params.items()})

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record numbers; those that are none are left out, as MLflow's page breaks on them."""
        finite = {self.prefix + name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        if finite:
            with self.lock:
                self.writer.log_metrics(finite, step, self.model_id)

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags of the run; those of a later fit of a run below its own names."""
        with self.lock:
            self.writer.set_tags({self.prefix + name: value for name, value in tags.items()})

    def text(self, text: str, artifact_file: str) -> None:
        """Keep a text as an artifact."""
        self.client.log_text(self.run_id, text, self.prefix + artifact_file)

    def picture(self, picture: Picture, name: str | None = None) -> None:
        """Draw a picture and keep it as an artifact, where there is something to show.

        Args:
            picture: The picture.
            name: What it is called instead of its own name, without ending.
        """
        with TemporaryDirectory(prefix="mantik-") as folder:
            path = Path(folder) / f"{(name or picture.name).rpartition('/')[2]}.png"
            if picture.save(path):
                below = (self.prefix + (name or picture.name)).rpartition("/")[0]
                self.client.log_artifact(self.run_id, str(path), below or None)
