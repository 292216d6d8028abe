"""Sits out an outage of the service while somebody waits for a job: the job goes on without it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from mantik.exceptions import ComputeBackendError, MantikError, PlatformUnreachableError, UnexpectedAnswerError

__all__ = ["POLL_SECONDS", "Patience"]

POLL_SECONDS = 2.0
"""How long somebody who waits for a job leaves the service alone between two looks."""

_logger = logging.getLogger(__name__)

_TOO_MANY_REQUESTS = 429


@dataclass(slots=True)
class Patience:
    """What somebody who asks again and again makes of errors.

    Attributes:
        is_waiting: Whether an outage is going on, and has been said.
    """

    is_waiting: bool = False

    def bear(self, error: MantikError) -> None:
        """Go on after an error that passes by itself; the first of them is a warning.

        Raises:
            MantikError: It does not pass.
        """
        if not _passes(error):
            raise error
        if not self.is_waiting:
            _logger.warning("%s Waiting until it is back; the job is not affected.", error)
        self.is_waiting = True

    def over(self) -> None:
        """Say that the service has answered again."""
        if self.is_waiting:
            _logger.warning("The compute backend answers again.")
        self.is_waiting = False


def _passes(error: MantikError) -> bool:
    if isinstance(error, PlatformUnreachableError):
        return True
    status = error.status if isinstance(error, ComputeBackendError | UnexpectedAnswerError) else 0
    return status >= 500 or status == _TOO_MANY_REQUESTS  # noqa: PLR2004  # the class of RFC 9110
