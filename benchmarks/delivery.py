"""What durable delivery costs a training, and how fast it delivers."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import Metric
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.credentials import get_default_host_creds

from benchmarks.figures import Figure, interleaved
from mantik.delivery.outbox import Outbox, choose_again, outbox_for
from mantik.plugins.store import MantikStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["calls", "fluent", "slowdown", "throughput", "visible"]

CALLS = 300
POINTS = 20_000


def calls(folder: str, rounds: int) -> list[Figure]:
    """Time one store call with 1 and with 8 metrics against a raw append of the same points to a file."""
    uri = mlflow.get_tracking_uri()
    store = MantikStore(lambda: get_default_host_creds(uri), uri)
    descriptor = os.open(Path(folder) / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with mlflow.start_run() as run:
        run_id = run.info.run_id

        def append(count: int) -> Callable[[], None]:
            def work() -> None:
                for step in range(CALLS):
                    points = [[f"metric-{number}", 0.5, 1_700_000_000_000, step] for number in range(count)]
                    os.write(descriptor, json.dumps(points).encode() + b"\n")

            return work

        def call(count: int) -> Callable[[], None]:
            def work() -> None:
                for step in range(CALLS):
                    points = [Metric(f"metric-{number}", 0.5, 1_700_000_000_000, step) for number in range(count)]
                    store.log_batch(run_id, points, [], [])

            return work

        figures = interleaved(
            {
                "raw append, 1 metric": append(1),
                "store call, 1 metric": call(1),
                "raw append, 8 metrics": append(8),
                "store call, 8 metrics": call(8),
            },
            rounds,
        )
    os.close(descriptor)
    return [Figure(figure.name, tuple(seconds / CALLS for seconds in figure.seconds)) for figure in figures]


def fluent(rounds: int) -> list[Figure]:
    """Time `mlflow.log_metric` as stock MLflow does it and with the journal, against the same server."""
    with mlflow.start_run():

        def log(count: int) -> None:
            for step in range(count):
                mlflow.log_metric("loss", 0.5, step=step)

        def stock() -> None:
            with without_claim():
                log(CALLS // 10)

        figures = interleaved({"log_metric, stock": stock, "log_metric, mantik": lambda: log(CALLS)}, rounds)
    calls_of = (CALLS // 10, CALLS)
    return [
        Figure(figure.name, tuple(seconds / count for seconds in figure.seconds))
        for figure, count in zip(figures, calls_of, strict=True)
    ]


def throughput(rounds: int) -> list[Figure]:
    """Time the delivery of points: direct `log_batch` calls of 1000 against journal and shipper, per 1000 points."""
    uri = mlflow.get_tracking_uri()
    stock = RestStore(lambda: get_default_host_creds(uri))
    durable = MantikStore(lambda: get_default_host_creds(uri), uri)
    moment = iter(range(1_700_000_000_000, 1_800_000_000_000, POINTS))

    def deliver(store: RestStore, run_id: str) -> None:
        start = next(moment)
        for first in range(0, POINTS, 1000):
            points = [Metric("loss", 0.5, start + number, number) for number in range(first, first + 1000)]
            store.log_batch(run_id, points, [], [])
        if store is durable and not _outbox().flush(300):
            raise RuntimeError("the shipper did not finish")

    def in_a_run(store: RestStore) -> Callable[[], None]:
        def work() -> None:
            # A run of its own: a long history makes the server slower for whoever comes later.
            with mlflow.start_run() as run:
                deliver(store, run.info.run_id)

        return work

    figures = interleaved(
        {"log_batch(1000), direct": in_a_run(stock), "journal and shipper": in_a_run(durable)}, rounds
    )
    return [Figure(figure.name, tuple(seconds * 1000 / POINTS for seconds in figure.seconds)) for figure in figures]


def slowdown(rounds: int) -> list[Figure]:
    """Time a training loop of matrix products, alone and with 8 metrics logged at each step."""
    import numpy as np

    generator = np.random.default_rng(0)
    matrix = generator.standard_normal((700, 700))

    def train(*, log: bool) -> None:
        state = matrix
        for step in range(60):
            state = np.tanh(state @ matrix / 700)
            if log:
                mlflow.log_metrics({f"metric-{number}": float(state[0, number]) for number in range(8)}, step=step)

    with mlflow.start_run():
        return interleaved(
            {"training loop": lambda: train(log=False), "with 8 metrics a step": lambda: train(log=True)}, rounds
        )


def visible(rounds: int) -> list[Figure]:
    """Time from a call to the point's being on the server."""
    uri = mlflow.get_tracking_uri()
    stock = RestStore(lambda: get_default_host_creds(uri))
    with mlflow.start_run() as run:
        steps = iter(range(1_000_000))

        def seen() -> None:
            step = next(steps)
            mlflow.log_metric("loss", 0.5, step=step)
            while stock.get_run(run.info.run_id).data.metrics.get("loss") is None or not _has(stock, run, step):
                time.sleep(0.005)

        return interleaved({"from call to server": seen}, rounds)


def _has(store: RestStore, run: mlflow.entities.Run, step: int) -> bool:
    return any(point.step == step for point in store.get_metric_history(run.info.run_id, "loss"))


def _outbox() -> Outbox:
    outbox = outbox_for(mlflow.get_tracking_uri())
    if outbox is None:
        raise RuntimeError("durable delivery is not on")
    return outbox


@contextmanager
def without_claim() -> Iterator[None]:
    """Track as stock MLflow does, with the exported token, while the block lasts."""
    kept = {name: os.environ.pop(name) for name in ("MANTIK_TRACKING_CLAIM", "MLFLOW_TRACKING_AUTH")}
    choose_again()
    try:
        yield
    finally:
        os.environ.update(kept)
        choose_again()
