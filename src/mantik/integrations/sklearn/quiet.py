"""A thread of ours that works while the user's go on: what MLflow and scikit-learn say there is not theirs to read."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["quiet_here"]


@contextlib.contextmanager
def quiet_here() -> Iterator[None]:
    """Drop the warnings of this thread, and what the loggers of MLflow say in it; other threads are not touched.

    `warnings.catch_warnings` would hush all threads, and undo what others of them have set meanwhile. This may be
    nested, and many threads may be in it at once; the last one leaves handlers, filters and `warnings.showwarning` as
    the first one found them.

    Another thread that leaves `warnings.catch_warnings` puts back what was there when it entered it. If that was before
    this block began, warnings of this thread are shown from then on, until it begins another block in this one.
    """
    here = threading.get_ident()
    with _lock:
        _depths[here] = _depths.get(here, 0) + 1
        _install()
    try:
        yield
    finally:
        with _lock:
            _depths[here] -= 1
            if not _depths[here]:
                del _depths[here]
            if not _depths:
                _uninstall()


_lock = threading.Lock()
_depths: dict[int, int] = {}
"""The threads that are quiet: how many blocks each of them is in."""


class _Records(logging.Filter):
    """Lets the records of MLflow through, unless they are written in a quiet thread."""

    def filter(self, record: logging.LogRecord) -> bool:
        return threading.get_ident() not in _depths or record.name.partition(".")[0] != "mlflow"


class _Messages(str):
    """Stands where a filter of warnings has a pattern, and matches whatever is said in a quiet thread.

    So a warning is ignored there also where the user has warnings raised as errors. scikit-learn hands the filters of a
    process to its workers; what these get of it is its text, a pattern that matches nothing.
    """

    __slots__ = ()

    def match(self, _: str) -> bool:
        return threading.get_ident() in _depths

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


_records = _Records()
_filter = ("ignore", _Messages("(?!)"), Warning, None, 0)
_handlers: list[logging.Handler] = []
_lists: list[list[object]] = []
"""Where the filters are."""
_show: Callable[..., None] = warnings.showwarning
"""What shows the warnings of the other threads."""


def _show_others(*warning: Any, **more: Any) -> None:  # noqa: ANN401  # as `warnings.showwarning` has them
    if threading.get_ident() not in _depths:
        _show(*warning, **more)


def _install() -> None:
    global _show
    loggers = [logging.getLogger()]
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if name.partition(".")[0] == "mlflow" and isinstance(logger, logging.Logger):
            loggers.append(logger)
    handlers = {handler for logger in loggers for handler in logger.handlers}
    if logging.lastResort is not None:
        handlers.add(logging.lastResort)
    for handler in handlers.difference(_handlers):
        handler.addFilter(_records)
        _handlers.append(handler)
    # In place: another thread in `catch_warnings` puts this very list back when it leaves.
    filters: list[object] = warnings.filters  # type: ignore[assignment]
    if _filter not in filters:
        filters.insert(0, _filter)
        _lists.append(filters)
    # Not all filters last: scikit-learn puts up others wherever it works in parallel.
    if warnings.showwarning is not _show_others:
        _show, warnings.showwarning = warnings.showwarning, _show_others


def _uninstall() -> None:
    for handler in _handlers:
        handler.removeFilter(_records)
    # Also from the copy that another thread in `catch_warnings` has now.
    now: list[object] = warnings.filters  # type: ignore[assignment]
    for filters in [*_lists, now]:
        with contextlib.suppress(ValueError):
            filters.remove(_filter)
    if warnings.showwarning is _show_others:
        warnings.showwarning = _show
    _handlers.clear()
    _lists.clear()
