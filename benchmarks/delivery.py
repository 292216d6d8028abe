"""What durable delivery costs per call, and how fast it delivers."""

from __future__ import annotations

import json
import os
import statistics
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.credentials import get_default_host_creds

import mantik
from benchmarks.figures import Figure, interleaved
from mantik.delivery.registry import choose_again
from mantik.plugins.store import MantikStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["calls", "fluent", "tails", "throughput", "visible"]

CALLS = 300
POINTS = 200_000
SINGLE_CALLS = 3_000


def calls(folder: str, rounds: int) -> list[Figure]:
    """Time single store calls with 1 and with 8 metrics against raw appends of the same points: medians of a round.

    Points and entities are made right before each call, as in a training, and are not timed.
    """
    with mlflow.start_run() as run, _raw_file(folder) as descriptor:
        store, run_id = _durable(), run.info.run_id

        def append(count: int) -> float:
            def one(step: int) -> float:
                points = [_point(number, step) for number in range(count)]
                started = time.perf_counter()
                os.write(descriptor, json.dumps(points).encode() + b"\n")
                return time.perf_counter() - started

            return statistics.median(one(step) for step in range(CALLS))

        def call(count: int) -> float:
            def one(step: int) -> float:
                points = [Metric(*_point(number, step)) for number in range(count)]
                started = time.perf_counter()
                store.log_batch(run_id, points, [], [])
                return time.perf_counter() - started

            return statistics.median(one(step) for step in range(CALLS))

        actions: dict[str, Callable[[], float]] = {
            "raw append, 1 metric": lambda: append(1),
            "store call, 1 metric": lambda: call(1),
            "raw append, 8 metrics": lambda: append(8),
            "store call, 8 metrics": lambda: call(8),
        }
        values = [{name: action() for name, action in actions.items()} for _ in range(rounds + 1)][1:]
    return [Figure(name, tuple(value[name] for value in values)) for name in actions]


def tails(rounds: int) -> list[Figure]:
    """Time single store calls with 8 metrics while the shipper is at work on what they record: median, p99, p99.9."""
    values: dict[str, list[float]] = {"median": [], "99 of 100 calls within": [], "999 of 1000 calls within": []}
    with mlflow.start_run() as run:
        store, run_id = _durable(), run.info.run_id
        for _ in range(rounds):
            seconds = []
            for step in range(SINGLE_CALLS):
                points = [Metric(*_point(number, step)) for number in range(8)]
                started = time.perf_counter()
                store.log_batch(run_id, points, [], [])
                seconds.append(time.perf_counter() - started)
            seconds.sort()
            for name, part in zip(values, (0.5, 0.99, 0.999), strict=True):
                values[name].append(seconds[int(len(seconds) * part)])
        mantik.flush()
    return [Figure(f"store call, 8 metrics, {name}", tuple(found)) for name, found in values.items()]


def fluent(rounds: int) -> list[Figure]:
    """Time `mlflow.log_metric` and the client's as stock MLflow does them and with the journal, same server."""
    with mlflow.start_run() as run:
        client, run_id = MlflowClient(), run.info.run_id

        def log(count: int) -> None:
            for step in range(count):
                mlflow.log_metric("loss", 0.5, step=step)

        def log_by_client() -> None:
            for step in range(CALLS):
                client.log_metric(run_id, "loss", 0.5, step=step)

        def stock() -> None:
            with without_claim():
                log(CALLS // 10)

        figures = interleaved(
            {
                "mlflow.log_metric, stock": stock,
                "mlflow.log_metric, mantik": lambda: log(CALLS),
                "MlflowClient.log_metric, mantik": log_by_client,
            },
            rounds,
        )
        asynchronous = [_asynchronous() for _ in range(rounds)]
    calls_of = (CALLS // 10, CALLS, CALLS)
    return [
        *(figure.per(count) for figure, count in zip(figures, calls_of, strict=True)),
        Figure("mlflow.log_metric, stock, asynchronous", tuple(asynchronous)),
    ]


def _asynchronous() -> float:
    """Time stock MLflow's asynchronous calls, which keep everything in memory until it is sent."""
    with without_claim():
        started = time.perf_counter()
        for step in range(CALLS):
            mlflow.log_metric("loss", 0.5, step=step, synchronous=False)
        seconds = time.perf_counter() - started
        mlflow.flush_async_logging()
    return seconds / CALLS


def throughput(rounds: int) -> list[Figure]:
    """Time the delivery of points: direct `log_batch` calls of 1000 against journal and shipper, per 1000 points."""
    uri = mlflow.get_tracking_uri()
    stock = RestStore(lambda: get_default_host_creds(uri))
    durable = _durable()
    moment = iter(range(1_700_000_000_000, 1_800_000_000_000, POINTS))

    def deliver(store: RestStore, run_id: str) -> None:
        start = next(moment)
        for first in range(0, POINTS, 1000):
            points = [Metric("loss", 0.5, start + number, number) for number in range(first, first + 1000)]
            store.log_batch(run_id, points, [], [])
        if store is durable and not mantik.flush(600):
            raise RuntimeError("the shipper did not finish")

    def in_a_run(store: RestStore) -> Callable[[], None]:
        def work() -> None:
            # A run of its own: a long history makes the server slower for whoever comes later.
            with mlflow.start_run() as run:
                deliver(store, run.info.run_id)

        return work

    figures = interleaved(
        {"log_batch(1000), direct": in_a_run(stock), "journal and shipper": in_a_run(durable)}, rounds, warm_up=0
    )
    return [figure.per(POINTS // 1000) for figure in figures]


def visible(rounds: int) -> list[Figure]:
    """Time from a call to the point's being on the server."""
    uri = mlflow.get_tracking_uri()
    stock = RestStore(lambda: get_default_host_creds(uri))
    with mlflow.start_run() as run:
        steps = iter(range(1_000_000))

        def seen() -> None:
            step = next(steps)
            mlflow.log_metric("loss", 0.5, step=step)
            while not any(point.step == step for point in stock.get_metric_history(run.info.run_id, "loss")):
                time.sleep(0.005)

        return interleaved({"from call to server": seen}, rounds)


def _point(number: int, step: int) -> tuple[str, float, int, int]:
    return f"metric-{number}", 0.5, 1_700_000_000_000, step


def _durable() -> MantikStore:
    uri = mlflow.get_tracking_uri()
    return MantikStore(lambda: get_default_host_creds(uri), uri)


@contextmanager
def _raw_file(folder: str) -> Iterator[int]:
    descriptor = os.open(Path(folder) / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


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
