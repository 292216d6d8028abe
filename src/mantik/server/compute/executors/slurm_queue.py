"""What Slurm says of jobs, asked in the background: it may take long to answer, and nobody waits for it here."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from mantik.server.compute.errands import Errands
from mantik.server.compute.executors.slurm_commands import GONE, SlurmAwayError, SlurmJob

if TYPE_CHECKING:
    from mantik.server.compute.executors.slurm_commands import Slurm

_THREADS: Final = 2
_LISTING: Final = "listing"


class SlurmQueue:
    """The latest list of this account's jobs. It is fetched for all of them together, and while somebody looks.

    While Slurm does not answer, its last word on each job holds. Any thread may look, one at a time for each job.
    """

    def __init__(self, slurm: Slurm, pause: float) -> None:
        """Take whom to ask, and how many seconds to wait before asking again."""
        self._slurm = slurm
        self._pause = pause
        self._errands = Errands("slurm", _THREADS)
        self._tried_at = float("-inf")
        # The moment at which a list was asked for, with what it said.
        self._listing: tuple[float, dict[str, SlurmJob]] = (float("-inf"), {})
        self._looked_since: dict[str, float] = {}
        self._records: dict[str, tuple[float, SlurmJob]] = {}

    def look_up(self, number: str, name: str) -> SlurmJob | None:
        """Return what Slurm says of a job; None before it has said anything.

        Args:
            number: Slurm's id of the job.
            name: The job's name: after a new beginning Slurm gives numbers again.
        """
        now = time.monotonic()
        since = self._looked_since.setdefault(number, now)
        if now - self._tried_at >= self._pause and not self._errands.is_busy(_LISTING):
            self._errands.do(_LISTING, self._list)
        listed_at, jobs = self._listing
        job = jobs.get(number)
        if job is not None and job.name == name:
            return job
        # An older list may be from before the job.
        return self._record(number, name, now) if listed_at > since else None

    def forget(self, number: str) -> None:
        """Forget a job that is over."""
        self._looked_since.pop(number, None)
        self._records.pop(number, None)

    def _record(self, number: str, name: str, now: float) -> SlurmJob | None:
        """Return what was recorded of a job that the controller has forgotten; records may be late."""
        asked_at, job = self._records.get(number, (float("-inf"), None))
        is_final = job is not None and job.state != GONE
        if not is_final and now - asked_at >= self._pause and not self._errands.is_busy(number):
            self._errands.do(number, partial(self._ask_for_record, number, name))
        return job

    def _list(self) -> None:
        self._tried_at = time.monotonic()
        with contextlib.suppress(SlurmAwayError):
            self._listing = (self._tried_at, self._slurm.jobs())

    def _ask_for_record(self, number: str, name: str) -> None:
        job = self._slurm.record(number, name) or SlurmJob(number, name, GONE)
        self._records[number] = (time.monotonic(), job)
