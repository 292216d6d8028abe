"""A call of Keras from its beginning to its end, or to the moment at which it is lost.

Keras calls no hook when ``fit`` raises. What remains is to notice that its frame is gone without an end.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
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
    Where Keras's list of callbacks is not known, in a loop of the user's own, only the latter two are noticed. Where
    SIGTERM comes meanwhile, `save` is called before whoever deals with it, who may end the process there and then.

    Args:
        kind: Which call.
        call: What is known of it. Its ``CallbackList`` lives as long as the call.
        lost: Takes the status.
        save: Records what waits, whatever the main thread was doing; None where nothing does.
    """

    def __init__(
        self, kind: Kind, call: Call, lost: Callable[[str], None], save: Callable[[], None] | None = None
    ) -> None:
        self.kind = kind
        self.save = save
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


class _Handler:
    """A handler of a signal that is there for a while, before the one that was there."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number
        self._own: Any = None
        self._previous: Any = None

    @property
    def is_in_place(self) -> bool:
        """Whether it is the one that the signal comes to."""
        return self._own is not None and signal.getsignal(self._number) is self._own

    def watch(self) -> None:
        """Begin, unless the signal is ignored or not Python's to handle."""
        previous = signal.getsignal(self._number)
        if not self.is_in_place and self._handles(previous):
            # A new one each time: whoever has set a handler of his own meanwhile may pass signals on to the old one.
            own = functools.partial(self._handle, previous)
            with contextlib.suppress(ValueError):
                # ValueError: not the main thread.
                signal.signal(self._number, own)
                self._own, self._previous = own, previous

    def forget(self) -> None:
        """Put back the handler that was there, unless somebody has set another one."""
        if self.is_in_place:
            with contextlib.suppress(ValueError):
                signal.signal(self._number, self._previous)
                self._own = self._previous = None

    def _handles(self, previous: object) -> bool:
        return callable(previous)

    def _handle(self, previous: Any, number: int, frame: FrameType | None) -> None:  # noqa: ANN401  # signal's own type
        raise NotImplementedError


class _Interrupts(_Handler):
    """Counts Ctrl-C while something is under way: whether an exception was one cannot be told any more afterwards."""

    def __init__(self) -> None:
        super().__init__(signal.SIGINT)
        self.seen = 0

    def _handle(self, previous: Any, number: int, frame: FrameType | None) -> None:  # noqa: ANN401
        self.seen += 1
        previous(number, frame)


class _Terminations(_Handler):
    """Has recorded what waits before SIGTERM ends the process."""

    def __init__(self) -> None:
        super().__init__(signal.SIGTERM)

    def _handles(self, previous: object) -> bool:
        return callable(previous) or previous is signal.SIG_DFL

    def _handle(self, previous: Any, number: int, frame: FrameType | None) -> None:  # noqa: ANN401
        for activity in tuple(_under_way):
            if activity.save is not None:
                activity.save()
        was_in_place = self.is_in_place
        # As if this had never been there: the handler of a run asks whether it is the one in place.
        self.forget()
        if callable(previous):
            previous(number, frame)
        elif was_in_place:
            os.kill(os.getpid(), number)
        if was_in_place and any(activity.save is not None for activity in _under_way):
            self.watch()


_interrupts = _Interrupts()
_terminations = _Terminations()
_under_way: list[Activity] = []
_registered: set[str] = set()


def _begin(activity: Activity) -> None:
    if not _under_way:
        _interrupts.watch()
    if activity.save is not None:
        _terminations.watch()
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
        _terminations.forget()


def _lose_all(status: str | None = None) -> None:
    while _under_way:
        _under_way[-1].lose(status)


def _end_cell(result: object) -> None:
    """Take note of a cell's end: an exception that a notebook shows stays alive, and the call's frame with it."""
    error = getattr(result, "error_in_exec", None)
    if error is not None:
        _lose_all(status_of(error))
