"""What becomes of hyper-parameters: the run's params, the whole configuration, and what changes on resume."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from torch import nn

from mantik import MantikLogger
from tests.integrations.lightning.modules import Rows, Small, checkpoint, data, trainer

if TYPE_CHECKING:
    from tests.integrations.arrivals import Arrived

LONG = "0123456789" * 2000


@dataclass
class Plain:
    """A configuration."""

    lr: float = 0.1
    model: dict[str, Any] = field(default_factory=lambda: {"widths": [4, 8]})


@dataclass(slots=True)
class Slotted:
    """A configuration without a dictionary."""

    lr: float = 0.1
    model: Plain = field(default_factory=Plain)


def test_those_of_module_and_data(arrived: Arrived) -> None:
    """What module and data module save is in the run's params, flat, and in hparams.yaml, nested."""
    logger = MantikLogger()
    trainer(logger=logger).fit(Small(lr=0.5), datamodule=Rows(source={"path": "/data", "years": [1979, 2020]}))
    expected = {"lr": "0.5", "width": "4", "batches": "2", "source/path": "/data", "source/years": "[1979, 2020]"}
    assert arrived.run(logger.run_id).params == expected
    source = {"path": "/data", "years": [1979, 2020]}
    assert arrived.yaml(logger.run_id, "hparams.yaml") == {"lr": 0.5, "width": 4, "batches": 2, "source": source}


@pytest.mark.parametrize(
    ("given", "params", "whole"),
    [
        ({"a": {"b": 1}}, {"a/b": "1"}, {"a": {"b": 1}}),
        (Namespace(a=Namespace(b=None)), {"a/b": "None"}, {"a": {"b": None}}),
        (Plain(), {"lr": "0.1", "model/widths": "[4, 8]"}, {"lr": 0.1, "model": {"widths": [4, 8]}}),
        (
            Slotted(),
            {"lr": "0.1", "model/lr": "0.1", "model/model/widths": "[4, 8]"},
            {"lr": 0.1, "model": {"lr": 0.1, "model": {"widths": [4, 8]}}},
        ),
        ({"activation": nn.ReLU}, *[{"activation": "torch.nn.modules.activation.ReLU"}] * 2),
        (None, {}, {}),
    ],
)
def test_kinds(arrived: Arrived, given: Any, params: dict[str, str], whole: dict[str, Any]) -> None:  # noqa: ANN401
    """Mappings, namespaces and dataclasses are taken, nested or not; no params at all are none."""
    logger = MantikLogger()
    logger.log_hyperparams(given)
    assert arrived.run(logger.run_id).params == params
    assert arrived.yaml(logger.run_id, "hparams.yaml") == whole


@pytest.mark.parametrize("number", [500, pytest.param(5000, marks=pytest.mark.thorough)])
def test_thousands(arrived: Arrived, number: int) -> None:
    """5000 params are no problem: MLflow takes a hundred in a request."""
    logger = MantikLogger()
    logger.log_hyperparams({f"group{index % 7}": {} for index in range(7)} | {f"p{i}": i for i in range(number)})
    held = arrived.run(logger.run_id).params
    assert len(held) == number + 7
    assert held[f"p{number - 1}"] == str(number - 1)


def test_long_values(arrived: Arrived) -> None:
    """Of a long value the run's params hold the beginning, as much as MLflow takes; hparams.yaml holds the whole."""
    logger = MantikLogger()
    logger.log_hyperparams({"long": LONG, "nested": {"long": f"{LONG}!"}})
    assert arrived.run(logger.run_id).params == {"long": LONG[:6000], "nested/long": LONG[:6000]}
    assert arrived.yaml(logger.run_id, "hparams.yaml") == {"long": LONG, "nested": {"long": f"{LONG}!"}}


def test_names_that_mlflow_cannot_hold(arrived: Arrived) -> None:
    """They get names of their own, tags keep the originals, and hparams.yaml has them as they are."""
    given = {"a@b": 1, "w%": 2, "k" * 300: 3, "a/b": 4, "a": {"b": 5}, "": 6}
    logger = MantikLogger()
    logger.log_hyperparams(given)
    run = arrived.run(logger.run_id)
    names = ["a_at_b-7508d8b5", "w_percent-38bddf49", f"{'k' * 241}-17b16d8e", "a/b", "a/b-e3371d99"]
    assert [run.params.get(name) for name in names] == ["1", "2", "3", "4", "5"]
    assert {run.tags["mantik.name.a_at_b-7508d8b5"], run.tags["mantik.name.w_percent-38bddf49"]} == {"a@b", "w%"}
    assert arrived.yaml(run.run_id, "hparams.yaml") == given


def test_more_calls_add(arrived: Arrived) -> None:
    """A later call adds to params and hparams.yaml; the same values again change nothing."""
    logger = MantikLogger()
    logger.log_hyperparams({"a": 1, "b": {"c": 2}})
    logger.log_hyperparams({"a": 1})
    logger.log_hyperparams({"d": 3})
    run = arrived.run(logger.run_id)
    assert run.params == {"a": "1", "b/c": "2", "d": "3"}
    assert arrived.yaml(run.run_id, "hparams.yaml") == {"a": 1, "b": {"c": 2}, "d": 3}
    assert not any(key.startswith("mantik.param_drift") for key in run.tags)


def test_without_the_whole_configuration(arrived: Arrived) -> None:
    """With log_config=False there is no hparams.yaml, and the params are there as ever."""
    logger = MantikLogger(log_config=False)
    logger.log_hyperparams({"a": 1})
    assert arrived.run(logger.run_id).params == {"a": "1"}
    assert arrived.artifacts(logger.run_id) == []


def test_a_value_that_has_changed_on_resume(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """The run keeps the first value; a warning, a tag and an artifact tell what has changed, and training goes on."""
    first = MantikLogger()
    training = trainer(logger=first)
    training.fit(Small(lr=0.1), data())
    second = MantikLogger(run_id=first.run_id)
    trainer(logger=second, max_epochs=2).fit(Small(lr=0.5), data(), ckpt_path=checkpoint(training))
    run = arrived.run(first.run_id)
    assert (run.status, run.params) == ("FINISHED", {"lr": "0.1", "width": "4"})
    assert arrived.yaml(run.run_id, "config/drift-2.yaml") == {"lr": {"before": "0.1", "now": "0.5"}}
    (tag,) = [value for key, value in run.tags.items() if key.startswith("mantik.param_drift")]
    assert "lr: 0.1 -> 0.5" in tag
    assert "lr: 0.1 -> 0.5" in caplog.text
    assert arrived.steps(run.run_id, "train/loss") == list(range(8))


def test_a_long_value_that_is_the_same_on_resume(arrived: Arrived) -> None:
    """What the platform has shortened is not taken for changed."""
    first = MantikLogger()
    first.log_hyperparams({"long": LONG})
    first.finalize("success")
    arrived.run(first.run_id)
    second = MantikLogger(run_id=first.run_id)
    second.log_hyperparams({"long": LONG})
    second.finalize("success")
    assert not any(key.startswith("mantik.param_drift") for key in arrived.run(first.run_id).tags)
