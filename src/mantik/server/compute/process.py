"""The dispatcher's process, beside the server: kept running by the command."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from mantik.server.group import ProcessGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_COMMAND: Final = (sys.executable, "-m", "mantik.server.compute.dispatcher")
_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 30.0
# Whoever ran this long did not end at its start.
_SETTLED_SECONDS: Final = 60.0


class DispatcherProcess:
    """Runs the dispatcher, and runs it again if it ends. The jobs are not its children and do not end with it."""

    def __init__(self, environment: Mapping[str, str], log: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Start it.

        Args:
            environment: All of its variables.
            log: The file that it appends its output to.
            clock: Tells the time in seconds.
        """
        self._environment = environment
        self._log = log
        self._clock = clock
        self._delay = _FIRST_DELAY
        self._ended_at: float | None = None
        self._start()

    def tend(self) -> None:
        """Start it again if it has ended; later each time, if it keeps ending. To be called again and again."""
        if self._group.is_running():
            return
        now = self._clock()
        if self._ended_at is None:
            self._ended_at = now
            # What is left of its group holds the lock that the next one needs.
            self._group.stop()
            self._delay = _FIRST_DELAY if now - self._started_at > _SETTLED_SECONDS else self._delay * 2
        elif now - self._ended_at >= min(self._delay, _LONGEST_DELAY):
            self._start()

    def stop(self) -> None:
        """Stop it. What it knows of jobs is on the disk."""
        if self._ended_at is None:
            self._group.stop()

    def _start(self) -> None:
        self._started_at = self._clock()
        self._ended_at = None
        self._group = ProcessGroup(_COMMAND, self._environment, self._log)
