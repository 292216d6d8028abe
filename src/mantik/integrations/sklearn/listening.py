"""Which calls are the user's own: not those that an estimator makes inside of another call, here or in its workers."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["caller", "is_a_call_running", "is_outermost", "silence"]

_OURS = ("mantik.integrations.sklearn.", "sklearn.", "joblib.", "xgboost.", "lightgbm.", "imblearn.")
"""Modules whose calls are none of the user's."""


class _Depth(threading.local):
    """How many calls this thread is in."""

    value = 0


_depth = _Depth()
_running: dict[int, bool] = {}
"""The threads in a call of the user's, and whether each is one of joblib's, started by the user then."""


def is_outermost() -> bool:
    """Tell whether a call that is made here and now is the user's own."""
    return not _depth.value and not (any(not joined for joined in list(_running.values())) and _is_worker())


def is_a_call_running() -> bool:
    """Tell whether any thread is in a call of the user's."""
    return bool(_running)


@contextlib.contextmanager
def silence(*, running: bool = True) -> Iterator[None]:
    """Let no call that is made inside, in this thread or in its workers, be taken for the user's.

    Args:
        running: Whether it is the user who waits for what is done inside.
    """
    _depth.value += 1
    me = threading.get_ident()
    first = running and me not in _running
    if first:
        _running[me] = _is_worker()
    try:
        yield
    finally:
        _depth.value -= 1
        if first:
            _running.pop(me, None)


def caller() -> FrameType | None:
    """Return the frame of the user's code that the present call comes from."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # there is no other way up without building a whole stack
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        frame = frame.f_back
    return frame


def _is_worker() -> bool:
    """Tell whether this thread is one of joblib's."""
    if threading.current_thread() is threading.main_thread():
        return False
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("joblib."):
            return True
        frame = frame.f_back
    return False


def _begin_anew() -> None:
    """Keep, in a forked child, that the thread that forked it is in a call; the others are not there."""
    me = threading.get_ident()
    for other in [other for other in _running if other != me]:
        del _running[other]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
