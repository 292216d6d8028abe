"""The steps of a run: epochs and batches that go on over a second ``fit`` and over a resume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = ["Axis", "Mark"]


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a run is.

    Attributes:
        epoch: Its last epoch; -1 before the first.
        batch: The next batch.
    """

    epoch: int = -1
    batch: int = 0

    @classmethod
    def of(cls, run: Run, epoch_metric: str, batch_front: str) -> Mark:
        """Read from a run's metrics how far it is.

        Args:
            run: The run.
            epoch_metric: A metric that every epoch has.
            batch_front: What the names of the metrics of batches begin with.
        """
        steps = {metric.key: metric.step for metric in run.data.to_proto().metrics}
        batches = [step for name, step in steps.items() if name.startswith(batch_front)]
        return cls(steps.get(epoch_metric, -1), max(batches, default=-1) + 1)


class Axis:
    """Translates the epochs and batches that Keras counts into the steps of the run.

    Keras's numbers are kept where it goes on by itself: with ``initial_epoch`` and with ``BackupAndRestore``. Where it
    begins at 0 again though the run has epochs already, those that follow are numbered from the next one.

    Args:
        initial_global_step: The step of the first batch; None: found out.
    """

    def __init__(self, initial_global_step: int | None) -> None:
        self._initial = initial_global_step
        self._mark = Mark()
        self._offset = 0
        self._base: int | None = None
        self._batches = 0
        self._most: int | None = None
        self._is_new = True
        self._current = -1

    @property
    def mark(self) -> Mark:
        """How far the run is."""
        base = self._mark.batch if self._base is None else self._base + self._batches
        return Mark(self._mark.epoch, base)

    @property
    def last_epoch(self) -> int:
        """Step of the epoch that is under way, or else of the last one; 0 before the first."""
        return max(self._mark.epoch, self._current, 0)

    def go_on_from(self, mark: Mark) -> None:
        """Begin where the run is already."""
        if mark.epoch > self._mark.epoch or self._base is None:
            self._mark = mark

    def begin_fit(self) -> None:
        """Expect an epoch with any number."""
        self._is_new = True

    def begin_epoch(self, epoch: int, batches: int | None) -> None:
        """Begin an epoch.

        Args:
            epoch: Keras's number of it.
            batches: How many batches an epoch has, where that is known.
        """
        if self._is_new and epoch == 0 and self._mark.epoch >= 0:
            self._offset = self._mark.epoch + 1
        self._is_new = False
        self._current = self.epoch(epoch)
        if self._base is not None:
            self._base += self._batches
        elif self._initial is not None:
            self._base = self._initial
        elif epoch > 0 and batches is not None:
            self._base = epoch * batches
        else:
            self._base = self._mark.batch
        self._batches = 0
        self._most = batches

    def begin_batch(self, batch: int, size: int) -> None:
        """Count a batch, or several that Keras executes together, of which there are fewer at the end of an epoch."""
        self._batches = batch + size if self._most is None else min(batch + size, self._most)

    def end_epoch(self, epoch: int) -> None:
        """End an epoch, by Keras's number."""
        self._mark = Mark(self.epoch(epoch), self._mark.batch)
        self._current = -1

    def epoch(self, epoch: int) -> int:
        """Return the step of an epoch."""
        return epoch + self._offset

    @property
    def batches(self) -> int:
        """How many batches of the epoch have been begun."""
        return self._batches

    def batch(self, batch: int) -> int:
        """Return the step of a batch of the epoch that is under way."""
        return (self._base or 0) + (batch if self._most is None else min(batch, self._most - 1))

    def due(self, batch: int, size: int, every: int) -> int | None:
        """Return the step of a batch if one of those that Keras has executed together is due, else None.

        Args:
            batch: The last one of them.
            size: How many there are.
            every: Each so many one is due, from the first one on.
        """
        step = self.batch(batch)
        first = (self._base or 0) + batch - size + 1
        return step if step - step % every >= first else None
