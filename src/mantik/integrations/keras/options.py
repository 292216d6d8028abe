"""What a `MantikCallback` can be asked for, checked before anything begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mantik.exceptions import ConfigurationError

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """What is recorded, beside the run itself. The attributes are the arguments of `MantikCallback`."""

    log_freq: Literal["epoch", "batch"] | int
    initial_global_step: int | None
    log_params: bool
    log_model: Literal[False, True, "best"]
    registered_model_name: str | None
    log_datasets: bool
    log_evaluation: bool
    monitor: str | None
    mode: Literal["auto", "min", "max"]
    save_best_only: bool
    save_weights_only: bool
    save_freq: Literal["epoch", "callbacks"] | int | None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ConfigurationError: A value is none of those possible, or two contradict each other.
        """
        if self.log_freq not in {"epoch", "batch"} and not _is_count(self.log_freq):
            raise ConfigurationError(
                f"log_freq is {self.log_freq!r}, which is none of: 'epoch', 'batch', or a number of batches from 1 on."
            )
        if self.initial_global_step is not None and not _is_count(self.initial_global_step, least=0):
            raise ConfigurationError(
                f"initial_global_step is {self.initial_global_step!r}, which is no whole number from 0 on."
            )
        if not (isinstance(self.log_model, bool) or self.log_model == "best"):
            raise ConfigurationError(f"log_model is {self.log_model!r}, which is none of: False, True, 'best'.")
        if self.registered_model_name is not None and not self.log_model:
            raise ConfigurationError(
                f"registered_model_name is {self.registered_model_name!r}, but no model is logged: give log_model=True "
                f"or 'best' besides."
            )
        if self.mode not in {"auto", "min", "max"}:
            raise ConfigurationError(f"mode is {self.mode!r}, which is none of: 'auto', 'min', 'max'.")
        if self.save_freq not in {None, "epoch", "callbacks"} and not _is_count(self.save_freq):
            raise ConfigurationError(
                f"save_freq is {self.save_freq!r}, which is none of: 'epoch', a number of batches from 1 on, "
                f"'callbacks', or None."
            )
        if self.save_freq == "callbacks" and (self.save_best_only or self.save_weights_only):
            raise ConfigurationError(
                "save_freq is 'callbacks', so what is saved is for the ModelCheckpoint callbacks to say: leave out "
                "save_best_only and save_weights_only."
            )

    @property
    def every(self) -> int:
        """Metrics of every how many batches are recorded; 0: of none."""
        return {"epoch": 0, "batch": 1}[self.log_freq] if isinstance(self.log_freq, str) else self.log_freq

    @property
    def saves(self) -> str | int | None:
        """When the callback saves checkpoints itself: ``epoch``, a number of batches, or None for never."""
        if self.save_freq == "callbacks":
            return None
        return self.save_freq or ("epoch" if self.save_best_only or self.save_weights_only else None)

    @property
    def needs_best(self) -> bool:
        """Whether it matters which epoch is the best."""
        return self.log_model == "best" or self.saves is not None


def _is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
