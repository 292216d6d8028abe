"""What Slurm says of the job that this process is a part of."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mantik.settings import Job

__all__ = ["is_requeued"]

_RESTARTS = re.compile(r"\bRestarts=(\d+)")
_SECONDS = 10.0


def is_requeued(job: Job) -> bool | None:
    """Ask Slurm whether a job is to start again after this attempt; None where Slurm does not tell.

    Args:
        job: The job of this process.
    """
    command = ["scontrol", "--oneliner", "show", "job", job.job_id]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)  # noqa: S603  # no shell
    except (OSError, subprocess.SubprocessError):
        return None
    # Slurm counts the next attempt as soon as it has taken the request, while this one still runs.
    found = _RESTARTS.search(done.stdout)
    return int(found[1]) > job.restart if found is not None else None
