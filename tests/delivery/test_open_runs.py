"""Runs that a process has open, and runs that it leaves to another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow
import pytest
from mlflow.tracking._tracking_service.utils import _get_store

from mantik.delivery.registry import outbox_for
from mantik.testing import FaultProxy, Refuse

if TYPE_CHECKING:
    from mantik.delivery.outbox import Outbox
    from mantik.testing import Platform


def outbox() -> Outbox:
    """Return the outbox in use."""
    found = outbox_for(mlflow.get_tracking_uri())
    assert found is not None
    return found


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_that_was_handed_over_is_not_ended_here(
    tracked: FaultProxy, mantik_platform: Platform, status: str
) -> None:
    """An end changes nothing, a new name does, and the run goes on with all else that is logged to it."""
    client = mlflow.MlflowClient()
    run_id = mlflow.start_run().info.run_id
    outbox().hand_over(run_id)
    assert outbox().outgoing.open_runs() == list(outbox().open_runs) == []
    mlflow.end_run(status)
    client.log_metric(run_id, "loss", 0.5)
    client.update_run(run_id, status=status, name="renamed")
    assert outbox().runs[run_id].status == "RUNNING"
    assert outbox().flush(30)
    run = mantik_platform.read_back.run(run_id)
    assert (run.status, run.end_time, run.name, run.metrics) == ("RUNNING", None, "renamed", {"loss": 0.5})
    assert client.get_run(run_id).info.status == "RUNNING"


def test_a_run_that_is_taken_up_again_is_this_processs_own(tracked: FaultProxy, mantik_platform: Platform) -> None:
    """To resume a run in the process that handed it over takes that back: it is open on disk, and can be ended."""
    run_id = mlflow.start_run().info.run_id
    outbox().hand_over(run_id)
    mlflow.end_run()
    with mlflow.start_run(run_id=run_id):
        assert not outbox().is_handed_over(run_id)
        assert outbox().outgoing.open_runs() == [run_id]
    assert outbox().flush(30)
    assert mantik_platform.read_back.run(run_id).status == "FINISHED"


def test_a_run_with_two_ids_is_handed_over_under_both(tracked: FaultProxy, mantik_platform: Platform) -> None:
    """A run that began without the platform goes by its provisional id and by the server's, before and after."""
    client = mlflow.MlflowClient()
    with tracked.fault(Refuse()):
        local_id = mlflow.start_run().info.run_id
    assert outbox().flush(60)
    server_id = outbox().identities.server_id(local_id)
    assert local_id != server_id
    for given in (local_id, server_id):
        client.update_run(local_id, status="RUNNING")
        outbox().hand_over(given)
        assert outbox().outgoing.open_runs() == list(outbox().open_runs) == []
        for ended in (local_id, server_id):
            assert outbox().is_handed_over(ended)
            client.set_terminated(ended, "FINISHED")
    mlflow.end_run()
    assert outbox().flush(30)
    assert mantik_platform.read_back.run(server_id).status == "RUNNING"


def test_a_run_that_was_ended_before_it_is_handed_over_goes_on(tracked: FaultProxy, mantik_platform: Platform) -> None:
    """Where the end is on its way already, the run is opened again."""
    run_id = mlflow.start_run().info.run_id
    _get_store().update_run_info(run_id, mlflow.entities.RunStatus.KILLED, 5_000_000_000_000, None)
    outbox().hand_over(run_id)
    mlflow.end_run()
    assert outbox().flush(30)
    assert mantik_platform.read_back.run(run_id).status == "RUNNING"
