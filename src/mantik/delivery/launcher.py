"""What the launcher that has started this process, ``torchrun``, has seen of the others that it started beside it."""

from __future__ import annotations

import os
from pathlib import Path

from mantik.settings import torchrun_workers

__all__ = ["has_lost_a_worker"]


def has_lost_a_worker() -> bool:
    """Tell whether ``torchrun`` has seen another process of this machine end.

    When one fails, it sends SIGTERM to the others, as it does when the job itself is ended by SIGTERM. In the first
    case it has collected the one that failed; in the second it waits for its processes in the order of their ranks,
    and so collects none before the first. Where the system does not name a process's children, which is everywhere but
    on Linux, and where this process was started by another one in between, the answer is no.
    """
    workers = torchrun_workers()
    if workers is None:
        return False
    parent = os.getppid()
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()
    except OSError:
        return False
    return str(os.getpid()) in children and len(children) < workers
