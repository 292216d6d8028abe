"""How a process ends: true statuses of its runs, delivery of what is left, and the receipt."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mantik.delivery import aside
from mantik.delivery.launcher import has_lost_a_worker
from mantik.delivery.receipt import receipt_of
from mantik.delivery.records import RunUpdate
from mantik.delivery.registry import all_outboxes, forget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

    from mantik.delivery.outbox import Outbox
    from mantik.delivery.receipt import Receipt

__all__ = ["begin_end", "close_all", "close_worker", "true_status", "undisturbed", "watch"]

_logger = logging.getLogger(__name__)

_ASIDE_SECONDS = 300.0
"""How long the end of a process waits for work beside the training that is not on disk yet."""

_SIGNAL_SECONDS = 5.0
"""How long SIGTERM waits for delivery: batch systems kill some 30 seconds after it."""


@dataclass(slots=True)
class _Reason:
    """Why this process ends, as far as it is known. A forked child begins anew."""

    uncaught: type[BaseException] | None = None
    # What SIGTERM has made of the runs.
    signalled: str | None = None
    at_exit: bool = False
    watching: bool = False
    # What the parent of a fork was dealing with at that moment.
    inherited: BaseException | None = None


_reason = _Reason()


def true_status(status: str | None) -> str | None:
    """Return what a run's status should be, where MLflow does not know how the run ends.

    MLflow calls a run FINISHED that is open when a script dies of an exception, and FAILED one that Ctrl-C or a signal
    ended. KILLED is what a signal makes of it, unless a launcher sent that one because another process had failed.

    Args:
        status: What MLflow says.
    """
    if status not in {"FINISHED", "FAILED", "KILLED"} or (status == "FINISHED" and not _reason.at_exit):
        # The last: somebody ended it on purpose.
        return status
    if _reason.signalled is not None:
        return _reason.signalled
    if status == "FINISHED":
        status = "FAILED" if _reason.uncaught is not None else "FINISHED"
        return "KILLED" if _is_interrupt(_reason.uncaught) else status
    handled = sys.exc_info()[1]
    if status == "KILLED" or isinstance(handled, KeyboardInterrupt) or _is_interrupt(_reason.uncaught):
        return "KILLED"
    # To leave a `with` block by sys.exit() or sys.exit(0) is no failure.
    return "FINISHED" if isinstance(handled, SystemExit) and not handled.code else "FAILED"


def watch() -> None:
    """Begin to notice how this process ends, from the first run on.

    Nothing is swallowed: hooks and handlers that were there are called, and the default action is taken where there was
    none. A signal that is ignored stays ignored.
    """
    if _reason.watching:
        return
    _reason.watching = True
    _watch_exceptions()
    # Handlers run in reverse: this one comes before MLflow's, which ends what is still open.
    atexit.register(begin_end)
    if threading.current_thread() is threading.main_thread():
        with contextlib.suppress(ValueError):
            # ValueError: not the main interpreter.
            previous = signal.getsignal(signal.SIGTERM)
            if previous is signal.SIG_DFL or callable(previous):
                signal.signal(signal.SIGTERM, _on_sigterm(previous))


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put SIGTERM off while something is recorded that its handlers would leave half done.

    A handler may raise: Lightning's does so once another rank is gone, which is when a launcher sends SIGTERM.
    """
    previous = signal.getsignal(signal.SIGTERM)
    if not callable(previous) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        if came:
            os.kill(os.getpid(), signal.SIGTERM)


def begin_end() -> None:
    """Say that the process is at its end: what MLflow ends from now on was left open."""
    _reason.at_exit = True


def close_all(flush: Callable[[Outbox, float], bool] | None = None) -> None:
    """Finish what is done beside the training, deliver what is left, and print the receipts.

    Delivery gets `MANTIK_EXIT_TIMEOUT` for all together.

    For the end of the process; what is written later goes into new folders.

    Args:
        flush: Waits for an outbox's delivery for a time in seconds, perhaps showing how it goes.
    """
    aside.close(_ASIDE_SECONDS if _reason.signalled is None else _SIGNAL_SECONDS)
    deadline: float | None = None
    # Twice, because another thread may have logged, into a new folder, while the first ones were closed.
    for outbox in (one for _ in range(2) for one in all_outboxes()):
        if deadline is None:
            # Also after a signal that somebody else has handled, as Lightning does.
            most = _SIGNAL_SECONDS if _reason.signalled is not None else outbox.exit_timeout
            deadline = time.monotonic() + min(most, outbox.exit_timeout)
        _close(outbox, max(0.0, deadline - time.monotonic()), flush)


def close_worker() -> None:
    """Deliver what is left in a process of `multiprocessing`, and end its runs if an error ends it.

    To be called where `multiprocessing` finalizes: what ends the process is still being handled there. No hook for
    uncaught exceptions hears of it, and nobody ends the runs of a process that was forked.
    """
    error = sys.exc_info()[1]
    is_exit = isinstance(error, SystemExit) and not error.code
    if error is not None and error is not _reason.inherited and not is_exit:
        _reason.uncaught = type(error)
        _end_runs(true_status("FAILED") or "FAILED")
    close_all()


def _close(outbox: Outbox, timeout: float, flush: Callable[[Outbox, float], bool] | None) -> None:
    started = time.monotonic()
    try:
        if outbox.ships and timeout > 0 and flush is not None:
            flush(outbox, timeout)
        # First, so that nobody writes into a journal that is closed.
        forget(outbox)
        outbox.close(max(0.0, timeout - (time.monotonic() - started)) if outbox.ships else 0.0)
    except KeyboardInterrupt:
        # Whoever does not want to wait loses nothing: it waits on disk.
        forget(outbox)
        outbox.close(0.0)
    if not outbox.is_quiet:
        _print(outbox)


def _print(outbox: Outbox) -> None:
    try:
        receipt = receipt_of(outbox)
    except OSError as error:
        _logger.warning("The spool in %s cannot be read (%s).", outbox.spool, error.strerror)
        return
    say(receipt)


def say(receipt: Receipt) -> None:
    """Print a receipt where warnings go, so that what a script prints stays its own."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        # ValueError: the stream is closed already. RuntimeError: a signal came in the middle of another print.
        sys.stderr.write(f"{receipt}\n")
        sys.stderr.flush()


def _watch_exceptions() -> None:
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _reason.uncaught = kind
        previous(kind, error, trace)

    sys.excepthook = hook


def _on_sigterm(previous: Any) -> Callable[[int, FrameType | None], None]:  # noqa: ANN401  # signal's own type
    def handler(number: int, frame: FrameType | None) -> None:
        _reason.signalled = _reason.signalled or ("FAILED" if has_lost_a_worker() else "KILLED")
        _end_runs(_reason.signalled)
        if signal.getsignal(signal.SIGTERM) is not handler:
            # Somebody else took the signal and passes it on: how the process ends is theirs to say.
            return
        if callable(previous):
            previous(number, frame)
            return
        for outbox in all_outboxes():
            outbox.close(min(_SIGNAL_SECONDS, outbox.exit_timeout), give_up_when_down=True)
            if not outbox.is_quiet:
                _print(outbox)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    return handler


def _end_runs(status: str) -> None:
    """Put the end of the runs that this process has open on disk."""
    now = int(time.time() * 1000)
    for outbox in all_outboxes():
        for run_id in outbox.open_runs:
            # Strict tracking raises what cannot be recorded, and a signal handler is no place for that.
            with contextlib.suppress(OSError, ValueError):
                outbox.record_update(RunUpdate(run_id, status, now, None))


def _is_interrupt(kind: type[BaseException] | None) -> bool:
    return kind is not None and issubclass(kind, KeyboardInterrupt)


def _begin_anew() -> None:
    """Forget, in a forked child, what happened to its parent."""
    _reason.uncaught, _reason.signalled, _reason.at_exit = None, None, False
    _reason.inherited = sys.exc_info()[1]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
