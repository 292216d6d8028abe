"""Making a logger does nothing; what it needs is looked up when it is first used."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import mlflow

from mantik import MantikLogger
from tests.integrations.lightning.modules import trainer

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.integrations.arrivals import Arrived


def test_construction_does_nothing(arrived: Arrived, tmp_path: Path) -> None:
    """Making a logger, and a Trainer of it, sends no request, starts no thread and writes no file."""
    requests, threads, files = arrived.proxy.count(), threading.enumerate(), sorted(tmp_path.rglob("*"))
    logger = MantikLogger("never-made", run_id="none", save_dir="here", log_model="all", mlflow_model=True)
    training = trainer(logger=logger)
    assert training.logger is logger
    assert "MantikLogger" in repr(logger)
    assert arrived.proxy.count() == requests
    assert set(threading.enumerate()) <= set(threads)
    assert sorted(tmp_path.rglob("*")) == files
    assert mlflow.active_run() is None


def test_settings_are_read_at_the_first_use(arrived: Arrived, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set after a logger was made counts: experiment and platform are looked up when the run begins."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    logger = MantikLogger()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", arrived.proxy.url)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "read-late")
    logger.log_metrics({"a": 1.0})
    (run,) = arrived.runs("read-late")
    assert run.run_id == logger.run_id


def test_the_experiment_of_set_experiment(arrived: Arrived) -> None:
    """The experiment of mlflow.set_experiment is taken where none is given."""
    logger = MantikLogger()
    mlflow.set_experiment("chosen-before")
    logger.log_metrics({"a": 1.0})
    assert [run.run_id for run in arrived.runs("chosen-before")] == [logger.run_id]
