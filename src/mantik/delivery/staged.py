"""Which files and removals wait: lets a training list and read the artifacts that it has just logged or removed."""

from __future__ import annotations

import posixpath
import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mantik.delivery.journal import Position
    from mantik.delivery.records import Artifact, Removal

__all__ = ["StagedFile", "StagedFiles", "WaitingFile"]


class StagedFile(NamedTuple):
    """A file that waits, as somebody sees it who lists artifacts.

    Attributes:
        path: Its path below the artifact URI that was asked for.
        name: Its name among the staged files.
        size: Its size in bytes.
    """

    path: str
    name: str
    size: int


class WaitingFile(NamedTuple):
    """A file that waits, as delivery sees it.

    Attributes:
        artifact: Its record.
        position: The end of that record.
    """

    artifact: Artifact
    position: Position


class StagedFiles:
    """The files and removals that wait, by artifact URI. Any thread may call."""

    def __init__(self) -> None:
        # Re-entrant: a signal handler that logs a file may interrupt a call that holds it.
        self._lock = threading.RLock()
        # Both in the order of their records.
        self._files: dict[str, WaitingFile] = {}
        self._removals: dict[str, tuple[Removal, Position]] = {}

    def add(self, artifact: Artifact, position: Position) -> None:
        """Take in a staged file; one that was there for the same URI is older.

        Args:
            artifact: Its record.
            position: The end of that record.
        """
        with self._lock:
            self._files.pop(artifact.uri, None)
            self._files[artifact.uri] = WaitingFile(artifact, position)

    def remove(self, removal: Removal, position: Position) -> None:
        """Take in a removal; the files that it covers do not wait any more.

        Args:
            removal: Its record.
            position: The end of that record.
        """
        with self._lock:
            for file in self.covered_by(removal):
                del self._files[file.artifact.uri]
            self._removals.pop(removal.uri, None)
            self._removals[removal.uri] = removal, position

    def covered_by(self, removal: Removal) -> list[WaitingFile]:
        """Return the files that a removal covers."""
        with self._lock:
            return [file for uri, file in self._files.items() if removal.covers(uri)]

    def waiting_at(self, uri: str) -> WaitingFile | None:
        """Return the file that waits for an artifact URI, or None."""
        with self._lock:
            return self._files.get(uri)

    def below(self, root: str) -> list[StagedFile]:
        """Return the files below an artifact URI, and the one at it, whose path is empty."""
        prefix = root.rstrip("/")
        with self._lock:
            return [
                StagedFile(uri[len(prefix) + 1 :], file.artifact.staged, file.artifact.size)
                for uri, file in self._files.items()
                if uri == prefix or uri.startswith(prefix + "/")
            ]

    def at(self, root: str, path: str) -> str | None:
        """Return the name of the file at a path below an artifact URI, or None."""
        found = self.waiting_at(posixpath.join(root, path))
        return found.artifact.staged if found is not None else None

    def removals(self) -> list[Removal]:
        """Return the removals that wait: what they cover is on the server still, if it ever was."""
        with self._lock:
            return [removal for removal, _ in self._removals.values()]

    def forget(self, delivered: Position) -> None:
        """Drop what was uploaded and removed, up to a position."""
        with self._lock:
            while self._files:
                uri, file = next(iter(self._files.items()))
                if file.position > delivered:
                    break
                del self._files[uri]
            while self._removals:
                uri, (_, position) = next(iter(self._removals.items()))
                if position > delivered:
                    break
                del self._removals[uri]
