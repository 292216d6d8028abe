"""What a `MantikLogger` knows of the trainings that it tracks: the run, the Trainer, the checkpoints."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import weakref
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mantik.delivery.ending import undisturbed
from mantik.integrations.lightning.checkpoints import (
    checkpoint_to_load,
    checkpoints_of,
    folder_of,
    identity_at,
)
from mantik.integrations.lightning.namespace import rank
from mantik.integrations.lightning.rendezvous import Rendezvous
from mantik.training.announcement import announce
from mantik.training.checkpoints import Shelf
from mantik.training.documents import Documents
from mantik.training.run import TrackedRun
from mantik.training.status import is_signal, status_of

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from mantik.integrations.lightning.logger import MantikLogger
    from mantik.training.request import RunRequest
    from mantik.training.writer import RunWriter

__all__ = ["Session"]

_logger = logging.getLogger(__name__)

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """The trainings of one logger, in this process. One thread at a time may call.

    Args:
        request: Which run is wanted.
        base: Local folder under which runs get theirs; None leaves it to the Trainer.
        log_model: Which checkpoints are uploaded.
        checkpoint_name: Artifact folder of the checkpoints.
    """

    def __init__(
        self, request: RunRequest, base: str | None, log_model: Literal[True, False, "all"], checkpoint_name: str
    ) -> None:
        self.run = TrackedRun(request)
        self._base = base
        self._log_model = log_model
        self._checkpoint_name = checkpoint_name
        self._rendezvous = Rendezvous()
        self._trainer: weakref.ref[Trainer] | None = None
        self._root: Path | None = None
        self._shelf: Shelf | None = None
        self._callbacks: dict[str, Any] = {}
        self._moments: dict[str, dict[str, int]] = {}
        self.documents = Documents(self.run)
        self._awaits_requeue = False
        self._state_at_fork = self.run.__getstate__()
        _sessions.add(self)

    def __getstate__(self) -> dict[str, Any]:
        """Keep what a copy in another process needs to go on with the same run."""
        return {**self.__dict__, "_trainer": None, "_shelf": None, "_callbacks": {}}

    def before_fork(self) -> None:
        """Keep what a forked child needs."""
        self._state_at_fork = self.run.__getstate__()

    def after_fork(self) -> None:
        """Go on in a forked child as a copy in a spawned process does: MLflow's active run is not the child's."""
        self.run.__setstate__(self._state_at_fork)

    @property
    def trainer(self) -> Trainer | None:
        """The Trainer that trains, or trained last; None before one does."""
        return self._trainer() if self._trainer is not None else None

    @property
    def has_met(self) -> bool:
        """Whether a Trainer has begun with this logger, in this process or in one that it has started."""
        return self._trainer is not None or self._root is not None

    @property
    def writer(self) -> RunWriter:
        """What writes to the run, which is begun for it where it is not known yet."""
        self.know()
        return self.run.writer

    @property
    def root(self) -> Path:
        """Local folder under which the runs have theirs."""
        if self._base is not None:
            return Path(self._base)
        trainer = self.trainer
        if trainer is None and self._root is not None:
            # The Trainer was at work in a process that this one has started.
            return self._root
        return Path(trainer.default_root_dir if trainer is not None else Path.cwd()) / "lightning_logs"

    @property
    def folder(self) -> Path:
        """Local folder of the run."""
        return self.root / str(self.run.experiment_id) / str(self.run.run_id)

    def know(self) -> None:
        """See to it that the run is known, on rank zero: find what a child has opened, or open it."""
        if self.run.run_id is None:
            self._find()
        if self.run.run_id is None and rank() == 0:
            self._open()

    def meet(self, trainer: weakref.ref[Trainer]) -> None:
        """Get to know the Trainer, before it begins."""
        self._trainer = trainer

    def open_while_running(self) -> None:
        """Open the run, or open it again, if the Trainer is at work."""
        trainer = self.trainer
        if trainer is not None and trainer.state.status == "running" and not self.run.is_open:
            self._open()

    def begin(self, trainer: Trainer, logger: MantikLogger) -> None:
        """Open the run, tell all ranks which it is, and say where its checkpoints belong."""
        if rank() == 0:
            self.open_while_running()
            _silence_autologging(trainer)
            self._keep_command_line(trainer)
        ids = self.run.run_id, self.run.experiment_id, self.run.attempt
        run_id, experiment_id, attempt = trainer.strategy.broadcast(ids, src=0)
        if run_id is not None and rank() > 0:
            self.run.attach(run_id, experiment_id, attempt)
        if trainer.loggers[0] is logger:
            checkpoint_callbacks: list[Any] = trainer.checkpoint_callbacks
            for callback in checkpoint_callbacks:
                # Lightning's own rule would repeat the folders that are in the logger's `save_dir` already.
                if getattr(callback, "dirpath", "") is None:
                    callback.dirpath = str(self.folder / "checkpoints")

    def take_checkpoint(self, callback: Any) -> None:  # noqa: ANN401  # a weak reference to any checkpoint callback
        """Take note of a checkpoint that was saved, and upload it where that is wanted during training."""
        folder = folder_of(callback)
        if folder is None:
            return
        self.know()
        trainer = self.trainer
        # Those that a resumed training has kept from before have a moment of their own.
        saved = getattr(callback, "_last_checkpoint_saved", None)
        for checkpoint in checkpoints_of(callback, {}):
            path = str(checkpoint.path)
            if trainer is not None and (saved in {None, path} or "last" in checkpoint.aliases):
                self._moments[path] = {"epoch": trainer.current_epoch, "global_step": trainer.global_step}
        self._callbacks[_key_of(callback)] = callback
        self._shelved.note(folder, checkpoints_of(callback, self._moments))
        if self._log_model == "all" or (self._log_model and getattr(callback, "save_top_k", 1) == -1):
            self._shelved.update(folder, checkpoints_of(callback, self._moments), _key_of(callback))

    def go_on(self) -> None:
        """Take the run back if training goes on because its job was not requeued after all."""
        # Lightning asks for the requeue after it has called `finish`, in the same signal handler.
        if self._awaits_requeue:
            self._awaits_requeue = False
            self.run.reconsider()

    def finish(self, status: str, error: BaseException | None = None) -> None:
        """End the run in the way that Lightning tells, and upload the checkpoints that are wanted at the end.

        Args:
            status: ``success``; ``failed`` for errors, Ctrl-C and signals alike; ``finished`` before a requeue.
            error: What has failed. Default: the error that is being handled.
        """
        if status == "finished":
            self.run.hand_over()
            self._awaits_requeue = True
            return
        if status == "failed":
            error = error or sys.exc_info()[1]
        if not self.run.is_open:
            self._finish_for_children(error)
            return
        self.run.reconsider()
        if self.run.is_handed_over:
            trainer = self.trainer
            if error is not None and (is_signal(error) or (trainer is not None and trainer.received_sigterm)):
                # The end of this attempt, and not of the run.
                return
            self.run.take_back()
        with undisturbed():
            # First: whatever an upload meets, the status is on disk.
            self.run.end(status_of(error))
            if self._log_model:
                self._upload_all()

    def _upload_all(self) -> None:
        for callback in self._callbacks.values():
            with contextlib.suppress(ReferenceError):
                # ReferenceError: the callback belonged to a Trainer that is gone.
                folder = folder_of(callback)
                if folder is not None:
                    self._shelved.update(folder, checkpoints_of(callback, self._moments), _key_of(callback))

    @property
    def _shelved(self) -> Shelf:
        if self._shelf is None:
            self._shelf = Shelf(self.run, self._checkpoint_name)
        return self._shelf

    def _find(self) -> None:
        left = self._rendezvous.read()
        if left is not None:
            run_id, experiment_id, attempt, self._root = left
            self.run.attach(run_id, experiment_id, attempt)

    def _open(self) -> None:
        if self.run.run_id is None:
            self._find()
        is_known = self.run.run_id is not None
        trainer = self.trainer
        path = checkpoint_to_load(trainer) if trainer is not None and not is_known else None
        source = identity_at(path) if path is not None else None
        self.run.open(source, Path(str(path)).name if source is not None else "")
        if self._rendezvous.is_away:
            self._rendezvous.write(str(self.run.run_id), str(self.run.experiment_id), self.run.attempt, self.root)
            # Before what was recorded is delivered.
            Finalize(None, self._finish_broken, exitpriority=1)
        if not is_known:
            announce(self.run)

    def _finish_broken(self) -> None:
        """End the run of a process that ends in the middle of a training: Lightning tells the one that started it."""
        if self.run.is_open and not self.run.is_handed_over:
            # Ctrl-C is the one error that those who start processes let pass.
            self.finish("failed", sys.exc_info()[1] or KeyboardInterrupt())

    def _finish_for_children(self, error: BaseException | None) -> None:
        """End a run whose process has died: with a strategy that spawns or forks, only the parent is left to do it."""
        if error is None:
            return
        self._find()
        if self.run.run_id is not None:
            self.run.end_from_outside(status_of(error))

    def _keep_command_line(self, trainer: Any) -> None:  # noqa: ANN401  # Lightning types no callbacks
        """Keep the configuration that LightningCLI was called with."""
        for callback in trainer.callbacks:
            parser, config = getattr(callback, "parser", None), getattr(callback, "config", None)
            name = getattr(callback, "config_filename", None)
            if parser is not None and config is not None and isinstance(name, str):
                self.documents.write_configuration(name, str(parser.dump(config, skip_none=False)))


def _key_of(callback: Any) -> str:  # noqa: ANN401  # any checkpoint callback
    """Return what tells a callback from the others of a Trainer, in later attempts, too."""
    return str(getattr(callback, "state_key", type(callback).__name__))


class _Silent:
    """Takes the points that MLflow's autologging would log once more, beside the epochs and not the steps."""

    def record_metrics(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # MLflow's
        pass

    def flush(self) -> None:
        pass


def _silence_autologging(trainer: Any) -> None:  # noqa: ANN401  # Lightning types no callbacks
    """Let MLflow's autologging keep its params and its model, and leave the metrics to the logger."""
    for callback in trainer.callbacks:
        if type(callback).__name__.endswith("MlflowPLCallback") and hasattr(callback, "metrics_logger"):
            callback.metrics_logger = _Silent()


def _before_fork() -> None:
    for session in list(_sessions):
        session.before_fork()


def _after_fork() -> None:
    for session in list(_sessions):
        session.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
