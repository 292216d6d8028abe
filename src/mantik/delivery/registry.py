"""Which outbox a process has for a tracking URI, and what becomes of all of them in a fork and at the end."""

from __future__ import annotations

import logging
import os
import sys
import threading

from mantik.delivery.disabled import DisabledOutbox
from mantik.delivery.outbox import Outbox
from mantik.settings import Settings

__all__ = ["all_outboxes", "choose_again", "forget", "outbox_for"]

_logger = logging.getLogger(__name__)

_outboxes: dict[tuple[str, str | None, str, str], Outbox] = {}
_choices: dict[str, Outbox | None] = {}
_lock = threading.Lock()


def outbox_for(uri: str) -> Outbox | None:
    """Return this process's outbox for a tracking URI; None where nothing is to be recorded for it.

    That is so where another platform is claimed, or none, and where the spool cannot be written: a training that cannot
    be made durable is tracked as stock MLflow does it.
    """
    # The hot path: one look-up. What it says changes only with init_tracking() and with a fork.
    try:
        return _choices[uri]
    except KeyError:
        with _lock:
            return _choices.setdefault(uri, _choose(uri))


def choose_again() -> None:
    """Look at the settings again at the next write: who tracks where may have changed."""
    _choices.clear()


def all_outboxes() -> list[Outbox]:
    """Return the outboxes of this process."""
    return list(_outboxes.values())


def forget(outbox: Outbox) -> None:
    """Let what is written from now on go into a new folder: this one is being closed."""
    for key in [key for key, known in _outboxes.items() if known is outbox]:
        del _outboxes[key]
    _choices.clear()


def _choose(uri: str) -> Outbox | None:
    settings = Settings.from_environment().for_claim()
    if settings.claim is None or settings.claim != uri.rstrip("/"):
        return None
    key = (settings.claim, settings.username, str(settings.spool), settings.mode)
    outbox = _outboxes.get(key)
    if outbox is None:
        try:
            if settings.mode == "disabled":
                outbox = DisabledOutbox(settings.claim, settings.spool)
            else:
                outbox = Outbox(settings, settings.claim)
        except OSError as error:
            if settings.strict:
                raise
            _logger.warning(
                "Nothing can be kept in %s (%s): calls of mlflow wait for the platform, and an outage is not bridged. "
                "Set MANTIK_SPOOL to a folder of yours that can be written.",
                settings.spool,
                error.strerror,
            )
            return None
        _outboxes[key] = outbox
        _close_with_the_worker_process()
    return outbox


def _close_with_the_worker_process() -> None:
    """Deliver at the end of a process of `multiprocessing`, which ends without the handlers of `atexit`."""
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None:
        return
    from multiprocessing.util import Finalize

    def close() -> None:
        from mantik.delivery.ending import close_worker

        close_worker()

    # A priority at all is what makes it run at the end.
    Finalize(None, close, exitpriority=0)


def _leave_to_the_parent() -> None:
    """Forget, in a forked child, what belongs to the parent: its journal, its thread, its locks."""
    global _lock  # noqa: PLW0603  # the thread that may hold the old one does not exist here
    _lock = threading.Lock()
    _outboxes.clear()
    _choices.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
