"""Work that is done beside a training for one of its runs: whoever reads the run waits for it, and so does the end."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Aside", "close", "join", "run_ended", "wait_for"]

_READ_SECONDS = 60.0
"""How long a reader waits for what is still to be written of a run."""


class Aside(Protocol):
    """Somebody who writes to runs after the training has gone on. Any thread may call."""

    def wait_for(self, run_id: str | None, timeout: float) -> bool:
        """Wait until a run has what it is to get, or all have; tell whether that is so. Its own thread never waits."""

    def run_ended(self, run_id: str) -> None:
        """Hear that a run was ended."""

    def close(self, timeout: float) -> bool:
        """Do what is left at the end of the process; tell whether it is done."""


_known: list[Aside] = []


def join(aside: Aside) -> None:
    """Have readers wait for somebody from now on."""
    if aside not in _known:
        _known.append(aside)


def wait_for(run_id: str | None = None, timeout: float = _READ_SECONDS) -> bool:
    """Wait until what is written beside the training is written; tell whether it is.

    Args:
        run_id: Of which run; None is of all.
        timeout: Seconds to wait at most.
    """
    return all(aside.wait_for(run_id, timeout) for aside in _known)


def run_ended(run_id: str) -> None:
    """Tell that a run was ended."""
    for aside in _known:
        aside.run_ended(run_id)


def close(timeout: float) -> None:
    """Do what is left at the end of the process.

    Args:
        timeout: Seconds to wait at most, for each.
    """
    for aside in _known:
        aside.close(timeout)
