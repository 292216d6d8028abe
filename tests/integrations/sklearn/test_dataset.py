"""What a run says of the data that it was given: name, size, schema and digest, whatever the data are."""

# ruff: noqa: ANN401  # data of any kind

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from mlflow.data.numpy_dataset import from_numpy
from mlflow.data.pandas_dataset import from_pandas

import mantik
from mantik.integrations.sklearn.data import Data
from mantik.integrations.sklearn.dataset import log_dataset

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow.entities import Dataset

    from tests.integrations.arrivals import Arrived

RNG = np.random.default_rng(0)
X, Y = RNG.random((50, 3)), np.arange(50) % 2
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])


@pytest.fixture
def run_id(arrived: Arrived, tmp_path: Path) -> str:
    """Return the id of an ended run in an experiment of its own, as of the same data an experiment keeps the first."""
    client = mlflow.MlflowClient()
    run_id: str = client.create_run(client.create_experiment(str(tmp_path))).info.run_id
    client.set_terminated(run_id)
    return run_id


def recorded(run_id: str, features: Any, targets: Any = None, **facts: Any) -> Dataset:
    """Record data and return what the platform has of them."""
    data = Data(features, targets, **{"rows": len(Y), "kept": len(Y), **facts})
    log_dataset(data, run_id, "train", mlflow.MlflowClient())
    assert mantik.flush(60)
    (found,) = mlflow.MlflowClient().get_run(run_id).inputs.dataset_inputs
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "train")]
    return found.dataset


def test_arrays_as_mlflow_has_them(run_id: str) -> None:
    """Arrays have the digest, schema and profile of MLflow's own autologging, and say what script they are from."""
    dataset = recorded(run_id, X, Y)
    own = from_numpy(X, targets=Y)
    assert (dataset.name, dataset.digest, dataset.source_type) == ("dataset", own.digest, "code")
    assert json.loads(dataset.profile) == json.loads(json.dumps(own.profile))
    assert json.loads(dataset.schema) == own.schema.to_dict()
    assert "mlflow.source.name" in json.loads(dataset.source)["tags"]


def test_frames_as_mlflow_has_them(run_id: str) -> None:
    """Frames have the digest and the columns of MLflow's own autologging."""
    dataset = recorded(run_id, FRAME, pd.Series(Y))
    own = from_pandas(FRAME)
    assert dataset.digest == own.digest
    assert json.loads(dataset.schema) == {"mlflow_colspec": own.schema.to_dict()}
    assert json.loads(dataset.profile) == {"num_rows": 50, "num_elements": 150, "targets_shape": [50]}


class Peculiar:
    """Data of a library that nobody knows."""

    def __len__(self) -> int:
        """There are some."""
        return 50

    def __array__(self, *_: Any, **__: Any) -> Any:
        """They cannot be had."""
        raise TypeError("not an array")


@pytest.mark.parametrize(
    ("features", "targets", "profile"),
    [
        pytest.param(RNG.random((50, 4, 2)), Y, {"features_shape": [50, 4, 2]}, id="three dimensions"),
        pytest.param(X.tolist(), Y.tolist(), {"features_shape": [50, 3], "targets_shape": [50]}, id="lists"),
        pytest.param(["some text"] * 49 + ["long " * 100_000], Y, {"features_shape": [50]}, id="texts"),
        pytest.param([{"a": 1}, {"b": 2}] * 25, Y, {"features_shape": [50]}, id="dicts"),
        pytest.param([[1], [1, 2]] * 25, Y, {"features_type": "list", "num_rows": 50}, id="ragged lists"),
        pytest.param(np.array([1, "a", None, 2.5, [1]] * 10, dtype=object), Y, {"features_shape": [50]}, id="objects"),
        pytest.param(pd.DataFrame({0: [[1]] * 50, "b": ["x", None] * 25}), Y, {"num_rows": 50}, id="frame of objects"),
        pytest.param(pd.Series(["x", "y"] * 25), Y, {"features_shape": [50]}, id="series"),
        pytest.param(X, FRAME[["a", "b"]], {"targets_shape": [50, 2]}, id="several targets"),
        pytest.param(X, np.array(["x", None] * 25, dtype=object), {"targets_shape": [50]}, id="targets of objects"),
        pytest.param(X.astype("complex64"), None, {"features_shape": [50, 3]}, id="no targets"),
        pytest.param(X.astype("datetime64[s]"), None, {"features_shape": [50, 3]}, id="dates"),
        pytest.param(np.zeros(50, dtype=[("a", int)]), None, {"features_shape": [50]}, id="records"),
        pytest.param(np.ma.masked_array(X, X > 0.5), Y, {"features_shape": [50, 3]}, id="masked"),
        pytest.param(Peculiar(), Y, {"features_type": "Peculiar", "num_rows": 50, "targets_shape": [50]}, id="unknown"),
        pytest.param(None, None, {"num_rows": 50}, id="nothing"),
    ],
)
def test_data_of_any_kind(
    features: Any, targets: Any, profile: dict[str, Any], run_id: str, recwarn: pytest.WarningsRecorder
) -> None:
    """Whatever the data are, the run says what can be said of them, and nobody is warned."""
    dataset = recorded(run_id, features, targets)
    found = json.loads(dataset.profile)
    assert {key: found[key] for key in profile} == profile
    assert len(dataset.digest) == 8
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
def test_sparse_data_stay_sparse(form: str, run_id: str) -> None:
    """A matrix that would not fit into memory is described by shape, type and number of entries."""
    huge = sp.coo_array(([1.0, 2.0], ([0, 4], [5, 7])), shape=(200_000, 50_000_000)).asformat(form)
    dataset = recorded(run_id, huge, Y, rows=200_000, kept=200_000)
    profile = json.loads(dataset.profile)
    assert profile["features_shape"] == [200_000, 50_000_000]
    assert profile["features_dtype"] == "float64"
    assert profile["features_nonzero"] >= 2
    tensors = json.loads(dataset.schema)["mlflow_tensorspec"]
    assert json.loads(tensors["features"])[0]["tensor-spec"] == {"dtype": "float64", "shape": [-1, 50_000_000]}
    assert json.loads(tensors["targets"])[0]["tensor-spec"] == {"dtype": "int64", "shape": [-1]}


def test_different_sparse_data_have_different_digests(run_id: str) -> None:
    """The same matrix has the same digest, and another one another."""
    client = mlflow.MlflowClient()
    for number, values in enumerate((X, X.copy(), X + 1)):
        log_dataset(Data(sp.csr_matrix(values), name=f"data{number}", rows=50, kept=50), run_id, "eval", client)
    assert mantik.flush(60)
    found = {one.dataset.name: one.dataset.digest for one in client.get_run(run_id).inputs.dataset_inputs}
    assert found["data0"] == found["data1"] != found["data2"]


@pytest.mark.parametrize(
    ("features", "profile"),
    [
        (X, {"features_shape": [5000, 3], "features_size": 15_000, "features_nbytes": 120_000}),
        (FRAME, {"num_rows": 5000, "num_elements": 15_000}),
        (sp.csr_matrix(X), {"features_shape": [5000, 3], "features_nonzero": 15_000, "num_rows": 5000}),
    ],
    ids=["array", "frame", "sparse"],
)
def test_a_sample_of_the_data(features: Any, profile: dict[str, Any], run_id: str) -> None:
    """Where only some of the samples were kept, the sizes are those of all."""
    found = json.loads(recorded(run_id, features, Y, rows=5000).profile)
    assert {key: found[key] for key in profile} == profile
    assert found["targets_shape"] == [5000]


def test_very_many_columns(run_id: str) -> None:
    """Of a frame whose schema a platform would refuse there is none, and its digest still depends on what is in it."""
    client = mlflow.MlflowClient()
    for number in (0, 1):
        wide = pd.DataFrame(np.full((200, 20_000), number))
        log_dataset(Data(wide, name=f"data{number}", rows=200, kept=200), run_id, "eval", client)
    assert mantik.flush(60)
    zeros, ones = (one.dataset for one in client.get_run(run_id).inputs.dataset_inputs)
    assert zeros.schema in {None, ""}
    assert json.loads(zeros.profile) == {
        "features_type": "DataFrame",
        "features_shape": [200, 20_000],
        "num_rows": 200,
    }
    assert zeros.digest != ones.digest


def test_very_many_cells(run_id: str) -> None:
    """Of a long frame MLflow is not shown each cell, and size and digest are those of all."""
    long = pd.DataFrame({"a": np.arange(3_000_000), "b": 1.5})
    dataset = recorded(run_id, long, None, rows=3_000_000, kept=3_000_000)
    assert json.loads(dataset.profile) == {"num_rows": 3_000_000, "num_elements": 6_000_000}
    assert dataset.digest == from_pandas(long).digest
    assert [column["type"] for column in json.loads(dataset.schema)["mlflow_colspec"]] == ["long", "double"]


def test_held_out_data_have_their_name(run_id: str) -> None:
    """Data of an evaluation are called what the caller calls them."""
    log_dataset(Data(X, Y, name="X_test", rows=50, kept=50), run_id, "eval", mlflow.MlflowClient())
    assert mantik.flush(60)
    (found,) = mlflow.MlflowClient().get_run(run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.tags[0].value) == ("X_test", "eval")
