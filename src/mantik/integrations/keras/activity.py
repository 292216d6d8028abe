"""A call of Keras from its beginning to its end, or to the moment at which it is lost.

Keras calls no hook when ``fit`` raises. What remains is to notice that its frame is gone without an end.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Literal

from mantik.integrations.keras.call import is_under_way
from mantik.training.status import status_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from mantik.integrations.keras.call import Call
    from mantik.integrations.keras.kinds import Callback

__all__ = ["Activity", "Kind"]

Kind = Literal["fit", "evaluate", "predict"]


class Activity:
    """One call of ``fit``, ``evaluate`` or ``predict`` that is under way.

    Promises: if it does not end, `lost` is called once, in the thread that began it, with ``FAILED`` or ``KILLED``:
    when the exception that ended it has been dealt with, at the end of a notebook's cell, or at that of the process.
    Where Keras's list of callbacks is not known, in a loop of the user's own, only the latter two are noticed.

    Args:
        kind: Which call.
        call: What is known of it. Its ``CallbackList`` lives as long as the call.
        lost: Takes the status.
    """

    def __init__(self, kind: Kind, call: Call, lost: Callable[[str], None]) -> None:
        self.kind = kind
        callback_list = call.callback_list
        self._is_loop = not call.values
        self._list = None if callback_list is None else weakref.ref(callback_list)
        self._lost = lost
        self._thread = os.getpid(), threading.get_ident()
        self._interrupts = _interrupts.seen
        self._finalizer: weakref.finalize[..., Any] | None = None
        if callback_list is not None:
            self._finalizer = weakref.finalize(callback_list, self._vanish)
            # The statuses of runs at the end of the process are told before, by `_lose_all`.
            self._finalizer.atexit = False
        _begin(self)

    @property
    def is_under_way(self) -> bool:
        """Whether this is asked from within the call; taken for true where the call is a loop of the user's own."""
        if self._is_loop:
            return True
        held = self._list() if self._list is not None else None
        return held is not None and is_under_way(held)

    def has(self, callback_list: Callback | None) -> bool:
        """Tell whether a ``CallbackList`` is that of the call; None stands for hooks that are called by hand."""
        return callback_list is (None if self._list is None else self._list())

    def end(self) -> None:
        """End as Keras says it."""
        if self._finalizer is not None:
            self._finalizer.detach()
        _end(self)

    def lose(self, status: str | None = None) -> None:
        """End without a word of Keras.

        Args:
            status: How; None: ``KILLED`` after a Ctrl-C, else ``FAILED``.
        """
        self.end()
        if self._thread[0] != os.getpid():
            # A child that was forked in the middle of it: its parent goes on.
            return
        self._lost(status or ("KILLED" if _interrupts.seen > self._interrupts else "FAILED"))

    def _vanish(self) -> None:
        # Keras's own threads may be the last to hold its list. MLflow's active run belongs to the thread that began it,
        # so it is ended by that, when it comes to it.
        if (os.getpid(), threading.get_ident()) == self._thread:
            self.lose()


class _Interrupts:
    """Counts Ctrl-C while something is under way: whether an exception was one cannot be told any more afterwards."""

    def __init__(self) -> None:
        self.seen = 0
        self._previous: Any = None

    def watch(self) -> None:
        """Count from now on, beside what the handler that is there does."""
        previous = signal.getsignal(signal.SIGINT)
        if callable(previous) and previous != self._note:
            with contextlib.suppress(ValueError):
                # ValueError: not the main thread.
                signal.signal(signal.SIGINT, self._note)
                self._previous = previous

    def forget(self) -> None:
        """Put back the handler that was there, unless somebody has set another one."""
        if self._previous is not None and signal.getsignal(signal.SIGINT) == self._note:
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGINT, self._previous)
                self._previous = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen += 1
        self._previous(number, frame)


_interrupts = _Interrupts()
_under_way: list[Activity] = []
_registered: set[str] = set()


def _begin(activity: Activity) -> None:
    if not _under_way:
        _interrupts.watch()
    _under_way.append(activity)
    if "atexit" not in _registered:
        _registered.add("atexit")
        # Handlers run in reverse: this comes before MLflow's, which calls everything FINISHED.
        atexit.register(_lose_all)
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and "shell" not in _registered:
        _registered.add("shell")
        shell.events.register("post_run_cell", _end_cell)


def _end(activity: Activity) -> None:
    if activity in _under_way:
        _under_way.remove(activity)
    if not _under_way:
        _interrupts.forget()


def _lose_all(status: str | None = None) -> None:
    while _under_way:
        _under_way[-1].lose(status)


def _end_cell(result: object) -> None:
    """Take note of a cell's end: an exception that a notebook shows stays alive, and the call's frame with it."""
    error = getattr(result, "error_in_exec", None)
    if error is not None:
        _lose_all(status_of(error))
