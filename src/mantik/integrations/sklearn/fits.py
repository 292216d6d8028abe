"""One fit of the user's: what is written before it begins, and what is to be done when it has returned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mantik.integrations.sklearn import pictures as gallery
from mantik.integrations.sklearn.afterwards import Job
from mantik.integrations.sklearn.candidates import is_search
from mantik.integrations.sklearn.curves import curves_of
from mantik.integrations.sklearn.data import TRAINING
from mantik.integrations.sklearn.dataset import log_dataset
from mantik.integrations.sklearn.evaluation import Evaluation
from mantik.integrations.sklearn.metrics import metrics_of
from mantik.integrations.sklearn.model import log_model
from mantik.integrations.sklearn.parameters import html_of, parameters_of, tags_of
from mantik.integrations.sklearn.parts import identities_of
from mantik.integrations.sklearn.search import record_search
from mantik.training.boundary import extra
from mantik.training.params import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sklearn.base import BaseEstimator

    from mantik.integrations.sklearn.data import Data
    from mantik.integrations.sklearn.options import Options
    from mantik.integrations.sklearn.pictures import Picture
    from mantik.integrations.sklearn.record import Record

__all__ = ["Fit", "describe", "draw"]

_MOST_CHARACTERS = 5000
"""Of an error in a tag; MLflow holds no more of one in older versions."""


@dataclass(slots=True)
class Fit:
    """A fit while it goes on, and what is recorded of it.

    Attributes:
        estimator: What is fitted.
        record: Where it is recorded.
        options: What the user asked for.
        data: A copy of what it is fitted to; None where there is none that can be copied.
        is_beside: Whether MLflow's own autologging records params and model of the same fit.
        step: Of what is recorded when it has ended: how many batches there were, or 0.
    """

    estimator: BaseEstimator
    record: Record
    options: Options
    data: Data | None
    is_beside: bool = False
    step: int = 0
    _params: dict[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        """Write down what is fitted, before it is."""
        self.record.tags(tags_of(self.estimator))
        if not self.is_beside:
            self._params = parameters_of(self.estimator, deep=not is_search(self.estimator))
            self.record.params(self._params)

    def fail(self, error: BaseException) -> None:
        """Write down what ended it."""
        self.record.tags({"mantik.error": describe(error)})

    def descriptions(self) -> list[tuple[str, Callable[[], None]]]:
        """Return what there is to do for the fitted estimator itself: the steps of a `Job`."""
        name = type(self.estimator).__name__
        steps: list[tuple[str, Callable[[], None]]] = []
        data = self.data
        if data is not None and self.options.log_datasets:
            context: Literal["train", "eval"] = "train" if data.name == TRAINING else "eval"
            steps.append(
                (
                    f"The data of {name} are not described",
                    lambda: log_dataset(data, self.record.run_id, context, self.record.client),
                )
            )
        if self.options.log_models and data is not None and not self.is_beside:
            steps.append((f"The model {name} is not logged", self._log_model))
        steps.append((f"The curves of {name} are not recorded", self._log_curves))
        if is_search(self.estimator):
            steps.append(
                (
                    f"The results of {name} are not recorded",
                    lambda: record_search(self.estimator, self.record, self.options),
                )
            )
        steps.append((f"{name} is not shown", lambda: self.record.text(html_of(self.estimator), "estimator.html")))
        if self.options.log_plots:
            names = None if data is None else data.feature_names
            steps.append(
                (
                    f"{name} is not drawn",
                    lambda: draw(gallery.pictures_of_estimator(self.estimator, names), self.record),
                )
            )
        return steps

    def job(self, predictions: Any = None) -> Job:  # noqa: ANN401
        """Return what is to be done now that it has returned.

        Args:
            predictions: What `fit_predict` returned.
        """
        steps = self.descriptions()
        data = self.data
        if data is not None:
            what = f"{type(self.estimator).__name__} is not evaluated"
            steps.append((what, lambda: self._evaluate(data, predictions)))
        return Job(
            self.record.run_id,
            steps,
            touches=identities_of(self.estimator),
            size=0 if data is None else data.size,
        )

    def _log_model(self) -> None:
        assert self.data is not None  # noqa: S101  # the step is only there with data
        name = f"{self.record.prefix}model"
        model_id = log_model(self.estimator, self.data, self.record.run_id, name, self.options, self._params)
        self.record.model_id = model_id

    def _log_curves(self) -> None:
        for name, values in curves_of(self.estimator).items():
            for step, value in enumerate(values):
                self.record.metrics({name: value}, step)

    def _evaluate(self, data: Data, predictions: Any) -> None:  # noqa: ANN401
        if data.is_sampled:
            self.record.tags({"mantik.evaluated_rows": f"{data.kept} of {data.rows}"})
        evaluation = Evaluation(self.estimator, data, pos_label=self.options.pos_label, predictions=predictions)
        self.record.metrics({f"training_{name}": value for name, value in metrics_of(evaluation).items()}, self.step)
        if self.options.log_plots:
            draw(gallery.pictures_of_evaluation(evaluation), self.record, "training_{}")


def draw(pictures: Iterable[Picture], record: Record, form: str = "{}") -> None:
    """Keep pictures as artifacts; one that cannot be drawn takes none of the others with it.

    Args:
        pictures: The pictures.
        record: Where they are kept.
        form: What they are called, with braces for the name of each.
    """
    for picture in pictures:
        with extra(f"The picture {picture.name} is not there", strict=False):
            record.picture(picture, form.format(picture.name))


def describe(error: BaseException) -> str:
    """Return an error for a tag."""
    return f"{type(error).__name__}: {text_of(error)}"[:_MOST_CHARACTERS]
