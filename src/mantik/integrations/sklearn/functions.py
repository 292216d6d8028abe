"""Functions that record an estimator or an evaluation when they are called: for those who want no autologging."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from mantik.exceptions import ConfigurationError, InvalidValueError
from mantik.integrations.sklearn import pictures as gallery
from mantik.integrations.sklearn.comparison import classes_compared, numbers_compared, untracked
from mantik.integrations.sklearn.data import TRAINING, Data, rows_of
from mantik.integrations.sklearn.evaluation import Evaluation, last_of
from mantik.integrations.sklearn.fits import Fit
from mantik.integrations.sklearn.listening import silence
from mantik.integrations.sklearn.metrics import metrics_of
from mantik.integrations.sklearn.options import Options
from mantik.integrations.sklearn.quiet import quiet_here
from mantik.integrations.sklearn.randomness import draws
from mantik.integrations.sklearn.runs import RUNS
from mantik.settings import Settings
from mantik.tracking import init_tracking
from mantik.training.boundary import extra

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sklearn.base import BaseEstimator

    from mantik.integrations.sklearn.record import Record

__all__ = ["log_classifier_evaluation", "log_estimator", "log_regressor_evaluation"]


def log_estimator(
    estimator: BaseEstimator,
    X: Any = None,  # noqa: ANN401, N803  # as scikit-learn calls it
    y: Any = None,  # noqa: ANN401
    *,
    sample_weight: Any = None,  # noqa: ANN401
    name: str = TRAINING,
) -> dict[str, float]:
    """Record a fitted estimator: params, tags, model, ``estimator.html``, what it has learned, and how well it does.

    Logs in if that is not done yet, and writes to MLflow's active run, or begins one and ends it. Everything is done
    when it returns. Names are those of autologging: ``C``, ``model``, ``training_accuracy_score``,
    ``training_confusion_matrix.png``; of a further estimator in the same run everything is below its own name,
    ``LogisticRegression/…``. A search has its results recorded, with child runs of the five best candidates.

    Nothing that goes wrong with tracking is raised: a warning tells of it, unless tracking is strict
    (``MANTIK_STRICT=1``). Metrics that cannot be computed are left out.

    Args:
        estimator: The fitted estimator, which is not changed.
        X: Features: of shape (rows, features), or whatever the estimator takes. None: there are neither metrics of
            predictions nor a signature of the model.
        y: Targets, of shape (rows,) or (rows, outputs).
        sample_weight: Weights of the samples, of shape (rows,), for the metrics.
        name: What the data are called. ``training`` is what the estimator was fitted to; of any other name the metrics
            are ``<metric>_<name>`` and the pictures ``<picture>_<name>.png``.

    Returns:
        The metrics by name, without the name that a further estimator of the run has before them.

    Raises:
        InvalidValueError: The estimator is none or is not fitted, it cannot predict from `X`, or the lengths of `X`,
            `y` and `sample_weight` differ.
    """
    _check_name(name)
    _check_fitted(estimator)
    data = _data(X, untracked(y), untracked(sample_weight), name)
    form = "training_{}" if name == TRAINING else "{}_" + _escaped(name)
    kind = type(estimator).__name__
    with silence(), quiet_here():
        evaluation = Evaluation(estimator, data, predictions=_predictions(estimator, X))
        metrics = _named(form, metrics_of(evaluation))
        options = Options(log_datasets=X is not None, log_model_signatures=X is not None)
        strict = _is_strict()

        def write(record: Record) -> None:
            fit = Fit(estimator, record, options, data)
            fit.begin()
            for what, action in fit.descriptions():
                with extra(what, strict=strict):
                    action()
            _write(record, metrics, 0, evaluation, form, strict=strict)

        _record(f"{kind} is not recorded", kind, write, strict=strict)
    return metrics


def log_classifier_evaluation(  # noqa: PLR0913  # what there is to a classification
    y_true: Any,  # noqa: ANN401
    y_pred: Any = None,  # noqa: ANN401
    *,
    y_proba: Any = None,  # noqa: ANN401
    y_score: Any = None,  # noqa: ANN401
    labels: Sequence[Any] | None = None,
    sample_weight: Any = None,  # noqa: ANN401
    pos_label: Any = None,  # noqa: ANN401
    name: str = "test",
    step: int = 0,
    log_plots: bool = True,
) -> dict[str, float]:
    """Record how well classes were predicted, of whatever framework: metrics, and pictures of them.

    Takes lists, arrays, columns of a data frame, and tensors. Logs in if that is not done yet, and writes to MLflow's
    active run, or begins one and ends it. Everything is done when it returns. Metrics are called ``<metric>_<name>``,
    such as ``accuracy_score_test``, and pictures ``<picture>_<name>.png``: ``confusion_matrix``, ``roc_curve``,
    ``precision_recall_curve`` and ``calibration_curve``, as far as the data allow them.

    Nothing that goes wrong with tracking is raised: a warning tells of it, unless tracking is strict
    (``MANTIK_STRICT=1``). Metrics that cannot be computed, such as those of predictions that are NaN, are left out.

    Args:
        y_true: The classes, of shape (rows,); or labels that are there or not, 0 or 1, of shape (rows, labels).
        y_pred: What was predicted, of the same shape. None: the likeliest of `y_proba`.
        y_proba: Probabilities, of shape (rows, classes) or (rows, labels), or of the greater one of two classes, of
            shape (rows,).
        y_score: What `decision_function` returns, of shape (rows, classes), or of the greater one of two classes, of
            shape (rows,). Alone it tells how well samples are ranked, and nothing else.
        labels: The classes, in the order of the columns. Needed where not all of them are in the data, unless they are
            the numbers of the columns; a classifier has them as ``classes_``.
        sample_weight: Weights of the samples, of shape (rows,).
        pos_label: The positive one of two classes, for precision, recall and F1, which are else weighted means over
            classes.
        name: What the data are called.
        step: Of the metrics, such as an epoch. A later picture takes the place of an earlier one of the same name.
        log_plots: Draw pictures.

    Returns:
        The metrics by name.

    Raises:
        InvalidValueError: There is nothing to compare with, or the values do not fit together.
    """
    _check_name(name)
    _check_step(step)
    outcomes = {"y_pred": y_pred, "y_proba": y_proba, "y_score": y_score}
    evaluation = classes_compared(
        y_true, outcomes, labels=labels, sample_weight=sample_weight, pos_label=pos_label, name=name
    )
    return _log(evaluation, step, log_plots=log_plots)


def log_regressor_evaluation(  # noqa: PLR0913  # what there is to a regression
    y_true: Any,  # noqa: ANN401
    y_pred: Any,  # noqa: ANN401
    *,
    sample_weight: Any = None,  # noqa: ANN401
    name: str = "test",
    step: int = 0,
    log_plots: bool = True,
) -> dict[str, float]:
    """Record how well numbers were predicted, of whatever framework: metrics, and pictures of them.

    As `log_classifier_evaluation`, with the metrics of regressors, such as ``root_mean_squared_error_test``, and the
    pictures ``predicted_vs_true`` and ``residuals``.

    Args:
        y_true: Numbers, of shape (rows,) or (rows, outputs). Rows with NaN do not count.
        y_pred: What was predicted, of the same shape.
        sample_weight: Weights of the samples, of shape (rows,).
        name: What the data are called.
        step: Of the metrics, such as an epoch. A later picture takes the place of an earlier one of the same name.
        log_plots: Draw pictures.

    Returns:
        The metrics by name.

    Raises:
        InvalidValueError: The values are no numbers, or do not fit together.
    """
    _check_name(name)
    _check_step(step)
    evaluation = numbers_compared(y_true, y_pred, sample_weight=sample_weight, name=name)
    return _log(evaluation, step, log_plots=log_plots)


def _log(evaluation: Evaluation, step: int, *, log_plots: bool) -> dict[str, float]:
    name = evaluation.data.name
    form = "{}_" + _escaped(name)
    strict = _is_strict()
    with silence(), quiet_here():
        metrics = _named(form, metrics_of(evaluation))
        drawn = evaluation if log_plots else None
        _record(
            f"The evaluation {name} is not recorded",
            None,
            lambda record: _write(record, metrics, step, drawn, form, strict=strict),
            strict=strict,
        )
    return metrics


def _record(what: str, name: str | None, write: Callable[[Record], None], *, strict: bool) -> None:
    """Log in, find a run, have something written there, and end the run if it was begun for that."""
    with extra(what, strict=strict):
        init_tracking()
        place = RUNS.asked(name)
        status = "FAILED"
        try:
            write(place.record)
            status = "FINISHED"
        finally:
            place.end(status)


def _write(  # noqa: PLR0913  # what is written, and where
    record: Record, metrics: Mapping[str, float], step: int, drawn: Evaluation | None, form: str, *, strict: bool
) -> None:
    record.metrics(metrics, int(step))
    for picture in () if drawn is None else gallery.pictures_of_evaluation(drawn):
        with extra(f"The picture {picture.name} is not there", strict=strict):
            record.picture(picture, form.format(picture.name))


def _named(form: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {form.format(metric): value for metric, value in metrics.items()}


def _escaped(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")


def _is_strict() -> bool:
    try:
        return Settings.from_environment().strict
    except ConfigurationError:
        # The login says what is wrong with a setting.
        return False


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name.strip():
        raise InvalidValueError(f"name is {name!r}. It is what the data are called: a text such as 'test'.")


def _check_step(step: object) -> None:
    if not isinstance(step, Integral) or isinstance(step, bool):
        raise InvalidValueError(f"step is {step!r}. It is a whole number, such as that of an epoch.")


def _check_fitted(estimator: BaseEstimator) -> None:
    if isinstance(estimator, type) or not hasattr(estimator, "get_params"):
        raise InvalidValueError(
            f"{estimator!r:.200} is no estimator of scikit-learn. Hand over a fitted one; of other models "
            "log_classifier_evaluation and log_regressor_evaluation record predictions."
        )
    # What a search and a pipeline end in may be of a class that does not tell whether it is fitted.
    last: Any = last_of(estimator)
    try:
        check_is_fitted(last)
    except (NotFittedError, TypeError) as error:
        kind = type(last)
        params = last.get_params(deep=False) if hasattr(last, "get_params") else ()
        learned = set(getattr(last, "__dict__", ())) - set(params)
        if kind.__module__.startswith("sklearn.") or not learned:
            raise InvalidValueError(
                f"{kind.__name__} is not fitted. Call fit before it is recorded; nothing was recorded."
            ) from error


def _data(features: Any, targets: Any, weights: Any, name: str) -> Data:  # noqa: ANN401
    if features is None and (targets is not None or weights is not None):
        raise InvalidValueError("There is y or sample_weight, and no X. Hand over the features that they belong to.")
    rows = rows_of(features)
    for what, values in (("y", targets), ("sample_weight", weights)):
        count = rows if values is None else rows_of(values)
        if count != rows:
            raise InvalidValueError(f"{what} has {count} rows and X has {rows}. Hand over one row for each of X.")
    return Data(features, targets, weights, name, rows, rows)


def _predictions(estimator: Any, features: Any) -> Any:  # noqa: ANN401
    """Return what an estimator predicts; None where it does not, or where that would change the user's random numbers.

    Raises:
        InvalidValueError: It cannot.
    """
    predict = getattr(estimator, "predict", None)
    if features is None or not callable(predict) or draws(estimator, "predict"):
        return None
    try:
        return predict(features)
    except Exception as error:  # whatever an estimator raises
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise InvalidValueError(
            f"{type(estimator).__name__} cannot predict from X: {reason}. Hand over features such as it was fitted to."
        ) from error
