"""What a training was fed with, in MLflow's words: name, shapes, size and digest of its data."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import TYPE_CHECKING, Any

from mlflow.entities import Dataset, DatasetInput, InputTag

from mantik.integrations.keras.samples import are_arrays, first_of_arrays, kind_of
from mantik.integrations.keras.structure import named_leaves
from mantik.training.arrays import as_array

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mantik.integrations.keras.call import Call
    from mantik.integrations.keras.kinds import Array, Data

__all__ = ["dataset_inputs"]

_MOST_BYTES = 8 * 1024 * 1024
"""Of each array in the digest; of a larger one only every so many samples are taken."""


def dataset_inputs(call: Call) -> list[DatasetInput]:
    """Return what MLflow records of the data of a ``fit``. Nothing is taken from any of it.

    Args:
        call: The call.
    """
    if call.x is None:
        return []
    rows, size = call.rows, call.batch_size
    inputs = [_input("train", call.x, call.y, _counts(rows=rows, batch_size=size), call.first_batches)]
    if call.validation is not None:
        x, y = call.validation
        inputs.append(_input("validation", x, y, {}, []))
    return inputs


def _input(context: str, x: Data, y: Data, counts: Mapping[str, int], batches: list[Any]) -> DatasetInput:
    kind = kind_of(x)
    features, targets = _specs(x, kind, 0), _specs(y, kind, 1)
    if batches:
        # Looked at by Keras already, and with it the first ones of the training.
        features = _specs(batches[0][0], "arrays", 0)
        targets = _specs(batches[0][1], "arrays", 1) if len(batches[0]) > 1 else []
    profile = {
        "type": kind,
        "features": [{key: spec[key] for key in ("name", "shape", "dtype") if spec[key] != ""} for spec in features],
        "targets": [{key: spec[key] for key in ("name", "shape", "dtype") if spec[key] != ""} for spec in targets],
        **counts,
        **_size(x, kind),
    }
    description = json.dumps(profile, default=str)
    dataset = Dataset(
        name=_name(x, kind),
        digest=_digest(x, y, kind, description),
        source_type="code",
        source=json.dumps({"tags": {"mlflow.source.name": sys.argv[0] if sys.argv else ""}}),
        schema=json.dumps(
            {
                "mlflow_tensorspec": {
                    "features": json.dumps([_tensor(spec) for spec in features]),
                    "targets": json.dumps([_tensor(spec) for spec in targets]) if targets else None,
                }
            }
        )
        if features
        else None,
        profile=description,
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def _name(x: Data, kind: str) -> str:
    if kind == "arrays":
        roots = dict.fromkeys(type(leaf).__module__.partition(".")[0] for _, leaf in named_leaves(x))
        return " and ".join({"jaxlib": "jax"}.get(root, root) for root in roots)
    if kind == "DataLoader":
        return type(x.dataset).__name__
    # A generator has the name of its function.
    return str(getattr(x, "__name__", None) or (kind if kind == "tf.data" else type(x).__name__))


def _size(x: Data, kind: str) -> dict[str, Any]:
    if kind == "DataLoader":
        dataset = x.dataset
        return _counts(rows=len(dataset) if hasattr(dataset, "__len__") else None, batch_size=x.batch_size)
    if kind == "PyDataset":
        return _counts(batches=getattr(x, "num_batches", None))
    return {}


def _counts(**counts: int | None) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count is not None}


def _specs(data: Data, kind: str, at: int) -> list[dict[str, Any]]:
    """Return name, shape and type of each array, as far as they can be seen from outside."""
    if kind == "tf.data":
        spec = data.element_spec if data is not None else None
        data = spec[at] if isinstance(spec, (tuple, list)) and len(spec) > at else (spec if at == 0 else None)
    elif kind == "DataLoader":
        # TensorDataset's.
        tensors = getattr(data.dataset, "tensors", ()) if data is not None else ()
        data = tensors[at] if len(tensors) > at else None
    return [
        {"name": name, "shape": list(leaf.shape), "dtype": str(leaf.dtype).rpartition(".")[2]}
        for name, leaf in named_leaves(data)
        if getattr(leaf, "shape", None) is not None and hasattr(leaf, "dtype")
    ]


def _tensor(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return MLflow's form of one array's type, in which the number of samples is open."""
    shape = [-1 if size is None else int(size) for size in spec["shape"]]
    tensor = {"dtype": spec["dtype"], "shape": [-1, *shape[1:]]}
    return {"type": "tensor", "tensor-spec": tensor, **({"name": spec["name"]} if spec["name"] else {})}


def _digest(x: Data, y: Data, kind: str, description: str) -> str:
    """Return what tells different data apart: by content where that lies in memory, else by description."""
    digest = hashlib.sha256(description.encode())
    if kind == "arrays":
        for data in (x, y):
            for _, leaf in named_leaves(data if are_arrays(data) else None):
                array = _sample(leaf)
                if array is not None and array.dtype.kind != "O":
                    digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _sample(leaf: Array) -> Array:
    first = first_of_arrays(leaf, 1)
    if first is None or not len(first):
        return None
    every = max(1, -(-first.nbytes * len(leaf) // _MOST_BYTES))
    return as_array(leaf[::every], "log_datasets")
