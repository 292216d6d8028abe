"""The line on the console that says where a run is to be seen."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import mlflow

from mantik.delivery.registry import outbox_for

if TYPE_CHECKING:
    from mantik.training.run import TrackedRun

__all__ = ["announce"]


def announce(run: TrackedRun) -> None:
    """Tell the user where a run that was opened is to be seen; nothing where tracking is disabled."""
    outbox = outbox_for(mlflow.get_tracking_uri())
    if outbox is not None and outbox.is_disabled:
        return
    name = f"run {run.name!r}" if run.name else f"run {run.run_id}"
    what = f"goes on (attempt {run.attempt})" if run.attempt > 1 else "begins"
    later = ", without the platform for now: it is sent later" if outbox is not None else ""
    where = f": {run.link}" if run.link else later
    with contextlib.suppress(OSError, ValueError):
        # ValueError: the stream is closed.
        sys.stderr.write(f"mantik: {name} {what}{where}\n")
        sys.stderr.flush()
