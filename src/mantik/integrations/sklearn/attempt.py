"""Calls of code of others that nobody asked for: what comes of them, or nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["attempted"]

_logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


def attempted(work: Callable[[], _Result]) -> _Result | None:
    """Return what comes of code of others; None where it raises, which only those are told who debug.

    Warnings of numpy about numbers are not given, in this thread.
    """
    try:
        with np.errstate(all="ignore"):
            return work()
    except Exception:  # estimators raise whatever they like, and nobody asked for this call
        _logger.debug("A part of an evaluation is left out.", exc_info=True)
        return None
