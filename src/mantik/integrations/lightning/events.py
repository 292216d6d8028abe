"""The callback through which a Trainer tells its `MantikLogger` what a logger alone is not told."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from mantik.integrations.lightning.namespace import chosen

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback
    from torch.optim import Optimizer

    from mantik.integrations.lightning.logger import MantikLogger
else:
    Callback = chosen().Callback

__all__ = ["TrainingEvents"]


class TrainingEvents(Callback):
    """Belongs to one Trainer; Lightning makes it through an entry point. Does nothing where no `MantikLogger` is."""

    @property
    def log(self) -> Any:  # noqa: ANN401  # Lightning's own
        """What Lightning sets: the module's ``log``."""
        return self._log

    @log.setter
    def log(self, function: Callable[..., None]) -> None:
        # Set before anything of a training begins: the first moment at which a callback can know its Trainer. A logger
        # has to know it then, to look for the run of the checkpoint that training goes on from.
        self._log = function
        trainer = getattr(getattr(function, "__self__", None), "_trainer", None)
        if trainer is not None:
            for logger in _loggers(trainer):
                logger._session.meet(weakref.ref(trainer))  # noqa: SLF001  # two halves of one thing

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to one process."""
        state = self.__dict__.copy()
        state.pop("_log", None)
        return state

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the run, and tell all ranks which it is."""
        del pl_module, stage
        for logger in _loggers(trainer):
            logger._session.begin(trainer, logger)  # noqa: SLF001

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to look at what the module takes and returns."""
        for logger in _loggers(trainer):
            logger._begin_training(pl_module)  # noqa: SLF001

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log gradients and parameters that are watched, when they are due."""
        del pl_module, optimizer
        for logger in _loggers(trainer):
            logger._look(trainer)  # noqa: SLF001

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # Lightning's own
        """Go on with the run where a requeue of the job was refused."""
        del args, kwargs
        for logger in _loggers(trainer):
            logger._session.go_on()  # noqa: SLF001

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the trained module as a model, where that was asked for."""
        for logger in _loggers(trainer):
            logger._end_training(pl_module)  # noqa: SLF001

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write into a checkpoint which run it comes from."""
        del pl_module
        for logger in _loggers(trainer)[:1]:
            identity = logger._session.run.identity  # noqa: SLF001
            if identity is not None:
                checkpoint["mantik"] = identity.to_text()


def _loggers(trainer: Trainer) -> list[MantikLogger]:
    from mantik.integrations.lightning.logger import MantikLogger

    return [logger for logger in trainer.loggers if isinstance(logger, MantikLogger)]
