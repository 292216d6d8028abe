"""What the tests of trainings in this process share: a folder of their own, and a look at what has arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow
import pytest
import yaml

import mantik

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import FaultProxy, Platform
    from mantik.testing.holdings import Run

FLUSH_SECONDS = 60.0


class Arrived:
    """What the platform holds, once everything has been delivered to it.

    Args:
        platform: The platform.
        proxy: What stands before it, and is this process's tracking URI.
    """

    def __init__(self, platform: Platform, proxy: FaultProxy) -> None:
        self.platform = platform
        self.proxy = proxy

    def run(self, run_id: str | None) -> Run:
        """Return a run."""
        self._wait()
        return self.platform.read_back.run(str(run_id))

    def runs(self, experiment: str = "Default") -> list[Run]:
        """Return the runs of an experiment, the first first."""
        self._wait()
        return sorted(self.platform.read_back.runs(experiment), key=lambda run: run.start_time)

    def points(self, run_id: str | None, key: str) -> list[tuple[int, float]]:
        """Return step and value of each point of a metric, in order of time and step."""
        self._wait()
        return [(point.step, point.value) for point in self.platform.read_back.metric_history(str(run_id), key)]

    def steps(self, run_id: str | None, key: str) -> list[int]:
        """Return the steps of a metric."""
        return [step for step, _ in self.points(run_id, key)]

    def artifacts(self, run_id: str | None, path: str = "") -> list[str]:
        """Return the paths of a run's files."""
        self._wait()
        return self.platform.read_back.artifacts(str(run_id), path)

    def content(self, run_id: str | None, path: str) -> bytes:
        """Return the content of one file."""
        self._wait()
        return self.platform.read_back.download(str(run_id), path)

    def yaml(self, run_id: str | None, path: str) -> Any:  # noqa: ANN401  # whatever it holds
        """Return what a YAML file holds."""
        return yaml.safe_load(self.content(run_id, path))

    def _wait(self) -> None:
        assert mantik.flush(FLUSH_SECONDS), mantik.receipt()


@pytest.fixture
def arrived(
    tracked: FaultProxy, mantik_platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Arrived]:
    """Track from a folder of one's own; no run and no experiment of MLflow stays active in this process."""
    monkeypatch.chdir(tmp_path)
    yield Arrived(mantik_platform, tracked)
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.tracking.fluent._active_experiment_id = None  # noqa: SLF001  # what MLflow has no function for
