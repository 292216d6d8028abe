"""A trained Keras model as an MLflow model that can be loaded and served."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import keras  # type: ignore[import-untyped]
import mlflow

from mantik.integrations.keras.samples import first_of_arrays, first_samples, kind_of
from mantik.integrations.keras.structure import leaves, mapped, named_leaves
from mantik.training.arrays import as_array

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    from mantik.integrations.keras.call import Call
    from mantik.integrations.keras.kinds import Array, Model

__all__ = ["BestWeights", "log_model"]

_ROWS = 8
"""How many samples the signature is made from."""


class BestWeights:
    """The weights that the best epoch ended with, in memory, as Keras's ``EarlyStopping`` keeps them."""

    def __init__(self) -> None:
        self._weights: list[Any] | None = None

    def take(self, model: Model) -> None:
        """Keep the weights that a model has now."""
        self._weights = model.get_weights()

    def read(self, model: Model, path: Path) -> None:
        """Keep the weights in a checkpoint.

        Args:
            model: A model like the one that was saved; it has the weights that it has.
            path: The file.
        """
        held = model.get_weights()
        model.load_weights(path)
        self._weights = model.get_weights()
        model.set_weights(held)

    @property
    def is_empty(self) -> bool:
        """Whether none are kept."""
        return self._weights is None

    def exchange(self, model: Model) -> None:
        """Give a model the weights that are kept, if there are any, and keep those that it has."""
        if self._weights is not None:
            held = model.get_weights()
            model.set_weights(self._weights)
            self._weights = held


def log_model(model: Model, call: Call, registered_model_name: str | None) -> None:
    """Log a model as the MLflow model ``model`` of the active run, which ``mlflow.keras.load_model`` loads.

    Args:
        model: The model, as it is now.
        call: The ``fit`` that has trained it, for the signature.
        registered_model_name: The registered model of which it becomes a version; None: of none.
    """
    import mlflow.keras

    # Its name is a path up to MLflow 2.
    names = inspect.signature(mlflow.keras.log_model).parameters
    mlflow.keras.log_model(
        model,
        **({"name": "model"} if "name" in names else {"artifact_path": "model"}),
        signature=_signature(model, call),
        registered_model_name=registered_model_name,
        await_registration_for=0,
        # MLflow would load the model in another process to see what it imports, which takes ten seconds and more.
        pip_requirements=_requirements(),
    )


def _signature(model: Model, call: Call) -> ModelSignature | None:
    features = _named(_first_features(call), model)
    if features is not None:
        outputs = mapped(lambda leaf: as_array(leaf, "log_model"), model(features, training=False))
        return mlflow.models.infer_signature(features, _named(outputs, None))
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        return None
    return mlflow.models.ModelSignature(inputs=_schema(inputs), outputs=_schema(outputs))


def _first_features(call: Call) -> Array:
    """Return some samples, of data that can be looked at without taking a batch from it."""
    if call.first_batches:
        return first_of_arrays(call.first_batches[0][0], _ROWS)
    if kind_of(call.x) in {"arrays", "PyDataset"}:
        found = first_samples(call.x, None, _ROWS)
        return None if found is None else found[0]
    return None


def _named(data: Array, model: Model) -> Array:
    """Return arrays in the form that signatures have: one array, or a dict of several."""
    several = list(named_leaves(data))
    if not several:
        return None
    if len(several) == 1 and not isinstance(data, dict):
        return several[0][1]
    if isinstance(data, dict):
        return dict(several)
    names = [tensor.name for tensor in getattr(model, "inputs", None) or []]
    if len(names) != len(several):
        names = [name for name, _ in several]
    return dict(zip(names, leaves(data), strict=True))


def _schema(tensors: list[Any]) -> Schema:
    import numpy as np
    from mlflow.types import ColSpec, Schema, TensorSpec

    several = len(tensors) > 1
    specs: list[ColSpec | TensorSpec] = []
    for tensor in tensors:
        shape = (-1, *(-1 if size is None else size for size in tensor.shape[1:]))
        # What numpy does not know, such as bfloat16, is handed over as float32.
        kind = np.dtype(tensor.dtype if tensor.dtype != "bfloat16" else "float32")
        specs.append(TensorSpec(kind, shape, tensor.name if several else None))
    return Schema(specs)


def _requirements() -> list[str]:
    """Return what loading a model needs."""
    packages = [package for package in ("keras", keras.backend.backend(), "numpy") if find_spec(package) is not None]
    # Without the build of it, such as "+cpu", which no index has.
    return [f"{package}=={version(package).partition('+')[0]}" for package in packages]
