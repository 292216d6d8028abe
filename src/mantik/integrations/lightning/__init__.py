"""`MantikLogger`, the logger for a Lightning Trainer."""

from __future__ import annotations

from mantik.integrations.lightning.events import TrainingEvents
from mantik.integrations.lightning.logger import MantikLogger
from mantik.integrations.lightning.namespace import register

__all__ = ["MantikLogger"]


def trainer_events() -> TrainingEvents:
    """Return the callback for a new Trainer, of whichever of Lightning's packages."""
    # The other package may have been imported since.
    register(MantikLogger)
    return TrainingEvents()
