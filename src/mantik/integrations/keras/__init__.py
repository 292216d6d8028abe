"""`MantikCallback`, which tracks what Keras does, on every backend, and `MantikEvaluation`, for tables of one's own."""

from __future__ import annotations

from mantik.exceptions import MissingExtraError

try:
    import keras  # type: ignore[import-untyped]  # noqa: F401  # asked for before anything is built on it
except ModuleNotFoundError as error:
    if error.name != "keras":
        # Keras is there, but lacks something, such as its backend.
        raise
    raise MissingExtraError("MantikCallback", "keras", "keras") from error

from mantik.integrations.keras.callback import MantikCallback
from mantik.integrations.keras.evaluation import MantikEvaluation

__all__ = ["MantikCallback", "MantikEvaluation"]
