"""What has arrived on the platform of what a test tracks in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

import mantik

if TYPE_CHECKING:
    from mantik.testing import FaultProxy, Platform
    from mantik.testing.holdings import Run

__all__ = ["Arrived"]

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
