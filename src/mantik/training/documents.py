"""The texts that describe a training, among the artifacts of its run."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mantik.training.run import TrackedRun

__all__ = ["Documents"]


class Documents:
    """Writes each text once, however often a training says the same. One thread at a time may call.

    Args:
        run: The run.
    """

    def __init__(self, run: TrackedRun) -> None:
        self._run = run
        self._written: dict[str, str] = {}

    def write(self, artifact_file: str, text: str) -> None:
        """Keep a text as an artifact, unless it was the same before."""
        if self._written.get(artifact_file) != text:
            self._written[artifact_file] = text
            self._run.writer.log_text(text, artifact_file)

    def write_configuration(self, artifact_file: str, text: str) -> None:
        """Keep a configuration as an artifact; that of a later attempt beside the one that the run began with."""
        attempt = self._run.writer.attempt
        if attempt > 1:
            path = PurePosixPath(artifact_file)
            artifact_file = f"config/{path.stem}-{attempt}{path.suffix}"
        self.write(artifact_file, text)
