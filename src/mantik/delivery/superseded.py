"""Copies that need not be uploaded any more, because their file was logged again or removed while they waited."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mantik.delivery.ledger import Counts, entity_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mantik.delivery.budget import Budget
    from mantik.delivery.journal import Position
    from mantik.delivery.staged import WaitingFile
    from mantik.delivery.staging import Staging

__all__ = ["Superseded"]

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    """Superseded copies of one artifact that are on disk still, the oldest first.

    Attributes:
        newest: Name of the copy that takes their place; None where the artifact was removed.
        copies: The copies.
    """

    newest: str | None
    copies: list[WaitingFile] = field(default_factory=list)


class Superseded:
    """The superseded copies of one outgoing folder. Any thread may call.

    Promises: a superseded copy is deleted at once, but one that would survive the death of the node stays until a newer
    one would. So of a file that is logged again and again while nothing can be uploaded there are three copies at most,
    and one in the end. Records of deleted copies stay in the journal, and whoever ships it passes them over. Does not
    promise room at once for a copy that is being uploaded: the file system keeps it until that is over.

    Args:
        staging: Where the copies are.
        budget: Gets their room back.
    """

    def __init__(self, staging: Staging, budget: Budget) -> None:
        self._staging = staging
        self._budget = budget
        # Re-entrant: a signal handler that logs a file may interrupt a call that holds it.
        self._lock = threading.RLock()
        # By artifact URI.
        self._held: dict[str, _Held] = {}
        # By name: deleted, but their records were not passed over yet.
        self._gone: dict[str, WaitingFile] = {}

    def replace(self, older: WaitingFile, newer: str) -> None:
        """Give up a copy for a newer one, whose record is in the journal."""
        with self._lock:
            held = self._held.setdefault(older.artifact.uri, _Held(newer))
            held.newest = newer
            # One that is safe stays: the newer one may be lost with the node.
            if self._staging.is_safe(older.artifact.staged) or not self._discard(older):
                held.copies.append(older)
            self._tidy(older.artifact.uri)

    def remove(self, files: Iterable[WaitingFile]) -> None:
        """Give up copies whose artifacts are removed, with the older ones that are there still."""
        with self._lock:
            for file in files:
                held = self._held.setdefault(file.artifact.uri, _Held(None))
                held.newest = None
                held.copies = [copy for copy in (*held.copies, file) if not self._discard(copy)]
                self._tidy(file.artifact.uri)

    def held(self) -> dict[str, str | None]:
        """Return the newest copy of each artifact of which superseded ones are there, by artifact URI."""
        with self._lock:
            return {uri: held.newest for uri, held in self._held.items()}

    def release(self, safe: Mapping[str, str | None]) -> None:
        """Delete the copies that are older than some, which are safe now; some may have been deleted meanwhile.

        Args:
            safe: What `held` gave before they were made safe.
        """
        with self._lock:
            for uri, name in safe.items():
                held = self._held.get(uri)
                if held is None:
                    continue
                names = [copy.artifact.staged for copy in held.copies]
                if name == held.newest:
                    older = held.copies
                elif name in names:
                    older = held.copies[: names.index(name)]
                else:
                    older = []
                done = [copy for copy in older if self._discard(copy)]
                held.copies = [copy for copy in held.copies if copy not in done]
                self._tidy(uri)

    def forget(self, delivered: Position) -> None:
        """Drop from memory what was passed over, up to a position."""
        with self._lock:
            for uri, held in list(self._held.items()):
                held.copies = [copy for copy in held.copies if copy.position > delivered]
                self._tidy(uri)
            for name in [name for name, file in self._gone.items() if file.position <= delivered]:
                del self._gone[name]

    def counts(self, passed: Position | None) -> dict[str, Counts]:
        """Return what was deleted and not passed over yet, by run, model and trace.

        Args:
            passed: Up to where the journal was delivered; None if nothing was.
        """
        counts: dict[str, Counts] = {}
        with self._lock:
            for artifact, position in self._gone.values():
                if passed is None or position > passed:
                    counts.setdefault(entity_of(artifact), Counts()).count(artifact)
        return counts

    def _discard(self, file: WaitingFile) -> bool:
        """Delete a copy; tell whether it is not there any more."""
        name, size = file.artifact.staged, file.artifact.size
        try:
            was_there = self._staging.discard(name)
        except OSError as error:
            # A disk that is full to the last: it is tried again, and at worst uploaded for nothing.
            _logger.debug("The copy %s cannot be discarded: %s", name, error)
            return False
        if was_there:
            self._budget.give(size)
            self._gone[name] = file
        return True

    def _tidy(self, uri: str) -> None:
        if not self._held[uri].copies:
            del self._held[uri]
