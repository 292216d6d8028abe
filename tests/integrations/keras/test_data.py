"""What is recorded of data of all kinds, and what is taken from them: nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from mantik import MantikCallback
from mantik.integrations.keras.samples import first_samples
from tests.integrations.keras.networks import SAMPLES, classes, fit, net

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integrations.arrivals import Arrived


class Batches(keras.utils.PyDataset):
    """Five batches, which count how often they were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def __len__(self) -> int:
        """Return how many there are."""
        return 5

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return one."""
        self.asked.append(index)
        x, y = classes()
        return x[4 * index : 4 * index + 4], y[4 * index : 4 * index + 4]


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Samples that come one after the other."""

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yield them."""
        yield from zip(*classes(), strict=True)


def loader(dataset: Any = None, **options: Any) -> DataLoader[Any]:  # noqa: ANN401
    """Return a loader of the samples."""
    return DataLoader(dataset or TensorDataset(*map(torch.from_numpy, classes())), batch_size=4, **options)


def batches(number: int, taken: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches, and remember which."""
    data = Batches()
    for index in range(number):
        taken.append(index)
        yield data[index % 5]


def recorded(arrived: Arrived, run_id: str | None) -> list[dict[str, Any]]:
    """Return the datasets of a run, their profiles read."""
    arrived.run(run_id)
    answer = arrived.platform.read_back._call("GET", "runs/get", {"run_id": str(run_id)})  # noqa: SLF001
    found = [
        {**one["dataset"], "context": one["tags"][0]["value"]} for one in answer["run"]["inputs"]["dataset_inputs"]
    ]
    return [{**one, "profile": json.loads(one["profile"])} for one in found]


def test_arrays(arrived: Arrived) -> None:
    """The same arrays have the same digest in every run, others another one; shapes and sizes are told."""
    x, y = classes()
    callbacks = [MantikCallback(log_params=False) for _ in range(3)]
    for callback, data in zip(callbacks, (x, x.copy(), x + 1), strict=True):
        fit([callback], x=data, y=y, validation_data=(x[:5], y[:5]))
    first, same, other = (recorded(arrived, callback.run_id) for callback in callbacks)
    assert [one["context"] for one in first] == ["train", "validation"]
    assert first[0]["digest"] == same[0]["digest"] != other[0]["digest"]
    assert first[0]["name"] == "numpy"
    assert first[0]["profile"] == {
        "type": "arrays",
        "features": [{"shape": [SAMPLES, 4], "dtype": "float32"}],
        "targets": [{"shape": [SAMPLES], "dtype": "int64"}],
        "rows": SAMPLES,
        "batch_size": 4,
    }
    assert json.loads(json.loads(first[0]["schema"])["mlflow_tensorspec"]["features"]) == [
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}
    ]
    assert len(arrived.steps(callbacks[0].run_id, "samples_per_second")) == 2


@pytest.mark.parametrize(
    ("data", "name", "profile"),
    [
        (lambda: loader(), "TensorDataset", {"type": "DataLoader", "rows": SAMPLES, "batch_size": 4}),  # noqa: PLW0108
        (lambda: loader(Stream()), "Stream", {"type": "DataLoader", "batch_size": 4}),
        (Batches, "Batches", {"type": "PyDataset", "batches": 5}),
        (lambda: torch.from_numpy(classes()[0]), "torch", {"type": "arrays", "rows": SAMPLES}),
        (lambda: pd.DataFrame(classes()[0]), "pandas", {"type": "arrays", "rows": SAMPLES}),
    ],
)
def test_datasets(data: Any, name: str, profile: dict[str, Any], arrived: Arrived) -> None:  # noqa: ANN401
    """Loaders, datasets, tensors and tables are recorded as what they are, as far as they tell."""
    callback, x = MantikCallback(log_params=False, log_evaluation=True), data()
    arrays = profile["type"] == "arrays"
    fit([callback], x=x, y=classes()[1] if arrays else None, batch_size=4 if arrays else None, steps_per_epoch=5)
    (found,) = recorded(arrived, callback.run_id)
    assert found["name"] == name
    assert found["profile"].items() >= profile.items()
    assert arrived.run(callback.run_id).status == "FINISHED"


def test_a_generator_is_left_alone(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """Of generators not one batch is taken but by Keras; shapes and the model's signature are from what it has seen."""
    taken: list[int] = []
    validation: list[int] = []
    callback = MantikCallback(log_model=True, log_evaluation=True, log_freq="batch")
    options: dict[str, Any] = {"steps_per_epoch": 5, "validation_data": batches(10, validation), "validation_steps": 2}
    fit([callback], x=batches(12, taken), y=None, batch_size=None, **options)
    by_keras = list(taken), list(validation)
    taken.clear()
    validation.clear()
    options["validation_data"] = batches(10, validation)
    net().fit(batches(12, taken), epochs=2, verbose=0, **options)
    assert (taken, validation) == by_keras
    train, _ = recorded(arrived, callback.run_id)
    assert train["name"] == "batches"
    assert train["profile"]["features"] == [{"shape": [4, 4], "dtype": "float32"}]
    assert train["profile"]["batch_size"] == 4
    assert "can be gone through only once" in caplog.text
    assert arrived.steps(callback.run_id, "batch/loss") == list(range(10))
    (model,) = arrived.platform.read_back.logged_models("0")[:1]
    assert model.source_run_id == callback.run_id


def test_a_dataset_is_not_looked_into(arrived: Arrived) -> None:
    """A PyDataset is asked for its batches by Keras alone, and the random numbers of a loader stay as they were."""
    with_callback, without = Batches(), Batches()
    fit([MantikCallback()], x=with_callback, y=None, batch_size=None, shuffle=False)
    net().fit(without, epochs=2, verbose=0, shuffle=False)
    assert with_callback.asked == without.asked
    drawn = []
    for callbacks in ([MantikCallback()], []):
        model = net()
        torch.manual_seed(0)
        model.fit(loader(shuffle=True), epochs=2, verbose=0, callbacks=callbacks)
        drawn.append((torch.rand(1).item(), [weight.tolist() for weight in model.get_weights()]))
    assert drawn[0] == drawn[1]
    arrived.runs()


def test_first_samples() -> None:
    """The first samples of data that can be gone through again are found in each kind of them; of others none are."""
    x, y = classes()
    for features, targets in ((x, y), (torch.from_numpy(x), y), (pd.DataFrame(x), pd.Series(y)), (Batches(), None)):
        found = first_samples(features, targets, 6)
        assert found is not None
        assert np.array_equal(found[0], x[:6])
        assert np.array_equal(found[1], y[:6])
    found = first_samples(loader(), None, 1000)
    assert found is not None
    assert np.array_equal(found[0], x)
    nested = first_samples({"a": x, "b": [x, None]}, None, 2)
    assert nested is not None
    assert nested[0]["b"][0].shape == (2, 4)
    assert nested[1] is None
    taken: list[int] = []
    assert first_samples(batches(3, taken), None, 4) is first_samples(loader(Stream()), None, 4) is None
    assert taken == []
