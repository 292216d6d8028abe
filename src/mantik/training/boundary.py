"""The one place where what goes wrong beside a training is kept from ending it."""

from __future__ import annotations

import contextlib
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["extra", "hushed"]

_logger = logging.getLogger(__name__)

_MOST_CHARACTERS = 500

_is_hushed: ContextVar[bool] = ContextVar("mantik_is_hushed", default=False)


@contextlib.contextmanager
def extra(what: str, *, strict: bool) -> Iterator[None]:
    """Guard something that a training can do without and that runs code of others: a model's, a dataset's, a picture's.

    Args:
        what: What there is not where it fails, as the beginning of a sentence, e.g. ``The model is not logged``.
        strict: Raise instead of warning.
    """
    try:
        yield
    except Exception as error:
        if strict:
            raise
        reason = " ".join(str(error).split())[:_MOST_CHARACTERS]
        level = logging.DEBUG if _is_hushed.get() else logging.WARNING
        _logger.log(level, "%s: %s%s", what, type(error).__name__, f": {reason}" if reason else "")


@contextlib.contextmanager
def hushed(*, hush: bool = True) -> Iterator[None]:
    """Let `extra` warn of nothing inside: for users who asked for silence.

    Args:
        hush: Whether they did.
    """
    token = _is_hushed.set(hush or _is_hushed.get())
    try:
        yield
    finally:
        _is_hushed.reset(token)
