"""What becomes of the numbers of a training: values, names, repetitions."""

from __future__ import annotations

import logging
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from mantik import MantikLogger
from tests.integrations.lightning.modules import Small, data, trainer

if TYPE_CHECKING:
    from tests.integrations.arrivals import Arrived

VALUES: list[tuple[Any, float]] = [
    (1.5, 1.5),
    (2, 2.0),
    (True, 1.0),
    (torch.tensor(0.25), 0.25),
    (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
    (torch.tensor(0.5, dtype=torch.float16), 0.5),
    (torch.tensor(3), 3.0),
    (torch.tensor(True), 1.0),  # noqa: FBT003
    (torch.tensor([[4.0]]), 4.0),
    (torch.tensor(5.0, requires_grad=True), 5.0),
    (np.float32(0.5), 0.5),
    (np.int8(-6), -6.0),
    (np.bool_(True), 1.0),  # noqa: FBT003
    (np.array(7), 7.0),
    (np.array([[8.0]]), 8.0),
    (float("nan"), math.nan),
    (torch.tensor(float("nan")), math.nan),
    # MLflow's database has no infinities: it holds the largest numbers that there are.
    (float("inf"), sys.float_info.max),
    (-torch.inf, -sys.float_info.max),
]

NAMES = {
    "val/acc@1": "val/acc_at_1-4739979c",
    "acc@": "acc_at_-9d596369",
    "acc%": "acc_percent-0a78af42",
    "ünï": "ünï",
    "a:b": "a:b",
    "a b": "a b",
    "/x": "x-b3d1db31",
    "../x": "x-d6b96a97",
    "a//b": "a/b-7a9acf33",
    "a/b": "a/b",
    "x" * 300: f"{'x' * 241}-0d4e2ca9",
    "x" * 299: f"{'x' * 241}-17b8309d",
    "": "unnamed-e3b0c442",
}


def test_values(arrived: Arrived) -> None:
    """Numbers of Python, torch and numpy of any type arrive as they are; NaN stays, and infinities are the largest."""
    logger = MantikLogger()
    logger.log_metrics({f"v{index}": value for index, (value, _) in enumerate(VALUES)}, step=3)
    held = arrived.run(logger.run_id).metrics
    expected = [value for _, value in VALUES]
    assert [held[f"v{index}"] for index in range(len(VALUES))] == pytest.approx(expected, nan_ok=True)
    assert arrived.steps(logger.run_id, "v15") == [3]


def test_nested_metrics(arrived: Arrived) -> None:
    """Names of what is nested are joined with slashes."""
    logger = MantikLogger()
    logger.log_metrics({"val": {"loss": 1.0, "acc": {"top1": torch.tensor(0.5)}}, "n": 1}, step=0)
    assert arrived.run(logger.run_id).metrics == {"val/loss": 1.0, "val/acc/top1": 0.5, "n": 1.0}


def test_names(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """A name that MLflow cannot hold gets one of its own, tags keep all originals, and one warning says so."""
    logger = MantikLogger()
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            logger.log_metrics({name: float(index) for index, name in enumerate(NAMES)}, step=step)
    run = arrived.run(logger.run_id)
    assert run.metrics == {name: float(index) for index, name in enumerate(NAMES.values())}
    assert arrived.steps(run.run_id, "a/b-7a9acf33") == [0, 1, 2]
    originals = [value for key, value in run.tags.items() if key.startswith("mantik.name.")]
    assert sorted(originals) == sorted(name for name, held in NAMES.items() if name != held)
    assert run.tags["mantik.name.val/acc_at_1-4739979c"] == "val/acc@1"
    (warning,) = [record.getMessage() for record in caplog.records if "names" in record.getMessage()]
    assert "'val/acc@1' as 'val/acc_at_1-4739979c'" in warning


def test_names_of_a_training(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """Metrics of a module with such names are all there, at all steps, and the training says so once."""
    logger = MantikLogger()
    metrics = {"val/acc@1": 1.0, "acc%": 2.0, "acc@": 3.0}
    with caplog.at_level(logging.WARNING):
        trainer(logger=logger, max_epochs=2).fit(Small(metrics=metrics), data(2), data(2))
    for name, value in metrics.items():
        assert arrived.points(logger.run_id, NAMES[name]) == [(step, value) for step in range(4)]
    assert len([record for record in caplog.records if "names" in record.getMessage()]) == 1


def test_the_same_point_is_logged_once(arrived: Arrived) -> None:
    """A point that comes again, as Lightning's epoch does, is not recorded twice; another value at its step is."""
    logger = MantikLogger()
    for value in (1.0, 1.0, 2.0):
        logger.log_metrics({"a": value, "b": 5.0}, step=4)
    logger.log_metrics({"b": 5.0}, step=5)
    assert arrived.points(logger.run_id, "a") == [(4, 1.0), (4, 2.0)]
    assert arrived.points(logger.run_id, "b") == [(4, 5.0), (5, 5.0)]


def test_nothing_to_log(arrived: Arrived) -> None:
    """No metrics are no error, and begin no run."""
    before = len(arrived.runs())
    MantikLogger().log_metrics({}, step=1)
    assert len(arrived.runs()) == before
