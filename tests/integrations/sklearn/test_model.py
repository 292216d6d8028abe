"""The logged model: that it loads back and predicts the same, with which signature, and what becomes of odd ones."""

# ruff: noqa: ANN401  # estimators take and return anything

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import xgboost
import yaml
from lightgbm import LGBMClassifier
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.cluster import DBSCAN
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import mantik
from mantik.integrations.sklearn.data import Data
from mantik.integrations.sklearn.model import log_model
from mantik.integrations.sklearn.options import Options
from mantik.integrations.sklearn.requirements import requirements_of
from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mantik.testing import Platform
    from mantik.testing.holdings import LoggedModel
    from tests.integrations.arrivals import Arrived

X, Y = load_breast_cancer(return_X_y=True)
FRAME = load_breast_cancer(as_frame=True).data
TEXTS = ["a good film", "a bad film", "so good", "so bad"] * 10
KINDS = pd.DataFrame(
    {
        "size": np.arange(40),
        "colour": ["red", "blue"] * 20,
        "shape": pd.Categorical(["round", "flat", "flat", "round"] * 10),
    }
)
LABELS = np.arange(40) % 2


@pytest.fixture
def ended(arrived: Arrived) -> str:
    """Return the id of a run that has ended."""
    with mlflow.start_run() as run:
        pass
    run_id: str = run.info.run_id
    return run_id


def log(
    estimator: Any,
    features: Any,
    run_id: str,
    name: str = "model",
    params: Mapping[str, str] | None = None,
    **options: Any,
) -> str | None:
    """Log a model from a thread that has no active run, and wait until it has arrived."""
    rows = features.shape[0] if hasattr(features, "shape") else len(features)
    data = Data(features, rows=rows, kept=rows)
    with ThreadPoolExecutor(1) as pool:
        model_id = pool.submit(log_model, estimator, data, run_id, name, Options(**options), params or {}).result()
    assert mantik.flush(60)
    return model_id


def models(arrived: Arrived, run_id: str) -> list[LoggedModel]:
    """Return the models of a run that the platform holds."""
    read_back = arrived.platform.read_back
    found = read_back.logged_models(read_back.run(run_id).experiment_id)
    return [model for model in found if model.source_run_id == run_id]


def written_with(run_id: str) -> str:
    """Return the format of a run's model."""
    flavors = mlflow.models.get_model_info(f"runs:/{run_id}/model").flavors
    return str(flavors["sklearn"]["serialization_format"])


def pipeline() -> Any:
    """Return what most trainings are."""
    return make_pipeline(StandardScaler(), LogisticRegression())


def of_texts() -> Any:
    """Return a pipeline that takes texts."""
    return make_pipeline(TfidfVectorizer(), LogisticRegression())


def tensor(kind: str, *shape: int) -> list[dict[str, Any]]:
    """Return the schema of an array."""
    return [{"type": "tensor", "tensor-spec": {"dtype": kind, "shape": (-1, *shape)}}]


def columns(**kinds: str) -> list[dict[str, Any]]:
    """Return the schema of a frame."""
    return [{"type": kind, "name": name, "required": True} for name, kind in kinds.items()]


@dataclass(frozen=True)
class Case:
    """A training, and what is expected of its model: what it takes, and the format of its file."""

    name: str
    estimator: Any
    features: Any
    targets: Any
    inputs: list[dict[str, Any]]
    form: str = "skops"
    served: Any = None
    """The features in the form in which MLflow takes them, where it does not take theirs."""


CASES = [
    Case("array", pipeline(), X, Y, tensor("float64", 30)),
    Case("frame", pipeline(), FRAME, Y, columns(**dict.fromkeys(FRAME.columns, "double"))),
    Case(
        "frame of texts and categories",
        make_pipeline(make_column_transformer((OneHotEncoder(), ["colour", "shape"])), LogisticRegression()),
        KINDS,
        LABELS,
        columns(size="long", colour="string", shape="any"),
    ),
    Case("csr_matrix", RidgeClassifier(), sp.csr_matrix(X), Y, tensor("float64", 30)),
    Case("csr_array", RidgeClassifier(), sp.csr_array(X), Y, tensor("float64", 30), served=sp.csr_matrix(X)),
    Case("coo_matrix", RidgeClassifier(), sp.coo_matrix(X), Y, tensor("float64", 30), served=sp.csr_matrix(X)),
    Case("list of rows", RidgeClassifier(), X.tolist(), Y, tensor("float64", 30), served=X),
    Case("list of texts", of_texts(), TEXTS, LABELS, tensor("object"), served=np.array(TEXTS, dtype=object)),
    Case("series of texts", of_texts(), pd.Series(TEXTS, name="text"), LABELS, tensor("object")),
    Case(
        "array of texts",
        make_pipeline(OneHotEncoder(), LogisticRegression()),
        KINDS[["colour", "shape"]].to_numpy(dtype=str),
        LABELS,
        tensor("str", 2),
    ),
    Case("types skops does not trust", RandomForestClassifier(5), X, Y, tensor("float64", 30), "cloudpickle"),
    Case("xgboost", xgboost.XGBClassifier(n_estimators=2), X, Y, tensor("float64", 30), "cloudpickle"),
    Case("lightgbm", LGBMClassifier(n_estimators=2, verbose=-1), X, Y, tensor("float64", 30), "cloudpickle"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_loads_back(case: Case, ended: str, arrived: Arrived) -> None:
    """The model of an ended run is found by run and name, predicts the same in both flavors, and says what it takes."""
    estimator = clone(case.estimator).fit(case.features, case.targets)
    model_id = log(estimator, case.features, ended, params={"C": "1.0"})
    (model,) = models(arrived, ended)
    assert (model.model_id, model.name, model.status) == (model_id, "model", "LOGGED_MODEL_READY")
    assert model.params == {"C": "1.0"}
    assert model.tags["mlflow.user"] == arrived.run(ended).tags["mlflow.user"]
    assert arrived.run(ended).status == "FINISHED"
    (output,) = mlflow.MlflowClient().get_run(ended).outputs.model_outputs
    assert output.model_id == model_id
    expected = estimator.predict(case.features)
    assert np.array_equal(mlflow.sklearn.load_model(f"runs:/{ended}/model").predict(case.features), expected)
    loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
    assert np.array_equal(loaded.predict(case.features if case.served is None else case.served), expected)
    assert loaded.metadata.signature.inputs.to_dict() == case.inputs
    assert loaded.metadata.run_id == ended
    assert written_with(ended) == case.form


def test_another_active_run(ended: str, arrived: Arrived) -> None:
    """While another run is active, a model goes into the run that it is of, and the active one is not touched."""
    with mlflow.start_run() as active:
        log(pipeline().fit(X, Y), X, ended)
        assert mlflow.active_run().info.run_id == active.info.run_id
        assert arrived.run(active.info.run_id).status == "RUNNING"
        assert models(arrived, active.info.run_id) == []
    assert len(models(arrived, ended)) == 1
    assert arrived.run(ended).status == "FINISHED"


def test_a_later_fit(ended: str, arrived: Arrived) -> None:
    """The name of a later fit of a run becomes one that MLflow 3 allows, and so do params of any name and length."""
    log(pipeline().fit(X, Y), X, ended, "LogisticRegression-2/model", {"a" * 300: "b" * 10_000, "c@d": "e"})
    (model,) = models(arrived, ended)
    assert model.name == "LogisticRegression-2-model"
    assert sorted(len(value) for value in model.params.values()) == [1, 6000]
    assert mlflow.sklearn.load_model(f"runs:/{ended}/LogisticRegression-2-model").score(X, Y) > 0.9


@pytest.mark.parametrize(
    ("form", "file"), [("cloudpickle", "model.pkl"), ("pickle", "model.pkl"), ("skops", "model.skops")]
)
def test_a_format_of_ones_choice(form: str, file: str, ended: str) -> None:
    """The format that was asked for is that of the file."""
    model_id = log(pipeline().fit(X, Y), X, ended, serialization_format=form)
    assert written_with(ended) == form
    assert file in {info.path for info in mlflow.artifacts.list_artifacts(f"models:/{model_id}")}


def test_a_large_model_is_not_tried_with_skops(ended: str) -> None:
    """What has more than 32 MiB is written once, with cloudpickle, though skops would trust it."""
    many = np.zeros((150_000, 30))
    log(KNeighborsClassifier(algorithm="brute").fit(many, np.arange(150_000) % 2), many, ended)
    assert written_with(ended) == "cloudpickle"


def test_what_is_not_asked_for(ended: str) -> None:
    """Without signatures there is none, and an example only where it is asked for."""
    log(pipeline().fit(X, Y), X, ended, log_model_signatures=False)
    info = mlflow.models.get_model_info(f"runs:/{ended}/model")
    assert (info.signature, info.saved_input_example_info) == (None, None)


@pytest.mark.parametrize("features", [X, FRAME, sp.csr_matrix(X), X.tolist()], ids=["array", "frame", "sparse", "list"])
def test_an_example(features: Any, ended: str) -> None:
    """The example is the first five samples, and the model predicts for it what it does for them."""
    model = RidgeClassifier().fit(features, Y)
    model_id = log(model, features, ended, log_input_examples=True)
    loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
    assert np.array_equal(loaded.predict(loaded.input_example), model.predict(features)[:5])


def test_an_example_that_cannot_be_kept(ended: str, caplog: pytest.LogCaptureFixture) -> None:
    """A model whose data are no JSON has no example, which is said, and is logged."""
    features = np.array([[object()]] * len(Y))
    log(Unusual().fit(features, Y), features, ended, log_input_examples=True)
    assert "The model of Unusual has no input example, because MLflow cannot keep the data as JSON." in caplog.text
    assert mlflow.sklearn.load_model(f"runs:/{ended}/model").n_features_in_ == 1


def test_transformers_and_others(ended: str, arrived: Arrived) -> None:
    """What transforms has a signature but is not served, and of what does neither only the inputs are known."""
    log(StandardScaler().fit(FRAME), FRAME, ended, "scaler")
    log(DBSCAN().fit(X), X, ended, "clusters")
    scaler, clusters = (mlflow.models.get_model_info(f"runs:/{ended}/{name}") for name in ("scaler", "clusters"))
    assert scaler.signature.outputs.to_dict() == tensor("float64", 30)
    assert "python_function" not in scaler.flavors
    assert (clusters.signature.inputs.to_dict(), clusters.signature.outputs) == (tensor("float64", 30), None)
    assert {model.status for model in models(arrived, ended)} == {"LOGGED_MODEL_READY"}


def test_versions_of_a_registered_model(ended: str, arrived: Arrived, capfd: pytest.CaptureFixture[str]) -> None:
    """A model becomes the next version of a registered one, its page says so, and nobody is told."""
    name = f"cancer-{ended}"
    ids = [log(pipeline().fit(X, Y), X, ended, each, registered_model_name=name) for each in ("one", "two")]
    (registered,) = [model for model in arrived.platform.read_back.registered_models() if model.name == name]
    assert [version.source for version in registered.versions] == [f"models:/{model_id}" for model_id in ids]
    assert mlflow.sklearn.load_model(f"models:/{name}/2").score(X, Y) > 0.9
    tags = {model.name: model.tags["mlflow.modelVersions"] for model in models(arrived, ended)}
    assert yaml.safe_load(tags["two"]) == [{"name": name, "version": "2"}]
    assert "registered model" not in capfd.readouterr().err


class Unusual(ClassifierMixin, BaseEstimator):
    """Holds anything, and predicts one label."""

    def __init__(self, held: Any = None) -> None:
        self.held = held

    def fit(self, features: Any, targets: Any) -> Unusual:
        """Learn which labels there are."""
        self.n_features_in_ = len(features[0])
        self.classes_ = np.unique(targets)
        return self

    def predict(self, features: Any) -> Any:
        """Return the first label for all."""
        if self.held == "picky":
            raise ValueError("not these")
        return np.full(len(features), self.classes_[0])


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        pytest.param(lambda: threading.Lock(), "cannot pickle '_thread.lock' object", id="lock"),  # noqa: PLW0108
        pytest.param(lambda: (one for one in (1, 2)), "cannot pickle 'generator' object", id="generator"),
    ],
)
def test_what_cannot_be_pickled(
    held: Callable[[], Any], reason: str, ended: str, arrived: Arrived, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once which estimator is not logged and why, and there is no model that has no files."""
    assert log(Unusual(held()).fit(X, Y), X, ended) is None
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("mantik.")]
    assert said.startswith("The model of Unusual is not logged: ")
    assert reason in said
    assert models(arrived, ended) == []
    assert arrived.run(ended).status == "FINISHED"


def test_a_format_that_does_not_do(ended: str, arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """Where the format that was asked for refuses the estimator, no other one is taken, and it is said why."""
    assert log(RandomForestClassifier(2).fit(X, Y), X, ended, serialization_format="skops") is None
    assert "The model of RandomForestClassifier is not logged: MlflowException: The saved sklearn model" in caplog.text
    assert "sklearn.tree._tree.Tree" in caplog.text
    assert models(arrived, ended) == []


def test_an_estimator_that_fails_at_a_few_samples(ended: str, caplog: pytest.LogCaptureFixture) -> None:
    """It has no signature, which is said, and is logged."""
    log(Unusual("picky").fit(X, Y), X, ended)
    assert "The model of Unusual has no signature: ValueError: not these" in caplog.text
    assert mlflow.sklearn.load_model(f"runs:/{ended}/model").n_features_in_ == 30


def test_files_that_cannot_be_kept(
    blank_environment: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A model whose files are refused is marked as failed, on a store that refuses them at once."""
    blank_environment.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    (tmp_path / "file").touch()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs.db")
    experiment = client.create_experiment("own", artifact_location=f"{tmp_path}/file/below")
    run = client.create_run(experiment)
    data = Data(X, rows=len(X), kept=len(X))
    assert log_model(pipeline().fit(X, Y), data, run.info.run_id, "model", Options(), {}) is None
    assert "The model of Pipeline is not logged: NotADirectoryError: " in caplog.text
    assert [model.status for model in client.search_logged_models([experiment])] == ["FAILED"]


SILENT = """
import os, sys, threading, warnings
from mantik.integrations.sklearn.data import Data
from mantik.integrations.sklearn.dataset import log_dataset
from mantik.integrations.sklearn.model import log_model
from mantik.integrations.sklearn.options import Options
import mantik, mlflow
import numpy as np, pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import StandardScaler
for action in "error", "always":
    if os.fork() == 0:
        break
    os.wait()
else:
    sys.exit()
warnings.simplefilter(action)
mantik.init_tracking()
run_id = mlflow.MlflowClient().create_run("0").info.run_id
X, y = pd.DataFrame({"whole": np.arange(40), "text": ["1", "2"] * 20}), np.arange(40) % 2
data = Data(X, y, rows=40, kept=40)

def work():
    for estimator in RandomForestClassifier(2, n_jobs=2), StandardScaler():
        options = Options(log_input_examples=True)
        print(log_model(estimator.fit(X, y), data, run_id, type(estimator).__name__, options, {}) is None)
    log_dataset(data, run_id, "train", mlflow.MlflowClient())

thread = threading.Thread(target=work)
thread.start()
thread.join()
print("torch" in sys.modules)
"""


def test_nothing_is_said(mantik_platform: Platform, tmp_path: Path) -> None:
    """MLflow's remarks on pickle, integers and missing functions are neither shown nor errors; torch is not loaded."""
    environment = clean_environment(mantik_platform.environment(), tmp_path)
    output = run_script(SILENT, environment, tmp_path)
    lines = [line for line in output.splitlines() if not line.startswith(("mantik: run", "  http"))]
    assert lines == ["False", "False", "False"] * 2


def test_requirements_of_what_is_inside() -> None:
    """What an estimator needs is found in its steps, functions and data, at any depth, and is pinned."""
    deep = make_pipeline(FunctionTransformer(yaml.safe_load), xgboost.XGBClassifier())
    names = [requirement.partition("==")[0] for requirement in requirements_of(deep, features=FRAME)]
    assert names == ["mlflow", "scikit-learn", "numpy", "scipy", "cloudpickle", "pandas", "xgboost-cpu", "PyYAML"]
    assert requirements_of(LogisticRegression(), serializer="skops")[-1].startswith("skops==")
    assert requirements_of(LogisticRegression(), serializer="pickle")[-1].startswith("scipy==")


def test_concurrent_models_of_a_module(ended: str, arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """Many threads may log estimators of one's own at once, and cloudpickle is as before."""
    import cloudpickle

    data = Data(X, rows=len(X), kept=len(X))
    estimators = [Unusual(number).fit(X, Y) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        ids = list(
            pool.map(
                lambda one: log_model(one, data, ended, f"model{one.held}", Options(), {}),
                estimators,
            )
        )
    assert arrived.run(ended).status == "FINISHED"
    loaded = [mlflow.sklearn.load_model(f"models:/{model_id}").held for model_id in ids]
    assert loaded == list(range(6))
    assert cloudpickle.list_registry_pickle_by_value() == set()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
