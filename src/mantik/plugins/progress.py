"""What a person sees while a process waits for delivery at its end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from mantik.delivery.receipt import receipt_of

if TYPE_CHECKING:
    from mantik.delivery.outbox import Outbox

__all__ = ["flush_visibly"]

_QUIET_SECONDS = 1.0
"""Whoever is done so soon needs no bar."""


def flush_visibly(outbox: Outbox, timeout: float) -> bool:
    """Wait for delivery: with a progress bar on a terminal, with one line elsewhere.

    Args:
        outbox: Whose.
        timeout: Seconds to wait at most.

    Returns:
        Whether everything is on the platform.

    Raises:
        KeyboardInterrupt: The user does not want to wait.
    """
    if outbox.flush(min(_QUIET_SECONDS, timeout)):
        return True
    left = timeout - _QUIET_SECONDS
    if left <= 0:
        return False
    if sys.stderr.isatty():
        return _with_a_bar(outbox, left)
    sys.stderr.write(
        f"mantik: waiting up to {left:.0f} s for {outbox.uri} to take {_waiting(outbox):,} records. "
        f"Ctrl-C skips this and loses nothing.\n"
    )
    sys.stderr.flush()
    return outbox.flush(left)


def _with_a_bar(outbox: Outbox, seconds: float) -> bool:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    total = _waiting(outbox)
    deadline = time.monotonic() + seconds
    columns = (
        TextColumn("mantik: {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("records,"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("(Ctrl-C skips this and loses nothing)"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("sending", total=total)
        while True:
            step = min(0.2, deadline - time.monotonic())
            if step <= 0:
                return False
            if outbox.flush(step):
                return True
            problem = outbox.problem
            description = f"the platform does not take records ({problem})" if problem else "sending"
            progress.update(task, completed=max(0, total - _waiting(outbox)), description=description)


def _waiting(outbox: Outbox) -> int:
    receipt = receipt_of(outbox)
    return sum(run.waiting.total for run in receipt.runs) + receipt.others.waiting.total
