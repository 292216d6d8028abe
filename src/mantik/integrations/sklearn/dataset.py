"""What an estimator was fitted to or tried on, in MLflow's words: name, schema, size and digest of the data."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.digest_utils import compute_numpy_digest
from mlflow.data.numpy_dataset import from_numpy
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.tracking.context.registry import resolve_tags
from mlflow.types import Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from mantik.integrations.sklearn.data import TRAINING
from mantik.integrations.sklearn.quiet import quiet_here
from mantik.training.boundary import extra

if TYPE_CHECKING:
    from typing import Literal

    from mlflow import MlflowClient

    from mantik.integrations.sklearn.data import Data

__all__ = ["log_dataset", "plain"]

_MOST_COLUMNS = 2_000
"""Of a frame whose schema MLflow is asked for: it looks at one column after the other."""

_MOST_CELLS = 200_000
"""Of a frame that MLflow looks at: it asks each cell whether it is empty, which takes a microsecond each."""

_DIGEST_ROWS = 10_000
"""MLflow's own limit (`data/digest_utils.py`)."""


def log_dataset(data: Data, run_id: str, context: Literal["train", "eval"], client: MlflowClient) -> None:
    """Record what there is to know of data as an input of a run, as MLflow's autologging does.

    Arrays and frames have the schema and digest that MLflow gives them. Of what MLflow cannot describe, such as sparse
    matrices and ragged lists, shape and type are recorded. Nothing is made dense, and nothing raised.

    Args:
        data: The data. Of those of which only some samples are kept, the size is that of all.
        run_id: The run, which may have ended.
        context: What they were for.
        client: MLflow's client for the platform.
    """
    with quiet_here(), extra(f"The data {data.name} are not described", strict=False):
        tags = [InputTag(MLFLOW_DATASET_CONTEXT, context)]
        client.log_inputs(run_id, [DatasetInput(_dataset(data), tags)])


def plain(values: Any) -> Any:  # noqa: ANN401  # a frame, an array, a matrix
    """Return data in one of the forms that MLflow knows: as pandas' frame, numpy's array, or scipy's sparse matrix.

    It is what scikit-learn makes of them as well. A series is an array, as MLflow would hand a frame to the model.

    Raises:
        Exception: They have no such form.
    """
    if isinstance(values, pd.DataFrame):
        return values
    if isinstance(values, pd.Series | pd.Index):
        return values.to_numpy()
    if sp.issparse(values):
        # MLflow knows these two only, and not as arrays.
        return sp.csc_matrix(values) if values.format == "csc" else sp.csr_matrix(values)
    if callable(getattr(values, "to_pandas", None)):
        return plain(values.to_pandas())
    if isinstance(values, list | tuple) and values and isinstance(values[0], str | bytes | dict):
        # As texts of one width they would take as much memory each as the longest one.
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    array = np.asarray(values)
    if not array.ndim:
        raise TypeError(f"Data of the type {type(values).__name__} are no array.")
    return array


def _dataset(data: Data) -> Dataset:
    name = "dataset" if data.name == TRAINING else data.name
    try:
        fields = _as_mlflow_has_it(data, name)
    except Exception:  # noqa: BLE001  # data of any library; whatever they are, something can be told of them
        fields = _facts(data, name)
    return Dataset(**fields)


def _as_mlflow_has_it(data: Data, name: str) -> dict[str, Any]:
    if sp.issparse(data.features):
        return _facts(data, name)
    features = plain(data.features)
    targets = None if data.targets is None else np.asarray(plain(data.targets))
    source = CodeDatasetSource(_context())
    if isinstance(features, pd.DataFrame):
        if features.shape[1] > _MOST_COLUMNS:
            return _facts(data, name)
        fields = _frame_as_mlflow_has_it(features, name, source)
        if targets is not None:
            fields["profile"]["targets_shape"] = targets.shape
    else:
        found = from_numpy(features, source, targets, name)  # type: ignore[arg-type]  # no targets are None
        fields = found.to_dict()
        fields["profile"] = json.loads(fields["profile"])
    if data.is_sampled:
        # A platform holds one description for a name and a digest, and there may be data that are no more than this.
        fields["digest"] = hashlib.sha256(f"{fields['digest']} of {data.rows}".encode()).hexdigest()[:8]
    profile = {key: _of_all(value, data) for key, value in fields["profile"].items()}
    return {**fields, "profile": json.dumps(profile)}


def _frame_as_mlflow_has_it(frame: Any, name: str, source: CodeDatasetSource) -> dict[str, Any]:  # noqa: ANN401
    if not all(isinstance(column, str) for column in frame.columns):
        frame = frame.set_axis([str(column) for column in frame.columns], axis="columns")
    rows, columns = frame.shape
    digest = from_pandas(frame, source).digest
    first = frame.head(_MOST_CELLS // max(1, columns))
    fields: dict[str, Any] = from_pandas(first, source, name=name, digest=digest).to_dict()
    fields["profile"] = {"num_rows": rows, "num_elements": rows * columns}
    return fields


def _facts(data: Data, name: str) -> dict[str, Any]:
    """Return what can be said of any data."""
    profile: dict[str, Any] = {}
    digest = hashlib.sha256()
    specs: dict[str, TensorSpec] = {}
    for what, values in (("features", data.features), ("targets", data.targets)):
        if values is None:
            continue
        shape = getattr(values, "shape", None)
        dtype = getattr(values, "dtype", None)
        profile[f"{what}_type"] = type(values).__name__
        if isinstance(shape, tuple) and shape:
            profile[f"{what}_shape"] = _of_all(shape, data)
            if isinstance(dtype, np.dtype):
                specs[what] = TensorSpec(dtype, (-1, *shape[1:]))
        if dtype is not None:
            profile[f"{what}_dtype"] = str(dtype)
        if sp.issparse(values):
            profile[f"{what}_nonzero"] = _of_all(int(values.nnz), data)
        digest.update(_content(values))
    if data.rows is not None:
        profile["num_rows"] = data.rows
    digest.update(json.dumps(profile).encode())
    schema = None
    if "features" in specs:
        tensors = {what: Schema([spec]).to_json() for what, spec in specs.items()}
        schema = json.dumps({"mlflow_tensorspec": {"targets": None, **tensors}})
    return {
        "name": name,
        "digest": digest.hexdigest()[:8],
        "source_type": "code",
        "source": json.dumps({"tags": _context()}),
        "schema": schema,
        "profile": json.dumps(profile),
    }


def _content(values: Any) -> bytes:  # noqa: ANN401
    """Return what tells values from others of the same shape, where it can be had at once."""
    if sp.issparse(values):
        matrix = values if values.format in {"csr", "csc"} else values.tocsr()
        parts = (matrix.data, matrix.indices, matrix.indptr)
        return b"".join(np.ascontiguousarray(part[:_DIGEST_ROWS]).tobytes() for part in parts)
    if isinstance(values, pd.DataFrame):
        first = values.head(_DIGEST_ROWS // max(1, values.shape[1]) + 1)
        return compute_numpy_digest(first.to_numpy()).encode()
    return b""


def _of_all(value: Any, data: Data) -> Any:  # noqa: ANN401  # numbers and shapes of a profile
    """Return what something counted of the samples that are here is of all."""
    if not data.is_sampled or not data.kept or data.rows is None:
        return value
    if isinstance(value, list | tuple):
        return [data.rows, *value[1:]]
    return value * data.rows // data.kept if isinstance(value, int) else value


@functools.cache
def _context() -> dict[str, str]:
    """Return where the data come from, as far as it is known: what this process runs."""
    tags: dict[str, str] = resolve_tags()
    return tags
