"""Which files wait for their upload: lets a training list and read the artifacts that it has just logged."""

from __future__ import annotations

import posixpath
import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mantik.delivery.journal import Position

__all__ = ["StagedFile", "StagedFiles"]


class StagedFile(NamedTuple):
    """A file that waits.

    Attributes:
        path: Its path below the artifact URI that was asked for.
        name: Its name among the staged files.
        size: Its size in bytes.
    """

    path: str
    name: str
    size: int


class StagedFiles:
    """The files that wait, by artifact URI. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # In the order of their records.
        self._files: dict[str, tuple[str, int, Position]] = {}

    def add(self, uri: str, name: str, size: int, position: Position) -> None:
        """Take in a staged file; one that was there for the same URI is older.

        Args:
            uri: Its artifact URI.
            name: Its name among the staged files.
            size: Its size in bytes.
            position: The end of its record.
        """
        with self._lock:
            self._files.pop(uri, None)
            self._files[uri] = name, size, position

    def below(self, root: str) -> list[StagedFile]:
        """Return the files below an artifact URI, and the one at it, whose path is empty."""
        prefix = root.rstrip("/")
        with self._lock:
            return [
                StagedFile(uri[len(prefix) + 1 :], name, size)
                for uri, (name, size, _) in self._files.items()
                if uri == prefix or uri.startswith(prefix + "/")
            ]

    def at(self, root: str, path: str) -> str | None:
        """Return the name of the file at a path below an artifact URI, or None."""
        with self._lock:
            found = self._files.get(posixpath.join(root, path))
        return found[0] if found is not None else None

    def forget(self, delivered: Position) -> None:
        """Drop what was uploaded, up to a position."""
        with self._lock:
            while self._files:
                uri, (_, _, position) = next(iter(self._files.items()))
                if position > delivered:
                    return
                del self._files[uri]
