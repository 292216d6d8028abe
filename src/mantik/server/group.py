"""Processes that live no longer than the command that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LIFELINE: Final = 0
"""The descriptor that a process of a group finds its lifeline at: its standard input."""

_STOP_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05


class ProcessGroup:
    """A running process and its children, as one process group in a session of its own.

    Their standard input is a pipe that nobody writes to: they see its end when this process ends, in whatever way, and
    stop; see `mantik.server.lifeline`.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Start the process.

        Args:
            command: A program of ours and its arguments.
            environment: All of its variables.
            log: The file that it appends its output to.
        """
        lifeline, self._our_end = os.pipe()
        try:
            with log.open("ab") as output:
                self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and a list of arguments
                    command,
                    stdin=lifeline,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                    umask=0o077,
                )
        finally:
            os.close(lifeline)

    def is_running(self) -> bool:
        """Tell whether the first process has not ended."""
        return self._popen.poll() is None

    def stop(self) -> None:
        """Stop every process of the group, gently and then firmly. Returns when none is left."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while self._is_alive() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        self._signal(signal.SIGKILL)
        self._popen.wait()
        os.close(self._our_end)

    def _is_alive(self) -> bool:
        self._popen.poll()
        return self._signal(0)

    def _signal(self, number: int) -> bool:
        try:
            os.killpg(self._popen.pid, number)
        except (ProcessLookupError, PermissionError):
            # macOS reports a group of which only zombies are left as one that may not be signalled.
            return False
        return True
