"""Switching autologging of scikit-learn on and off."""

from __future__ import annotations

import logging
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mantik.exceptions import MantikError
from mantik.integrations.sklearn.options import Options, SerializationFormat
from mantik.tracking import init_tracking

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mantik.integrations.sklearn.hooks import Hooks
    from mantik.integrations.sklearn.tracker import Tracker

__all__ = ["sklearn_autolog", "switch_off", "switch_on", "watch_again"]

_logger = logging.getLogger(__name__)

_OLDEST = (1, 3)
"""The first scikit-learn that is supported."""

_NO_MEASURES = {"check_scoring", "get_scorer", "make_scorer", "get_scorer_names"}
"""What is a function of `sklearn.metrics` and measures nothing."""


class _Switch:
    """What is on in this process."""

    hooks: Hooks | None = None
    tracker: Tracker | None = None


def sklearn_autolog(  # noqa: PLR0913  # MLflow's arguments, and some more
    *,
    log_input_examples: bool = False,
    log_model_signatures: bool = True,
    log_models: bool = True,
    log_datasets: bool = True,
    disable: bool = False,
    exclusive: bool = False,
    disable_for_unsupported_versions: bool = False,
    silent: bool = False,
    max_tuning_runs: int | None = 5,
    log_post_training_metrics: bool = True,
    serialization_format: SerializationFormat = "auto",
    registered_model_name: str | None = None,
    pos_label: Any = None,  # noqa: ANN401  # a label of the user's data
    extra_tags: Mapping[str, Any] | None = None,
    log_plots: bool = True,
    log_preprocessing: bool = False,
    strict: bool = False,
) -> None:
    """Log in if that is not done yet, and record what is done with scikit-learn from now on.

    Each `fit`, `fit_predict`, `fit_transform` or `partial_fit` of any estimator, each search, `cross_validate`,
    `cross_val_score`, `cross_val_predict`, `learning_curve`, `validation_curve` and `permutation_importance` that the
    program calls itself is recorded: in MLflow's active run, or else in a run of its own. Params, metrics and artifacts
    have the names that :func:`mlflow.sklearn.autolog` gives them. What an estimator calls inside, and what its workers
    do, is not. What takes time is done after the call has returned; readers of the run, :func:`mantik.flush` and the
    end of the process wait for it.

    The result of a training is never changed, and nothing that goes wrong with tracking ends it. Calling this again
    changes the options.

    Args:
        log_input_examples: Keep some rows of the input beside the model.
        log_model_signatures: Describe what the model takes and returns.
        log_models: Keep the fitted estimator as an MLflow model.
        log_datasets: Describe the data.
        disable: Switch it off; needs no platform.
        exclusive: Record nothing in runs that the program began itself.
        disable_for_unsupported_versions: Stay off with a scikit-learn older than 1.3, instead of trying.
        silent: Say nothing but errors.
        max_tuning_runs: How many child runs a search gets at most, for its best candidates; None for all.
        log_post_training_metrics: Record what `score`, `predict` and the functions of `sklearn.metrics` tell of other
            data.
        serialization_format: ``auto`` takes skops where the model needs nothing but what it trusts, else cloudpickle.
        registered_model_name: Register each model under this name.
        pos_label: The positive class of binary classifiers, for precision, recall and F1.
        extra_tags: Tags for the runs that are begun.
        log_plots: Draw pictures.
        log_preprocessing: Record scalers, encoders, imputers and the like also where they are fitted by themselves.
        strict: Raise what goes wrong here and with the beginning of a run.

    Raises:
        MantikError: Something is wrong with the options or the login, and `strict` is set; otherwise a warning says so.
    """
    if disable:
        switch_off()
        return
    try:
        options = Options(
            log_input_examples=log_input_examples,
            log_model_signatures=log_model_signatures,
            log_models=log_models,
            log_datasets=log_datasets,
            exclusive=exclusive,
            silent=silent,
            max_tuning_runs=max_tuning_runs,
            log_post_training_metrics=log_post_training_metrics,
            serialization_format=serialization_format,
            registered_model_name=registered_model_name,
            pos_label=pos_label,
            extra_tags=extra_tags,
            log_plots=log_plots,
            log_preprocessing=log_preprocessing,
        )
        init_tracking(strict=strict)
    except MantikError as error:
        if strict:
            raise
        _logger.warning("scikit-learn is not tracked: %s", error)
        return
    switch_on(options, strict=strict, only_supported=disable_for_unsupported_versions)


def switch_on(options: Options, *, strict: bool = False, only_supported: bool = False) -> None:
    """Begin to record, or go on with other options.

    Args:
        options: What to record.
        strict: Raise what goes wrong with the beginning of a run.
        only_supported: Stay off with a scikit-learn that is too old.
    """
    found = version("scikit-learn")
    if only_supported and tuple(int(part) for part in found.split(".")[:2]) < _OLDEST:
        _logger.warning(
            "scikit-learn %s is not tracked: it is older than %s.", found, ".".join(str(part) for part in _OLDEST)
        )
        return
    if options.log_plots and find_spec("matplotlib") is None:
        if not options.silent:
            _logger.warning("No pictures are drawn without matplotlib. To install it: pip install 'mantik[sklearn]'")
        options = replace(options, log_plots=False)
    _replace_mlflow()
    if _Switch.tracker is None:
        from mantik.integrations.sklearn.afterwards import Afterwards
        from mantik.integrations.sklearn.tracker import Tracker

        _Switch.tracker = Tracker(options, Afterwards(), strict=strict)
    _Switch.tracker.options, _Switch.tracker.strict = options, strict
    if _Switch.hooks is None:
        from mantik.integrations.sklearn.hooks import Hooks
        from mantik.integrations.sklearn.tracker import METHODS

        _Switch.hooks = Hooks(METHODS, _functions(), _Switch.tracker)
        _Switch.hooks.put()
    else:
        _Switch.hooks.put_again()


def switch_off() -> None:
    """Record nothing any more, and leave scikit-learn as it was."""
    if _Switch.hooks is not None:
        _Switch.hooks.take_away()
        _Switch.hooks = None


def watch_again() -> None:
    """Look after classes that MLflow has put its own methods into since."""
    if _Switch.hooks is not None:
        _Switch.hooks.put_again()


def _replace_mlflow() -> None:
    """Switch MLflow's own autologging of scikit-learn off, where it is on."""
    from mlflow.utils.autologging_utils import autologging_is_disabled

    if not autologging_is_disabled("sklearn"):
        import mlflow.sklearn

        mlflow.sklearn.autolog(disable=True)


def _functions() -> dict[str, Callable[..., Any]]:
    """Return the functions whose calls are of interest, by name."""
    import inspect

    import sklearn.inspection
    import sklearn.metrics
    import sklearn.model_selection

    from mantik.integrations.sklearn.tracker import VALIDATIONS

    functions: dict[str, Callable[..., Any]] = {
        name: function
        for name in sklearn.metrics.__all__
        if name not in _NO_MEASURES and inspect.isfunction(function := getattr(sklearn.metrics, name))
    }
    for name in VALIDATIONS:
        home = sklearn.inspection if name == "permutation_importance" else sklearn.model_selection
        functions[name] = getattr(home, name)
    return functions
