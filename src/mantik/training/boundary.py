"""The one place where what goes wrong beside a training is kept from ending it."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["extra"]

_logger = logging.getLogger(__name__)

_MOST_CHARACTERS = 500


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
        _logger.warning("%s: %s%s", what, type(error).__name__, f": {reason}" if reason else "")
