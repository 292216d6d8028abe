"""Tables of predictions, and the callback for tables of one's own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import keras  # type: ignore[import-untyped]
import mlflow

from mantik.exceptions import ConfigurationError
from mantik.integrations.keras.call import Call, calling_list
from mantik.integrations.keras.mosaic import images_of, mosaic, verdicts
from mantik.integrations.keras.predictions import classes_of, confusion_figure, table_of
from mantik.integrations.keras.ranks import rank
from mantik.integrations.keras.samples import first_samples
from mantik.training.boundary import extra
from mantik.training.params import text_of
from mantik.training.pictures import log_figure
from mantik.training.tables import log_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow import MlflowClient

    from mantik.integrations.keras.kinds import Array, Data

__all__ = ["MantikEvaluation"]

_logger = logging.getLogger(__name__)

_IMAGES = 16


class MantikEvaluation(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs what a model predicts of some samples, every so many epochs; made to be subclassed for tables of one's own.

    It logs into the run of the `MantikCallback` beside it, or into MLflow's active run. By itself it makes a table of
    targets and predictions, for classifiers a confusion matrix besides, and for images a picture of the first sixteen
    with what was predicted. Override `table` for other tables::

        class Mistakes(MantikEvaluation):
            def table(self, x, y, predictions):
                wrong = predictions.argmax(axis=1) != y
                return ["image", "true", "predicted"], list(zip(x[wrong], y[wrong], predictions.argmax(axis=1)[wrong]))

        model.fit(x, y, callbacks=[MantikCallback(), Mistakes(validation, key="mistakes")])

    Args:
        data: Data that Keras takes for validation: ``(x, y)``, a ``PyDataset``, a torch ``DataLoader``, a
            ``tf.data.Dataset``. Default: the validation data of the ``fit``. A generator is left alone.
        key: What tables and pictures are called.
        every: After every how many epochs.
        samples: How many of the first samples are predicted.
        rows: How many rows `table` makes at the most.

    Raises:
        ConfigurationError: A number is none, or too small.
    """

    def __init__(
        self, data: Data = None, *, key: str = "evaluation", every: int = 1, samples: int = 1000, rows: int = 200
    ) -> None:  # any data that Keras takes
        super().__init__()
        for name, value in (("every", every), ("samples", samples), ("rows", rows)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(f"{name} is {value!r}, which is no whole number from 1 on.")
        self.data = data
        self.key = key
        self.every = every
        self.samples = samples
        self.rows = rows
        self._is_told = False

    def predict(self, x: Array) -> Array:
        """Return what the model makes of samples; to be overridden where that is not ``model.predict``.

        Args:
            x: Arrays of numpy, in the structure of the data.
        """
        return self.model.predict(x, verbose=0)

    def table(self, x: Array, y: Array, predictions: Array) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
        """Return columns and rows of the table; to be overridden.

        Args:
            x: The samples, as arrays of numpy.
            y: Their targets; None without.
            predictions: What `predict` has returned.

        Returns:
            The names of the columns, and the rows: numbers, texts, lists of such, images as arrays.
        """
        del x
        return table_of(y, predictions, classes_of(y, predictions, self._loss), self.rows)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log, if it is the epoch's turn."""
        del logs
        if (epoch + 1) % self.every or rank() > 0:
            return
        place = self._place()
        if place is None:
            self._warn("there is no run. Put a MantikCallback beside it, or begin a run")
            return
        client, run_id, offset, strict = place
        data = self.data if self.data is not None else Call.of(self.model, "fit").validation
        with extra(f"The evaluation {self.key!r} is not logged", strict=strict):
            self.log(client, run_id, data, epoch + offset)

    def log(self, client: MlflowClient, run_id: str, data: Data, step: int) -> None:
        """Log the evaluation of some data.

        Args:
            client: MLflow's client.
            run_id: The run.
            data: As for the constructor.
            step: The step.
        """
        x, y = data if isinstance(data, (tuple, list)) and len(data) == 2 else (data, None)  # noqa: PLR2004
        if isinstance(data, (tuple, list)) and len(data) == 3:  # noqa: PLR2004  # with weights
            x, y = data[:2]
        found = None if x is None else first_samples(x, y, self.samples)
        if found is None:
            what = "no validation data" if x is None else f"a {type(x).__name__}, which can be gone through only once"
            self._warn(f"there is {what}")
            return
        samples, targets = found
        predictions = self.predict(samples)
        columns, rows = self.table(samples, targets, predictions)
        log_table(client, run_id, self.key, columns, rows, step=step)
        if type(self).table is MantikEvaluation.table:
            self._log_pictures(client, run_id, samples, targets, predictions, step)

    def _log_pictures(  # noqa: PLR0913, PLR0917  # what belongs to an evaluation
        self,
        client: MlflowClient,
        run_id: str,
        x: Array,
        y: Array,
        predictions: Array,
        step: int,
    ) -> None:
        classes = classes_of(y, predictions, self._loss)
        figure = confusion_figure(classes) if classes is not None else None
        if figure is not None:
            log_figure(client, run_id, f"{self.key}/confusion_matrix", figure, step=step)
        images = images_of(x, _IMAGES)
        if images:
            # One picture: MLflow's panels for images show little of each where a run has many params.
            picture = mosaic(images, verdicts(y, predictions, classes, len(images)))
            log_figure(client, run_id, f"{self.key}/samples", picture, step=step)

    def _warn(self, reason: str) -> None:
        """Say once why there is nothing."""
        if not self._is_told:
            self._is_told = True
            _logger.warning("The evaluation %r is left out: %s.", self.key, reason)

    def _place(self) -> tuple[MlflowClient, str, int, bool] | None:
        """Return where to log to: client, run, what is added to Keras's epochs, and whether errors are raised."""
        listed = calling_list()
        for callback in listed.callbacks if listed is not None else ():
            place = getattr(callback, "_place_of_evaluations", None)
            if place is not None:
                found: tuple[MlflowClient, str, int, bool] = place()
                return found
        active = mlflow.active_run()
        return None if active is None else (mlflow.MlflowClient(), active.info.run_id, 0, False)

    @property
    def _loss(self) -> str:
        """The name of the loss."""
        loss = getattr(self.model, "loss", None)
        return str(getattr(loss, "name", None) or getattr(loss, "__name__", None) or text_of(loss)).lower()
