"""Which runs a process has open, and which it leaves to another one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mantik.delivery.ids import is_provisional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.delivery.ids import Identities
    from mantik.delivery.spool import Outgoing

__all__ = ["OpenRuns"]

_logger = logging.getLogger(__name__)


class OpenRuns:
    """The runs that a process has open; iterating gives their ids. Any thread may call.

    A run that began without the platform has two ids, and goes by any of them. That a run is open stands on disk too,
    so that a sync ends it should the process vanish.

    Args:
        outgoing: The process's folder.
        identities: What provisional ids stand for.
    """

    def __init__(self, outgoing: Outgoing, identities: Identities) -> None:
        self._outgoing = outgoing
        self._identities = identities
        self._open: dict[str, None] = {}
        self._handed_over: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        """Yield the ids under which runs were opened."""
        return iter(list(self._open))

    def add(self, run_id: str) -> None:
        """Take in a run, also one that was handed over."""
        self._handed_over.difference_update(self._names_of(run_id))
        self._open[run_id] = None
        try:
            self._outgoing.open_run(run_id)
        except OSError as error:
            _logger.debug("The run %s cannot be noted as open: %s", run_id, error)

    def close(self, run_id: str) -> set[str]:
        """Forget a run, and return the ids by which it went."""
        names = self._names_of(run_id)
        for known in names:
            self._open.pop(known, None)
            try:
                self._outgoing.close_run(known)
            except OSError as error:
                _logger.debug("The run %s cannot be noted as closed: %s", known, error)
        return names

    def hand_over(self, run_id: str) -> set[str]:
        """Leave a run to another process, and return the ids by which it goes."""
        names = self._names_of(run_id)
        self._handed_over |= names
        self.close(run_id)
        return names

    def is_handed_over(self, run_id: str) -> bool:
        """Tell whether a run was left to another process."""
        return bool(self._handed_over) and not self._handed_over.isdisjoint(self._names_of(run_id))

    def _names_of(self, run_id: str) -> set[str]:
        own = {known for known in (*self._open, *self._handed_over) if self._server_id(known) == run_id}
        return own | {run_id, self._server_id(run_id)}

    def _server_id(self, run_id: str) -> str:
        """Return the server's id of a run; the same one where it is that, or where there is none yet."""
        identity = self._identities.get(run_id) if is_provisional(run_id) else None
        return identity.server_id or run_id if identity is not None else run_id
