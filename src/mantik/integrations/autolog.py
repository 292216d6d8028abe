"""One line that tracks any framework."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mantik.exceptions import ConfigurationError, MantikError
from mantik.tracking import init_tracking

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["autolog"]

_logger = logging.getLogger(__name__)

_LIBRARIES = {
    "keras": ("keras",),
    "lightgbm": ("lightgbm",),
    "pytorch": ("lightning", "pytorch_lightning"),
    "sklearn": ("sklearn",),
    "statsmodels": ("statsmodels",),
    "tensorflow": ("tensorflow",),
    "transformers": ("transformers", "setfit"),
    "xgboost": ("xgboost",),
}
"""The frameworks that may get options of their own: MLflow's names, and the modules that are imported for them."""


def autolog(*, strict: bool = False, **options: Any) -> None:  # noqa: ANN401  # MLflow's own, whatever its version has
    """Log in if that is not done yet, and record what is trained from now on, with any framework.

    Trainings of scikit-learn are recorded by :func:`mantik.integrations.sklearn.autolog`, those of Lightning, Keras,
    XGBoost, LightGBM and the other frameworks that MLflow knows by MLflow's own autologging, all through the durable
    store: params, metrics, artifacts, the model. It does not matter whether a framework is imported before or after.
    Call it once before the training; calling it again changes the options.

    It never raises: what is wrong with the options or the login is said in a warning, and the training goes on without
    being tracked.

    Args:
        strict: Raise what is wrong instead.
        **options: Those of :func:`mlflow.autolog`, for all frameworks, e.g. ``log_models=True``, ``exclusive=False``,
            ``disable=False``, ``silent=False``, ``log_input_examples=False``, ``log_datasets=True``,
            ``extra_tags=None``; and by the name of a framework those for it alone, e.g.
            ``sklearn={"max_tuning_runs": None}`` or ``xgboost={"log_models": False}``.

    Raises:
        MissingSettingsError: Settings are missing, and `strict` is set; the error names all of them.
        ConfigurationError: An option is unknown or has a value that is none of those possible, and `strict` is set.
        MantikError: The login failed, as with :func:`mantik.init_tracking`, and `strict` is set.
    """
    try:
        _autolog(options, strict=strict)
    except MantikError as error:
        if strict:
            raise
        _logger.warning("mantik.autolog() does not track: %s", error)


def _autolog(options: dict[str, Any], *, strict: bool) -> None:
    own = {name: options.pop(name) for name in _LIBRARIES if name in options}
    for name, value in own.items():
        if not isinstance(value, Mapping):
            raise ConfigurationError(
                f"The option {name} is {value!r}. It holds options for {name} alone: a dict, e.g. "
                f'{name}={{"log_models": False}}.'
            )
    # Switching off needs no platform.
    if not options.get("disable"):
        init_tracking(strict=strict)
    import mlflow
    from mlflow.utils.import_hooks import register_post_import_hook

    known = inspect.signature(mlflow.autolog).parameters
    sklearn = _sklearn_options(options, own.pop("sklearn", {}))
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ConfigurationError(
            f"Unknown options: {', '.join(unknown)}. There are {', '.join(known)}, and for single frameworks "
            f"{', '.join(_LIBRARIES)}."
        )
    left_out = [*(options.pop("exclude_flavors", None) or ()), *own]
    mlflow.autolog(**options, exclude_flavors=[*left_out, "sklearn"])
    for flavor, values in own.items():
        for library in _LIBRARIES[flavor]:
            register_post_import_hook(_Flavor(flavor, options | dict(values)), library, overwrite=True)
    if "sklearn" not in left_out:
        register_post_import_hook(_ScikitLearn(sklearn, strict=strict), "sklearn", overwrite=True)
        for library in ("xgboost", "lightgbm"):
            # After MLflow, which puts methods of its own into their estimators.
            register_post_import_hook(_watch_again, library, overwrite=True)


def _sklearn_options(options: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options for scikit-learn: those for all frameworks that it has, and its own.

    Raises:
        ConfigurationError: It has no such option.
    """
    from mantik.integrations.sklearn.autologging import sklearn_autolog

    known = inspect.signature(sklearn_autolog).parameters
    unknown = [name for name in own if name not in known]
    if unknown:
        raise ConfigurationError(f"Unknown options for sklearn: {', '.join(unknown)}. There are {', '.join(known)}.")
    return {name: value for name, value in options.items() if name in known} | dict(own)


class _ScikitLearn:
    """Switches autologging of scikit-learn on once it is imported."""

    def __init__(self, options: dict[str, Any], *, strict: bool) -> None:
        self._options = {"strict": strict, **options}
        # By which MLflow tells that a later one takes the place of an earlier one.
        self.__name__ = "mantik_sklearn"

    def __call__(self, _: ModuleType) -> None:
        from mantik.integrations.sklearn.autologging import sklearn_autolog

        sklearn_autolog(**self._options)


class _Flavor:
    """Switches MLflow's autologging of one framework on, with options of its own, once it is imported."""

    def __init__(self, flavor: str, options: dict[str, Any]) -> None:
        self._flavor = flavor
        self._options = options
        self.__name__ = f"mantik_{flavor}"

    def __call__(self, _: ModuleType) -> None:
        switch = importlib.import_module(f"mlflow.{self._flavor}").autolog
        known = inspect.signature(switch).parameters
        unknown = [name for name in self._options if name not in known]
        if unknown:
            _logger.warning(
                "MLflow's autologging of %s has no options %s; it has %s.",
                self._flavor,
                ", ".join(unknown),
                ", ".join(known),
            )
        switch(**{name: value for name, value in self._options.items() if name in known})


def _watch_again(_: ModuleType) -> None:
    from mantik.integrations.sklearn.autologging import watch_again

    watch_again()
