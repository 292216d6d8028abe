"""One line that tracks any framework."""

from __future__ import annotations

from typing import Any

from mantik.tracking import init_tracking

__all__ = ["autolog"]


def autolog(**options: Any) -> None:  # noqa: ANN401  # MLflow's own options, whatever its version has
    """Log in if that is not done yet, and switch on MLflow's autologging for every framework.

    From then on a training of scikit-learn, Lightning, Keras, XGBoost and the other frameworks that MLflow knows is
    recorded by itself: parameters, metrics, the model. Call it once before the training; calling it again changes the
    options.

    Args:
        **options: Those of :func:`mlflow.autolog`, e.g. ``log_models=True``, ``exclusive=False``, ``disable=False``,
            ``silent=False``,
            ``log_input_examples=False``, ``log_datasets=True``, ``extra_tags=None``.

    Raises:
        MissingSettingsError: Settings are missing; the error names all of them.
        MantikError: The login failed, as with :func:`mantik.init_tracking`.
    """
    # Switching off needs no platform.
    if not options.get("disable"):
        init_tracking()
    import mlflow

    mlflow.autolog(**options)
