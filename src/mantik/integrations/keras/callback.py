"""The Keras callback: translates what Keras says of a training into a run on the platform."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, Literal

import keras  # type: ignore[import-untyped]

from mantik.integrations.keras.batches import Batches
from mantik.integrations.keras.call import Call
from mantik.integrations.keras.options import Options
from mantik.integrations.keras.progress import Progress
from mantik.integrations.keras.ranks import rank
from mantik.integrations.keras.rate import learning_rate
from mantik.integrations.keras.recorder import Recorder
from mantik.integrations.keras.run_methods import RunMethods
from mantik.integrations.keras.session import Session
from mantik.training.boundary import extra
from mantik.training.request import RunRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient

    from mantik.integrations.keras.batches import Batch

__all__ = ["MantikCallback"]


class MantikCallback(RunMethods, keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Tracks what Keras does on the platform, on every backend.

    ``model.fit(x, y, callbacks=[MantikCallback()])`` is all it takes. Metrics, params, checkpoints and the true status
    of the run are on disk before each call returns and reach the platform by themselves: no outage, no expired token
    and no kill loses one, and none stops the training. The metrics of batches alone are on disk a quarter of a second
    later: a process that ends without warning, as by ``kill -9``, loses the last ones. With `strict` they are at once.

    Making one does nothing: login and run come with its first use, on rank zero alone. A ``fit`` is a run, which ends
    with it; a later ``fit``, ``evaluate`` or ``predict`` with the same callback goes on with it. MLflow's active run is
    joined, and left to whoever began it. With ``with MantikCallback() as callback:`` the run stays open for all that
    the block does, also for loops of one's own around ``train_on_batch``, with `log_metrics`, and ends with it.

    What is recorded: after each epoch the metrics by Keras's names, with ``learning_rate``, ``epoch_time`` in seconds
    and ``samples_per_second`` of the training without its validation, at the epoch as the step; ``batch/loss`` and so
    on, with the ``batch/learning_rate`` of a schedule, at the number of the batch over all epochs, if asked for;
    ``test_loss`` and so on of ``evaluate`` outside of ``fit``, ``test_time`` and ``predict_time``, at the last epoch;
    ``stopped_epoch`` and ``restored_epoch`` of ``EarlyStopping``. Epochs go on over a second ``fit`` and a resume:
    those that begin at 0 again follow on the last one.

    A training that was interrupted goes on in its run: where ``BackupAndRestore`` restores it, where it begins at an
    ``initial_epoch`` beside a ``ModelCheckpoint`` that has saved before, in a requeued Slurm job, with `run_id`, and
    with ``MLFLOW_RUN_ID``. In a ``with`` block, which begins its run before there is a ``fit``, the latter three count.

    Args:
        experiment_name: Experiment of the run, created if there is none of this name. Default: that of
            ``mlflow.set_experiment``, ``MLFLOW_EXPERIMENT_NAME`` or ``MLFLOW_EXPERIMENT_ID``, else MLflow's default.
        run_name: Name of the run. Default: one that MLflow makes up.
        experiment_id: Experiment of the run, by its id.
        run_id: Run to go on with. Default: ``MLFLOW_RUN_ID``, or see `resume`.
        tags: Tags of the run.
        description: Description of the run, in Markdown.
        prefix: Put before the names of all metrics, with a ``-`` between.
        resume: When an earlier run is gone on with. ``"auto"``: as told above; ``"allow"``: besides, a `run_id` that
            does not exist is replaced by a new run; ``"must"``: it is an error if there is none; ``"never"``: each is a
            new run.
        log_freq: Which batches have metrics of their own: none (``"epoch"``), each (``"batch"``), or with a number each
            so many. They are what Keras tells of a batch: means since the beginning of the epoch.
        initial_global_step: Number of the first batch. Default: 0, or where the run is already.
        log_params: Record optimizer, loss, metrics, ``fit`` and model as params, and all of it whole as
            ``hparams.yaml``, ``model.json``, ``model_summary.txt`` and, where pydot and graphviz are installed
            and it has at most 100 layers, ``model.png``.
        log_model: Log the model after each ``fit`` as the MLflow model ``model``, which ``mlflow.keras.load_model``
            loads: as it is then (``True``), with the weights that ``EarlyStopping`` restores, or with those of the best
            epoch by `monitor` (``"best"``).
        registered_model_name: Registered model of which it becomes a version.
        log_datasets: Record what the data are: type, shapes, size, and a digest of those in memory.
        log_evaluation: Log after each ``fit`` what the model predicts of the first 1000 validation samples: as a table,
            for classifiers with a confusion matrix, and for images with a picture of the first sixteen.
        system_metrics: Record use of processors, memory, disk, network and GPUs. Default: MLflow's setting
            (``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING``).
        strict: Raise what goes wrong with tracking instead of letting the training go on.
        monitor: Metric by which an epoch is the best. Default: ``val_loss``, or ``loss`` without validation. With one
            that there never is, the last epoch takes the place of the best.
        mode: ``"min"``, ``"max"``, or ``"auto"``: as the metric or its name says.
        save_best_only: Save checkpoints of the best epoch alone, and not of the last one.
        save_weights_only: Save ``.weights.h5`` instead of ``.keras``.
        save_freq: When checkpoints are saved, to ``keras_logs/<experiment id>/<run id>/checkpoints``, and uploaded:
            after each ``"epoch"``, or after so many batches; ``"callbacks"``: those that ``ModelCheckpoint`` callbacks
            beside this one write are uploaded, and none are saved besides. Default: never, or ``"epoch"`` with one of
            the two above.

    Raises:
        ConfigurationError: An argument is none of its possible values, or two contradict each other.
    """

    async_safe = True
    """Keras may call the hooks of batches from threads of its own, and goes on with the next batch meanwhile."""

    def __init__(  # noqa: PLR0913  # what can be asked for
        self,
        experiment_name: str | None = None,
        run_name: str | None = None,
        *,
        experiment_id: str | None = None,
        run_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        description: str | None = None,
        prefix: str = "",
        resume: Literal["auto", "allow", "must", "never"] = "auto",
        log_freq: Literal["epoch", "batch"] | int = "epoch",
        initial_global_step: int | None = None,
        log_params: bool = True,
        log_model: Literal[False, True, "best"] = False,
        registered_model_name: str | None = None,
        log_datasets: bool = True,
        log_evaluation: bool = False,
        system_metrics: bool | None = None,
        strict: bool = False,
        monitor: str | None = None,
        mode: Literal["auto", "min", "max"] = "auto",
        save_best_only: bool = False,
        save_weights_only: bool = False,
        save_freq: Literal["epoch", "callbacks"] | int | None = None,
    ) -> None:
        super().__init__()
        options = Options(
            log_freq=log_freq,
            initial_global_step=initial_global_step,
            log_params=log_params,
            log_model=log_model,
            registered_model_name=registered_model_name,
            log_datasets=log_datasets,
            log_evaluation=log_evaluation,
            monitor=monitor,
            mode=mode,
            save_best_only=save_best_only,
            save_weights_only=save_weights_only,
            save_freq=save_freq,
        )
        request = RunRequest(
            experiment_name=experiment_name,
            experiment_id=None if experiment_id is None else str(experiment_id),
            run_name=run_name,
            run_id=run_id,
            tags=tags,
            description=description,
            resume=resume,
            system_metrics=system_metrics,
            strict=strict,
        )
        self._strict = strict
        self._prefix = prefix
        self._every = options.every
        self._session = Session(request, prefix, initial_global_step)
        self._recorder = Recorder(self._session, options, strict=strict)
        self._progress: Progress | None = None
        self._stopwatch: tuple[float, bool] | None = None
        self._refused: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Keep what a copy needs to track trainings of its own, such as one that scikit-learn makes for each fold."""
        return {**self.__dict__, "_model": None, "_progress": None, "_stopwatch": None}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open the run, and describe what is about to be trained."""
        del logs
        if rank() > 0:
            return
        model = self.model
        call = Call.of(model, "fit")
        told = {name: value for name, value in (self.params or {}).items() if name in {"epochs", "steps"}}
        progress = Progress.of(model, call, told.get("steps"))
        batches = None
        if self._every:
            # Hooks that somebody calls by hand may get what changes before it is recorded.
            gathers = not self._strict and call.callback_list is not None
            batches = Batches(functools.partial(self._record_batches, progress), gathers=gathers)
        self._progress = self._stopwatch = None
        self._session.begin("fit", call, batches)
        self._session.axis.begin_fit()
        self._progress = progress
        self._recorder.begin(model, call, told)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take note of the time, and of where the epoch is on the axis of the run."""
        del logs
        if rank() > 0:
            return
        progress = self._progress
        self._session.record_batches()
        self._session.axis.begin_epoch(epoch, progress.batches if progress is not None else None)
        if progress is not None:
            progress.begin_epoch(self.model)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count, and save a checkpoint where that is due: unlike the end, this is called in training's own thread."""
        del logs
        if self._progress is not None:
            axis = self._session.axis
            self._recorder.begin_batch(lambda: self.model, axis.batch(batch))
            axis.begin_batch(batch, self._progress.together)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the metrics of the batch in, if batches are recorded: that happens a moment later."""
        if self._every and logs and self._progress is not None:
            self._session.add_batch(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the metrics of the epoch, and save what is due."""
        if rank() > 0:
            return
        axis, progress = self._session.axis, self._progress
        self._session.record_batches()
        step = axis.epoch(epoch)
        metrics = dict(logs or {})
        rate = None if "learning_rate" in metrics else learning_rate(self.model)
        if rate is not None:
            metrics["learning_rate"] = rate
        if progress is not None:
            metrics |= progress.speed(axis.batches)
            progress.logs = dict(logs or {})
        self._record(metrics, step)
        axis.end_epoch(epoch)
        if progress is not None:
            self._recorder.end_epoch(self.model, step, progress)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Log what is wanted at the end, and end the run."""
        del logs
        progress = self._progress
        if progress is None:
            return
        self._progress = None
        model = self.model
        self._recorder.end(model, Call.of(model, "fit"), progress)
        self._session.end()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open the run, unless this is the validation of a ``fit``."""
        del logs
        self._begin_other("evaluate")

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Record the metrics of an ``evaluate``; those of a validation come with the epoch's."""
        self._end_other({f"test_{name}": value for name, value in (logs or {}).items()}, "test_time")

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open the run."""
        del logs
        self._begin_other("predict")

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        """Record how long it took."""
        del logs
        self._end_other({}, "predict_time")

    def _record_batches(self, progress: Progress, batches: list[Batch]) -> None:
        """Record the metrics of batches, of those whose turn it is; the others are not looked at."""
        moments = []
        with extra("The metrics of some batches are not recorded", strict=self._strict):
            for batch, timestamp, logs in batches:
                step = self._session.axis.due(batch, progress.together, self._every)
                if step is not None:
                    rate = progress.learning_rate(batch)
                    metrics = logs if rate is None else {**logs, "learning_rate": rate}
                    numbers = self._numbers({f"batch/{name}": value for name, value in metrics.items()})
                    moments.append((numbers, step, timestamp))
            self._session.log_history(moments)

    def _begin_other(self, kind: Literal["evaluate", "predict"]) -> None:
        self._stopwatch = None
        if rank() > 0:
            return
        call = Call.of(self.model, kind)
        activity, progress = self._session.activity, self._progress
        if kind == "evaluate" and progress is not None and activity is not None and activity.has(call.callback_list):
            progress.begin_test()
            return
        is_own = self._session.begin(kind, call)
        self._stopwatch = time.perf_counter(), is_own

    def _end_other(self, metrics: Mapping[str, Any], time_name: str) -> None:
        if rank() > 0:
            return
        if self._stopwatch is None:
            if self._progress is not None:
                self._progress.end_test()
            return
        began, is_own = self._stopwatch
        self._stopwatch = None
        self._record({**metrics, time_name: time.perf_counter() - began}, self._session.axis.last_epoch)
        if is_own:
            self._session.end()

    def _place_of_evaluations(self) -> tuple[MlflowClient, str, int, bool]:
        """Return for a `MantikEvaluation` where to log to: client, run, what Keras's epochs lack, and strictness."""
        session = self._session
        return session.run.client, session.writer.run_id, session.axis.epoch(0), self._strict
