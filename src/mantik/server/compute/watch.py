"""What the dispatcher remembers of a job that is not over."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mantik.server.compute.executors import Observation

_LONGEST_PAUSE: Final = 10.0


@dataclass
class Watch:
    """One job. None of it is kept: the next dispatcher finds it out again. Times are those of ``time.monotonic``.

    Attributes:
        end: What was seen of its end, when nothing of it ran any more.
        is_begun: Whether its beginning was told.
        begin_at: When to tell it again.
        generation: Of which password the job's login is.
        cancel_at: When to ask for its end again.
        conclude_at: When to conclude it again.
        conclusions: How often that was tried.
        undelivered: How often its leftovers could not be delivered.
    """

    end: Observation | None = None
    is_begun: bool = False
    begin_at: float = 0.0
    generation: int | None = None
    cancel_at: float = 0.0
    conclude_at: float = 0.0
    conclusions: int = 0
    undelivered: int = 0

    def next_conclusion(self) -> None:
        """Count a try to conclude the job, and put off the next one: longer each time."""
        self.conclude_at = time.monotonic() + min(_LONGEST_PAUSE, 2.0 ** min(self.conclusions, 10) / 2)
        self.conclusions += 1
