"""Waits for the end of a job."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mantik.compute.patience import Patience
from mantik.exceptions import JobTimeoutError, MantikError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mantik.compute.job import Job

__all__ = ["wait_for"]


def wait_for(job_id: str, look: Callable[[], Job], *, timeout: float | None, poll: float) -> Job:
    """Look at a job until it has ended, and sit out outages of the service.

    Args:
        job_id: The job, for messages.
        look: Asks for the job.
        timeout: Seconds to wait at most; None is as long as it takes.
        poll: Seconds between two looks.

    Returns:
        The job, which has ended.

    Raises:
        JobTimeoutError: It has not ended in time.
        MantikError: Looking failed in a way that does not pass.
    """
    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    patience, state = Patience(), ""
    while True:
        try:
            job = look()
        except MantikError as error:
            patience.bear(error)
        else:
            patience.over()
            if job.has_ended:
                return job
            state = f" ({job.state})"
        left = deadline - time.monotonic()
        if left <= 0:
            raise JobTimeoutError(f"Job {job_id} has not ended in {timeout:g} s{state}; it goes on.", job_id)
        time.sleep(min(poll, left))
