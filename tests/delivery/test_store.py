"""The store in front of a real platform, seen from inside the process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import mlflow
import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.store.tracking.rest_store import RestStore
from mlflow.tracking._tracking_service.utils import _get_store

import mantik
from mantik.delivery.registry import outbox_for
from mantik.plugins import run_store
from mantik.plugins.store import MantikStore
from mantik.testing import FaultProxy, Hang, Refuse, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.delivery.outbox import Outbox
    from mantik.testing import Platform


@pytest.fixture(autouse=True)
def mlflow_as_before() -> Iterator[None]:
    """Leave MLflow pointing nowhere."""
    yield
    mlflow.set_tracking_uri(None)


def outbox() -> Outbox:
    """Return the outbox in use."""
    found = outbox_for(mlflow.get_tracking_uri())
    assert found is not None
    return found


def test_the_claimed_platform_gets_the_durable_store_and_no_other(
    tracked: FaultProxy, mantik_platform: Platform
) -> None:
    """Only the URI that `init_tracking()` claimed is journaled; any other server has MLflow's own store."""
    assert type(_get_store()) is MantikStore
    with FaultProxy(mantik_platform.url) as foreign:
        assert type(_get_store(foreign.url)) is RestStore
        assert outbox_for(foreign.url) is None


def test_a_call_waits_for_nobody_and_arrives_soon(tracked: FaultProxy, mantik_platform: Platform) -> None:
    """Each of the store's ways to write sends no request of its own, and all of it arrives."""
    with mlflow.start_run() as run:
        run_id = run.info.run_id
        store = _get_store()
        before = len(tracked.requests)
        store.log_metric(run_id, Metric("one", 1.0, 1, 0))
        store.log_param(run_id, Param("depth", "3"))
        store.set_tag(run_id, RunTag("kind", "store"))
        store.log_batch(run_id, [Metric("two", 2.0, 1, 0)], [Param("width", "4")], [RunTag("more", "yes")])
        operations = [
            store.log_metric_async(run_id, Metric("three", 3.0, 1, 0)),
            store.log_param_async(run_id, Param("height", "5")),
            store.set_tag_async(run_id, RunTag("last", "one")),
            store.log_batch_async(run_id, [Metric("four", 4.0, 1, 0)], [], []),
        ]
        for operation in operations:
            operation.wait()
        assert {request.path for request in tracked.requests[before:]} <= {"/api/2.0/mlflow/runs/log-batch"}
    held = mantik_platform.read_back
    wait_until(lambda: held.run(run_id).status == "FINISHED", deadline=30, what="the end of the run arrived")
    arrived = held.run(run_id)
    assert arrived.metrics == {"one": 1.0, "two": 2.0, "three": 3.0, "four": 4.0}
    assert arrived.params == {"depth": "3", "width": "4", "height": "5"}
    assert {"kind": "store", "more": "yes", "last": "one"}.items() <= arrived.tags.items()


def test_memory_does_not_grow_with_what_was_delivered(tracked: FaultProxy) -> None:
    """Once everything has arrived, nothing of the run is kept in memory, and no delivered segment on disk."""
    with mlflow.start_run() as run:
        for step in range(500):
            mlflow.log_metric("loss", 1.0, step=step)
        assert outbox().flush(30)
        assert outbox().overlay.writes(run.info.run_id) is None
        assert len(list(outbox().outgoing.points.journal.glob("*.segment"))) == 1


def test_a_search_sees_what_was_logged_before_it(tracked: FaultProxy) -> None:
    """`search_runs` right after logging finds the run by the metric that was just logged."""
    with mlflow.start_run() as run:
        mlflow.log_metric("found", 0.25)
        runs = mlflow.search_runs(experiment_ids=["0"], filter_string="metrics.found = 0.25", output_format="list")
        assert [one.info.run_id for one in runs] == [run.info.run_id]
        mlflow.set_tag("short", "lived")
        mlflow.delete_tag("short")
        assert "short" not in mlflow.get_run(run.info.run_id).data.tags


def test_a_run_can_be_read_while_the_platform_is_away(tracked: FaultProxy) -> None:
    """During an outage `get_run` answers from what is known, at once, and the run's end is not waited for."""
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 0.5)
        tracked.fault(Refuse())
        mlflow.log_metric("loss", 0.25, step=1)
        wait_until(lambda: outbox().problem is not None, deadline=30, what="the outage was noticed")
        assert mlflow.get_run(run.info.run_id).data.metrics == {"loss": 0.25}
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"


def test_the_journal_is_for_the_user_alone(tracked: FaultProxy, tmp_path: Path) -> None:
    """Everything in the spool can be read by its owner alone."""
    with mlflow.start_run():
        mlflow.log_metric("loss", 0.5)
        for folder, _, names in os.walk(tmp_path / ".mantik" / "spool"):
            assert os.stat(folder).st_mode & 0o077 == 0  # noqa: PTH116  # walked as text
            for name in names:
                assert os.stat(os.path.join(folder, name)).st_mode & 0o077 == 0, name  # noqa: PTH116, PTH118


def test_a_process_shows_that_it_lives_from_its_first_run_on(tracked: FaultProxy) -> None:
    """A run that logs nothing for a long time is not taken for one whose process is gone."""
    with mlflow.start_run():
        owner = outbox().outgoing.path / "owner.json"
        os.utime(owner, (1000, 1000))
        wait_until(lambda: owner.stat().st_mtime > 1000, deadline=30, what="a sign of life")


def test_mlflow_that_was_used_before_is_durable_from_the_claim_on(
    mantik_environment: dict[str, str], mantik_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that MLflow made for the same address before `init_tracking()` is not used any more."""
    mlflow.set_tracking_uri(mantik_proxy.url)
    assert type(_get_store()) is RestStore
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mantik_proxy.url)
    mantik.init_tracking()
    assert type(_get_store()) is MantikStore


def test_what_is_written_while_the_outbox_closes_is_kept(tracked: FaultProxy) -> None:
    """A record that comes between the last delivery and the end stays on disk, and a later one raises nothing."""
    with mlflow.start_run() as run:
        closing = outbox()
        assert closing.flush(30)
        tracked.fault(Refuse())
        closing.record_batch(run.info.run_id, [["late", 1.0, 1, 1]], (), ())
        closing.close(0)
        assert closing.outgoing.points.journal.exists()
        closing.record_batch(run.info.run_id, [["too late", 1.0, 1, 1]], (), ())
        assert closing.losses.counts.metrics == 1


def test_a_platform_that_is_far_behind_is_waited_for_once(tracked: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories that are read one after the other, as `log_model` does, do not each wait for a slow platform."""
    monkeypatch.setattr(run_store, "SETTLE_SECONDS", 1.0)
    waited: list[float] = []
    with mlflow.start_run() as run:
        tracked.fault(Hang(), path="/api/2.0/mlflow/runs/log-batch")
        flush = outbox().flush
        monkeypatch.setattr(
            outbox(), "flush", lambda seconds, **options: (waited.append(seconds), flush(seconds, **options))[1]
        )
        mlflow.log_metric("loss", 0.5, step=3)
        for _ in range(4):
            history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
            assert [(point.step, point.value) for point in history] == [(3, 0.5)]
        assert waited == [1.0, 0.0, 0.0, 0.0]
        monkeypatch.setattr(outbox(), "flush", flush)
