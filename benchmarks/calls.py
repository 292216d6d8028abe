"""What a call costs in a running training."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import Metric
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.credentials import get_default_host_creds

import mantik
from benchmarks.figures import interleaved

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.figures import Figure

__all__ = ["log_metric", "repeated_init"]

CALLS = 50


def repeated_init(rounds: int) -> list[Figure]:
    """Time `init_tracking()` called again while the token is good, in seconds per call."""
    mantik.init_tracking()

    def again() -> None:
        for _ in range(CALLS):
            mantik.init_tracking()

    return [figure.per(CALLS) for figure in interleaved({"init_tracking(), again": again}, rounds)]


def log_metric(rounds: int) -> list[Figure]:
    """Time a direct `log_metric` request to one platform: with MLflow's own static token, then with the mantik plugin.

    The server is the same and does the same, so that the ratio is what the plugin costs.
    """
    uri = mlflow.get_tracking_uri()
    store = RestStore(lambda: get_default_host_creds(uri))
    mantik.init_tracking()
    with mlflow.start_run() as run:

        def log() -> None:
            for step in range(CALLS):
                store.log_metric(run.info.run_id, Metric("loss", 1.0, 1_700_000_000_000 + step, step))

        def stock() -> None:
            del os.environ["MLFLOW_TRACKING_AUTH"]
            log()

        def plugin() -> None:
            os.environ["MLFLOW_TRACKING_AUTH"] = "mantik"
            log()

        actions: dict[str, Callable[[], None]] = {
            "log_metric, static token of stock MLflow": stock,
            "log_metric, mantik plugin": plugin,
        }
        return [figure.per(CALLS) for figure in interleaved(actions, rounds)]
