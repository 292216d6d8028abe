"""What a model takes and what it returns, told from some samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import scipy.sparse as sp
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, infer_signature, validate_schema
from mlflow.types import ColSpec, Schema, TensorSpec

from mantik.integrations.sklearn.dataset import plain

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from mantik.integrations.sklearn.data import Data

__all__ = ["example_of", "signature_of"]

_ROWS = 5
"""How many samples are looked at; as many as MLflow's autologging takes."""


def signature_of(estimator: BaseEstimator, data: Data) -> ModelSignature | None:
    """Return the signature of a fitted estimator: of its features, and of what it predicts or makes of them.

    A model that has one refuses data of other types, so the signature is one that takes the data that the estimator was
    fitted to, or there is none.

    Args:
        estimator: The estimator. It predicts for some of the samples, of which it gets a copy.
        data: What it was fitted to. The signature of a list is that of the array that scikit-learn makes of it.

    Raises:
        Exception: The data are of an unknown type, or the estimator fails at them.
    """
    features = example_of(data)
    ask = getattr(estimator, "predict", None) or getattr(estimator, "transform", None)
    outputs = None if ask is None else plain(ask(_head(data)))
    signature = infer_signature(features, outputs)
    try:
        validate_schema(features, signature.inputs)
    except MlflowException:
        inputs = _with_open_columns(features, signature.inputs)
        return None if inputs is None else ModelSignature(inputs, signature.outputs)
    return signature


def example_of(data: Data) -> Any:  # noqa: ANN401  # a frame, an array, a matrix
    """Return some samples' features as MLflow keeps them with a model.

    Raises:
        Exception: They are of an unknown type.
    """
    return plain(_head(data))


def _head(data: Data) -> Any:  # noqa: ANN401  # whatever the features are
    if sp.issparse(data.features) and data.features.format not in {"csr", "csc"}:
        # The others have no rows that could be taken.
        return data.features.tocsr()[:_ROWS]
    return data.head(_ROWS)


def _with_open_columns(features: Any, schema: Schema) -> Schema | None:  # noqa: ANN401
    """Return a schema that takes anything where MLflow does not take what it has found itself, such as categories."""
    try:
        from mlflow.types.schema import AnyType
    except ImportError:
        # MLflow before 2.20.
        return None
    if not isinstance(features, pd.DataFrame):
        return None
    found = [column for column in schema.inputs if isinstance(column, ColSpec)]
    columns: list[ColSpec | TensorSpec] = [
        column if _takes(column, features) else ColSpec(AnyType(), column.name, column.required) for column in found
    ]
    return Schema(columns)


def _takes(column: ColSpec, features: Any) -> bool:  # noqa: ANN401
    try:
        validate_schema(features[[column.name]], Schema([column]))
    except MlflowException:
        return False
    return True
