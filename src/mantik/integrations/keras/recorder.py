"""What is recorded around the metrics: at the beginning of a ``fit`` what it is made of, later what comes of it."""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any

import keras  # type: ignore[import-untyped]

from mantik.integrations.keras import configuration
from mantik.integrations.keras.autologging import THEIRS, silence
from mantik.integrations.keras.best import Best
from mantik.integrations.keras.checkpoints import Collector, Saver
from mantik.integrations.keras.datasets import dataset_inputs
from mantik.integrations.keras.evaluation import MantikEvaluation
from mantik.integrations.keras.model import BestWeights, log_model
from mantik.training.boundary import extra
from mantik.training.params import as_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mantik.integrations.keras.call import Call
    from mantik.integrations.keras.kinds import Callback, Model
    from mantik.integrations.keras.options import Options
    from mantik.integrations.keras.progress import Progress
    from mantik.integrations.keras.session import Session

__all__ = ["Recorder"]


class Recorder:
    """Records for one callback, in training's own thread. What fails of it is said, and the training goes on.

    Args:
        session: The run.
        options: What is wanted.
        strict: Raise what fails.
    """

    def __init__(self, session: Session, options: Options, *, strict: bool) -> None:
        self._session = session
        self._options = options
        self._strict = strict
        self._best = Best(options.monitor, options.mode)
        self._weights = BestWeights() if options.log_model == "best" else None
        self._saver: Saver | None = None
        if options.saves is not None:
            self._saver = Saver(
                session.run,
                self._best,
                options.saves,
                best_only=options.save_best_only,
                weights_only=options.save_weights_only,
            )
        self._collector = Collector(session.run, uploads=options.save_freq == "callbacks")
        self._checkpointers: list[Callback] = []
        self._model: weakref.ref[Model] | None = None
        self._is_described = False

    def __getstate__(self) -> dict[str, Any]:
        """Keep what a copy needs, in a call of its own."""
        return {**self.__dict__, "_model": None, "_checkpointers": []}

    def begin(self, model: Model, call: Call, told: Mapping[str, Any]) -> None:
        """Record what a ``fit`` is made of.

        Args:
            model: What is trained.
            call: The call.
            told: What Keras tells callbacks: epochs and steps.
        """
        if model is None:
            # Hooks that somebody calls by hand have one only if he has set it.
            return
        if self._model is None or self._model() is not model:
            # Another model has a best epoch of its own.
            self._model = weakref.ref(model)
            self._best.forget()
            self._weights = None if self._weights is None else BestWeights()
        self._best.begin(validates=call.validation is not None)
        if self._saver is not None:
            with extra("Checkpoints are not saved", strict=self._strict):
                self._saver.begin()
        self._checkpointers = call.callbacks_of(keras.callbacks.ModelCheckpoint)
        self._is_described = False
        autologs = silence(call)
        if self._options.log_params:
            with extra("The params are not recorded", strict=self._strict):
                params = configuration.params(model, call, told)
                left = THEIRS if autologs else frozenset()
                self._session.writer.log_params({name: params[name] for name in params if name not in left})
            with extra("The configuration is not recorded", strict=self._strict):
                text = as_yaml(configuration.configuration(model, call, told))
                self._session.documents.write_configuration("hparams.yaml", text)
            if getattr(model, "built", False):
                self._describe(model)
        if self._options.log_datasets:
            with extra("The datasets are not recorded", strict=self._strict):
                inputs = dataset_inputs(call)
                if inputs:
                    self._session.run.client.log_inputs(self._session.writer.run_id, inputs)

    def begin_batch(self, model: Callable[[], Model], batch: int) -> None:
        """Save a checkpoint before a batch, if that is due.

        Args:
            model: Gives the model, which on JAX takes its state back from the device.
            batch: The step of the batch.
        """
        if self._saver is not None:
            with extra("The checkpoint is not saved", strict=self._strict):
                self._saver.begin_batch(model, batch)

    def end_epoch(self, model: Model, epoch: int, progress: Progress) -> None:
        """Save what is due after an epoch.

        Args:
            model: What is trained.
            epoch: The step of the epoch.
            progress: The progress of the ``fit``.
        """
        if model is None:
            return
        if self._options.log_params and not self._is_described:
            self._describe(model)
        if self._options.needs_best:
            with extra("The state of the model after the epoch is not kept", strict=self._strict):
                self._look(model, epoch, progress)
        with extra("The checkpoints are not taken note of", strict=self._strict):
            self._collector.collect(self._checkpointers, progress.began)

    def end(self, model: Model, call: Call, progress: Progress) -> None:
        """Record what a ``fit`` has come to.

        Args:
            model: What was trained.
            call: The call.
            progress: Its progress.
        """
        if model is None:
            return
        if self._options.needs_best and progress.logs:
            self._best.miss(progress.logs)
        with extra("The checkpoints are not taken note of", strict=self._strict):
            self._collector.collect(self._checkpointers, progress.began)
        self._checkpointers = []
        with extra("What EarlyStopping has done is not recorded", strict=self._strict):
            self._stop_early(model, call)
        with contextlib.ExitStack() as stack:
            if self._weights is not None and self._best.epoch is not None:
                with extra("The weights of the best epoch are not used", strict=self._strict):
                    if self._weights.is_empty and self._saver is not None:
                        # It was an earlier attempt's.
                        self._weights.read(model, self._saver.path("best"))
                    self._weights.exchange(model)
                    stack.callback(self._weights.exchange, model)
            if self._options.log_evaluation:
                self._evaluate(model, call)
            if self._options.log_model:
                with extra("The model is not logged", strict=self._strict):
                    log_model(model, call, self._options.registered_model_name)

    def _describe(self, model: Model) -> None:
        """Keep what a model looks like, once a training."""
        self._is_described = True
        documents, writer = self._session.documents, self._session.writer
        with extra("model_summary.txt is not recorded", strict=self._strict):
            documents.write("model_summary.txt", configuration.summary(model))
        with extra("model.json is not recorded", strict=self._strict):
            documents.write("model.json", configuration.architecture(model))
        with extra("model.png is not recorded", strict=self._strict):
            configuration.draw(model, writer)

    def _look(self, model: Model, epoch: int, progress: Progress) -> None:
        """Find out whether the epoch is the best one, and save what is due."""
        improved = self._best.improves(model, progress.logs, epoch)
        if improved and self._weights is not None:
            self._weights.take(model)
        if progress.validates_always:
            self._best.miss(progress.logs)
        if self._saver is not None:
            self._saver.end_epoch(model, epoch, self._session.axis.mark.batch, improved=improved)

    def _stop_early(self, model: Model, call: Call) -> None:
        """Record what ``EarlyStopping`` has done, and let the model have the weights that it restores."""
        for callback in call.callbacks_of(keras.callbacks.EarlyStopping):
            step = self._session.axis.last_epoch
            metrics = {}
            if callback.stopped_epoch > 0:
                metrics["stopped_epoch"] = float(self._session.axis.epoch(callback.stopped_epoch))
            if callback.restore_best_weights and callback.best_weights is not None:
                # It may come after this callback, and then restore them once more.
                model.set_weights(callback.best_weights)
                metrics["restored_epoch"] = float(self._session.axis.epoch(callback.best_epoch))
            if metrics:
                self._session.log_metrics(metrics, step)

    def _evaluate(self, model: Model, call: Call) -> None:
        evaluation = MantikEvaluation()
        evaluation.set_model(model)
        with extra("The evaluation is not logged", strict=self._strict):
            run_id, step = self._session.writer.run_id, self._session.axis.last_epoch
            evaluation.log(self._session.run.client, run_id, call.validation, step)
