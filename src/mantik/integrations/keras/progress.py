"""What a callback keeps of a call of Keras while it is under way: moments and sizes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mantik.integrations.keras.rate import BatchRate

if TYPE_CHECKING:
    from mantik.integrations.keras.call import Call
    from mantik.integrations.keras.kinds import Model

__all__ = ["Progress"]


@dataclass(slots=True)
class Progress:
    """The progress of one ``fit``.

    Attributes:
        began: When it began, in seconds since 1970.
        batches: Batches of an epoch; None where that is not known.
        batch_size: Samples of a batch; None where that is not known.
        rows: Samples of the data; None where that is not known.
        together: How many batches Keras executes together.
        validates_always: Whether each epoch has the metrics that any has.
        logs: The metrics of the last epoch.
    """

    began: float
    batches: int | None
    batch_size: int | None
    rows: int | None
    together: int
    validates_always: bool
    logs: dict[str, Any] = field(default_factory=dict)
    _epoch_began: float = 0.0
    _test_began: float = 0.0
    _tested: float = 0.0
    _rate: BatchRate | None = None

    @classmethod
    def of(cls, model: Model, call: Call, steps: object) -> Progress:
        """Begin.

        Args:
            model: What is trained.
            call: The call.
            steps: What Keras says how many batches an epoch has.
        """
        batches = steps if isinstance(steps, int) else None
        together = int(getattr(model, "steps_per_execution", 1) or 1)
        validates_always = call.values.get("validation_freq", 1) == 1
        return cls(time.time(), batches, call.batch_size, call.rows, together, validates_always)

    def begin_epoch(self, model: Model) -> None:
        """Begin an epoch."""
        self._epoch_began, self._tested = time.perf_counter(), 0.0
        self._rate = BatchRate(model)

    def begin_test(self) -> None:
        """Begin to validate."""
        self._test_began = time.perf_counter()

    def end_test(self) -> float:
        """End to validate; return how many seconds it took."""
        took = time.perf_counter() - self._test_began
        self._tested += took
        return took

    def speed(self, batches: int) -> dict[str, float]:
        """Return how fast the epoch was: its time, and the samples that were trained on in a second.

        Args:
            batches: How many batches it had.
        """
        took = time.perf_counter() - self._epoch_began
        speed = {"epoch_time": took}
        if self.batch_size is not None and batches and took > self._tested:
            samples = batches * self.batch_size
            if self.rows is not None and 0 < samples - self.rows < self.batch_size:
                # The last batch is a smaller one.
                samples = self.rows
            speed["samples_per_second"] = samples / (took - self._tested)
        return speed

    def learning_rate(self, batch: int) -> float | None:
        """Return the learning rate of a batch, where a schedule changes it from one to the next."""
        return None if self._rate is None else self._rate.at(batch)
