"""What the functions of scikit-learn that try an estimator on parts of the data have found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from mantik.integrations.sklearn import pictures as gallery
from mantik.integrations.sklearn.data import Data
from mantik.integrations.sklearn.evaluation import Evaluation
from mantik.integrations.sklearn.kind import Kind, kind_of
from mantik.integrations.sklearn.metrics import metrics_of
from mantik.integrations.sklearn.options import Options
from mantik.integrations.sklearn.outputs import as_outputs
from mantik.integrations.sklearn.parameters import parameters_of
from mantik.integrations.sklearn.table import as_csv
from mantik.training.boundary import extra
from mantik.training.params import text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sklearn.base import BaseEstimator

    from mantik.integrations.sklearn.pictures import Picture
    from mantik.integrations.sklearn.record import Record

__all__ = ["record_validation"]

_NO_SETTINGS = frozenset(
    {
        "estimator",
        "X",
        "y",
        "groups",
        "sample_weight",
        "fit_params",
        "params",
        "param_range",
        "train_sizes",
        "n_jobs",
        "pre_dispatch",
        "verbose",
        "return_estimator",
        "return_indices",
        "return_times",
        "return_train_score",
    }
)
"""Arguments that are data, or that change nothing about the result."""

_DEFAULT_SPLITS = 5
"""Of scikit-learn, where no `cv` is given."""

_MOST_FOLDS = 1000
"""Points of a curve of scores; those of more folds are in the table alone."""

_MOST_FEATURES = 300
"""Of more, those whose importance is smallest are in the table alone."""

_MANY_TIMES = 50.0
"""From the smallest value of a param to the greatest: a curve of more is drawn over a logarithmic axis."""


def record_validation(  # noqa: PLR0913  # a call, what it returned, and where to
    function_name: str,
    estimator: BaseEstimator,
    arguments: Mapping[str, Any],
    result: Any,  # noqa: ANN401  # what the function returns
    record: Record,
    *,
    options: Options | None = None,
) -> None:
    """Record what a call of one of scikit-learn's functions returned.

    - ``cross_validate``, ``cross_val_score``: of each key of the result (``test_score``, or ``test_<scorer>``) the
      metrics ``<key>_mean`` and ``<key>_std``, and the scores as a curve ``<key>`` over the folds; ``n_failed_folds``;
      ``cross_validation.csv`` with a line for each fold. As for scikit-learn, there is no mean where a fold failed.
    - ``cross_val_predict``: the metrics and pictures of the predictions, with ``_cv`` at the end of their names.
    - ``learning_curve``: ``train_score_mean`` and so on as curves over the numbers of samples; ``learning_curve.csv``.
    - ``validation_curve``: the same over the values' places in `param_range`; ``best_<param>`` and ``best_cv_score``;
      ``validation_curve.csv``.
    - ``permutation_importance``: the metrics ``permutation_importance/<feature>``, or
      ``permutation_importance/<scorer>/<feature>``, of 300 features at most;
      ``permutation_importance.csv``.

    Params are those of the estimator and the settings of the call, with the function's name before one that the
    estimator has too. Params, tables and pictures that cannot be had are left out with a warning.

    Args:
        function_name: Which function.
        estimator: What was tried.
        arguments: Those of the call by name. A generator among them is not touched.
        result: What the function returned.
        record: Where it is recorded.
        options: Whether pictures, and which of two classes is the positive one; None: those that are the default.

    Raises:
        Exception: The result is none of the function.
    """
    call = _Call(function_name, estimator, arguments, record, Options() if options is None else options)
    if function_name in {"cross_validate", "cross_val_score"}:
        call.record_folds(result if isinstance(result, Mapping) else {"test_score": result})
    elif function_name == "cross_val_predict":
        call.record_predictions(result)
    elif function_name == "learning_curve":
        call.record_learning_curve(*result)
    elif function_name == "validation_curve":
        call.record_validation_curve(*result)
    else:
        call.record_importances(result)


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of one of the functions."""

    function: str
    estimator: BaseEstimator
    arguments: Mapping[str, Any]
    record: Record
    options: Options

    def record_folds(self, result: Mapping[str, Any]) -> None:
        """Record scores of folds, and how long they took."""
        columns = {
            key: np.asarray(values, dtype=float)
            for key, values in result.items()
            if key.startswith(("test_", "train_")) or key in {"fit_time", "score_time"}
        }
        scores = {key: values for key, values in columns.items() if not key.endswith("_time")}
        folds = len(next(iter(scores.values())))
        self._record_params(folds)
        failed = np.any([np.isnan(values) for key, values in scores.items() if key.startswith("test_")], axis=0)
        self.record.metrics({**_means_of(columns), "n_failed_folds": int(np.count_nonzero(failed))})
        for fold in range(min(folds, _MOST_FOLDS)):
            self.record.metrics({key: values[fold] for key, values in scores.items()}, step=fold)
        self._keep_table("cross_validation", {"fold": range(folds), **columns})
        self._keep_pictures([gallery.picture_of_folds(scores, gallery.estimator_title(self.estimator))])

    def record_predictions(self, predicted: Any) -> None:  # noqa: ANN401
        """Record how good predictions are that were made of each fold by what was fitted to the others."""
        self._record_params(_splits_of(self.arguments.get("cv")))
        targets, kind = self.arguments.get("y"), kind_of(self.estimator)
        # The clusters of each fold have numbers of their own.
        if targets is None or kind not in {Kind.CLASSIFIER, Kind.REGRESSOR, Kind.OUTLIER_DETECTOR}:
            return
        rows = targets.shape[0] if hasattr(targets, "shape") else len(targets)
        data = Data(self.arguments.get("X"), targets, None, "out-of-fold predictions", rows, rows)
        answers = _answers_of(self.arguments.get("method", "predict"), predicted, targets)
        # Without the estimator: if it is fitted, it was to what it would be asked about.
        evaluation = Evaluation(None, data, pos_label=self.options.pos_label, kind=kind, **answers)
        self.record.metrics({f"{name}_cv": value for name, value in metrics_of(evaluation).items()})
        self._keep_pictures(gallery.pictures_of_evaluation(evaluation), "_cv")

    def record_learning_curve(self, sizes: Any, train: Any, test: Any, *times: Any) -> None:  # noqa: ANN401
        """Record scores, of shape (sizes, folds), for each number of training samples."""
        self._record_params(test.shape[1])
        curves = {"train_score": train, "test_score": test}
        curves |= dict(zip(("fit_time", "score_time"), times, strict=False))
        self._record_curves("train_size", sizes.tolist(), curves, sizes.tolist())
        self._keep_curve("learning_curve", sizes, train, test, "Training samples", log_x=False)

    def record_validation_curve(self, train: Any, test: Any) -> None:  # noqa: ANN401
        """Record scores, of shape (values, folds), for each value of a param."""
        self._record_params(test.shape[1])
        param, places = self.arguments["param_name"], list(range(len(test)))
        values = [_number_or_text(value) for value in self.arguments["param_range"]]
        self._record_curves(param, values, {"train_score": train, "test_score": test}, places)
        means = test.mean(axis=1)
        if not np.isnan(means).all():
            best = int(np.nanargmax(means))
            self.record.params({f"best_{param}": text_of(values[best])})
            self.record.metrics({"best_cv_score": means[best]})
        self._keep_curve("validation_curve", values, train, test, param, log_x=_spans_magnitudes(values))

    def record_importances(self, result: Mapping[str, Any]) -> None:
        """Record by how much scores fall without features; with several scorers there is a result of each."""
        self._record_params(None)
        results = {"": result} if "importances_mean" in result else result
        table: dict[str, list[Any]] = {"scorer": []} if "" not in results else {}
        table |= {"feature": [], "importance_mean": [], "importance_std": []}
        for scorer, found in results.items():
            means, deviations = found["importances_mean"], found["importances_std"]
            names = _feature_names(self.arguments["X"], self.estimator, len(means))
            order = np.argsort(-np.abs(means), kind="stable")
            # In a run that holds more, the function's name is before everything of it.
            below = ("" if self.record.prefix else "permutation_importance/") + (f"{scorer}/" if scorer else "")
            self.record.metrics({below + names[at]: means[at] for at in order[:_MOST_FEATURES]})
            if scorer:
                table["scorer"] += [scorer] * len(order)
            table["feature"] += [names[at] for at in order]
            table["importance_mean"] += means[order].tolist()
            table["importance_std"] += deviations[order].tolist()
            subject = gallery.estimator_title(self.estimator)
            picture = gallery.picture_of_permutation_importance(found, names, subject)
            self._keep_pictures([picture], f"_{scorer}" if scorer else "")
        self._keep_table("permutation_importance", table)

    def _record_params(self, folds: int | None) -> None:
        with extra(f"The params of {self.function} are not recorded", strict=False):
            # What a fitted estimator is tried on after its fit is beside its params.
            is_known = self.function == "permutation_importance" and self.record.prefix
            own = {} if is_known else parameters_of(self.estimator, deep=True)
            settings = _settings_of(self.arguments) | ({} if folds is None else {"n_splits": str(folds)})
            settings = {f"{self.function}/{key}" if key in own else key: text for key, text in settings.items()}
            self.record.params({**own, **settings})

    def _record_curves(self, x_name: str, xs: Sequence[Any], curves: Mapping[str, Any], steps: Sequence[int]) -> None:
        """Record curves, each of shape (xs, folds)."""
        columns: dict[str, Any] = {x_name: xs}
        for key, values in curves.items():
            columns |= _means_of({key: values})
        for at, step in enumerate(steps):
            self.record.metrics({key: column[at] for key, column in columns.items() if key != x_name}, step)
        for key, values in curves.items():
            columns |= {f"{key}_fold_{fold}": values[:, fold] for fold in range(values.shape[1])}
        self._keep_table(self.function, columns)

    def _keep_curve(self, *curve: Any, log_x: bool) -> None:  # noqa: ANN401  # what `picture_of_curve` takes
        subject = gallery.estimator_title(self.estimator)
        self._keep_pictures([gallery.picture_of_curve(*curve, log_x=log_x, subject=subject)])

    def _keep_table(self, name: str, columns: Mapping[str, Any]) -> None:
        with extra(f"{name}.csv is not there", strict=False):
            lists = {key: cells.tolist() if isinstance(cells, np.ndarray) else cells for key, cells in columns.items()}
            self.record.text(as_csv(lists), f"{name}.csv")

    def _keep_pictures(self, pictures: Iterable[Picture], suffix: str = "") -> None:
        for picture in pictures if self.options.log_plots else ():
            with extra(f"The picture {picture.name}{suffix} is not there", strict=False):
                self.record.picture(picture, picture.name + suffix)


def _settings_of(arguments: Mapping[str, Any]) -> dict[str, str]:
    settings = {key: value for key, value in arguments.items() if key not in _NO_SETTINGS and value is not None}
    cv = settings.get("cv")
    if isinstance(cv, list | tuple):
        settings["cv"] = f"{len(cv)} given splits"
    return {key: text_of(value) for key, value in settings.items()}


def _splits_of(cv: Any) -> int | None:  # noqa: ANN401
    """Return how many folds there are, without asking anything that may be used up by that; None where unknown."""
    if cv is None:
        return _DEFAULT_SPLITS
    found = len(cv) if isinstance(cv, list | tuple) else getattr(cv, "n_splits", cv)
    return int(found) if isinstance(found, Integral) else None


def _means_of(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return means and deviations over the last axis, which are the folds."""
    with np.errstate(invalid="ignore"):
        means = {f"{key}_mean": values.mean(axis=-1) for key, values in columns.items()}
        return means | {f"{key}_std": values.std(axis=-1) for key, values in columns.items()}


def _answers_of(method: str, predicted: Any, targets: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what a method returned as what it is to an `Evaluation`, with the predictions that follow from it."""
    if method == "predict":
        return {"predictions": predicted}
    if method == "predict_log_proba":
        predicted = [np.exp(part) for part in predicted] if isinstance(predicted, list) else np.exp(predicted)
    known = as_outputs(targets)
    classes = None if known is None or known.ndim > 1 else np.unique(known)
    answers = {"decisions" if method == "decision_function" else "probabilities": predicted}
    if classes is None or isinstance(predicted, list):
        return answers
    if predicted.ndim > 1 and predicted.shape[1] == len(classes):
        answers["predictions"] = classes[predicted.argmax(axis=1)]
    elif predicted.ndim == 1 and len(classes) == 2:  # noqa: PLR2004  # one is on each side of zero
        answers["predictions"] = classes[(predicted > 0).astype(int)]
    return answers


def _number_or_text(value: Any) -> float | str:  # noqa: ANN401
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return value.item() if is_number and hasattr(value, "item") else value if is_number else text_of(value)


def _spans_magnitudes(values: Sequence[float | str]) -> bool:
    """Tell whether values of a param are better shown over a logarithmic axis."""
    numbers = [value for value in values if not isinstance(value, str)]
    return len(numbers) == len(values) > 1 and min(numbers) > 0 and max(numbers) / min(numbers) >= _MANY_TIMES


def _feature_names(features: Any, estimator: Any, count: int) -> list[str]:  # noqa: ANN401
    for found in (getattr(features, "columns", None), getattr(estimator, "feature_names_in_", None)):
        if found is not None and len(found) == count:
            return [str(name) for name in found]
    return [f"x{at}" for at in range(count)]
