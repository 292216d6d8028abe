"""What training writes and reads: wrong calls, its own writes, children, spools that cannot be written."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mantik.testing import FaultProxy, Refuse
from tests.forked import run_forked

from .training import Training, assert_complete, mantik, spool_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.testing import Platform

LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
UPDATE = "/api/2.0/mlflow/runs/update"


def test_what_the_user_did_wrong_is_said_at_once(environment: dict[str, str], tmp_path: Path) -> None:
    """A value that is no number and an illegal name raise MLflow's own error from the call, and harm nothing else."""
    run_forked(
        """
        import mantik, mlflow, pytest

        mantik.init_tracking()
        with mlflow.start_run() as run:
            client = mlflow.MlflowClient()
            for key, value in (("loss", "high"), ("loss", None), ("a//b", 1.0), ("../x", 1.0), ("", 1.0)):
                with pytest.raises(mlflow.MlflowException):
                    client.log_metric(run.info.run_id, key, value)
            for step, moment in ((2**63, 1), (1, 2**63), (1, -1)):
                with pytest.raises(mlflow.MlflowException):
                    client.log_metric(run.info.run_id, "loss", 1.0, step=step, timestamp=moment)
            with pytest.raises(mlflow.MlflowException):
                client.log_param(run.info.run_id, "a//b", 1)
            with pytest.raises(mlflow.MlflowException):
                client.set_tag(run.info.run_id, "a//b", 1)
            mlflow.log_metric("loss", 1.0)
            assert mlflow.get_run(run.info.run_id).data.metrics == {"loss": 1.0}
        """,
        environment,
        tmp_path,
    )


def test_a_training_reads_its_own_writes(environment: dict[str, str], proxy: FaultProxy, tmp_path: Path) -> None:
    """Runs, histories and searches show what was logged a moment before, also during an outage."""
    proxy.fault(Refuse(), path=LOG_BATCH)
    proxy.fault(Refuse(), path=UPDATE)
    environment["MANTIK_EXIT_TIMEOUT"] = "1"
    run_forked(
        """
        import mantik, mlflow

        mantik.init_tracking()
        client = mlflow.MlflowClient()
        with mlflow.start_run(run_name="before") as run:
            run_id = run.info.run_id
            mlflow.log_params({"depth": 3})
            mlflow.set_tag("kind", "first")
            mlflow.set_tag("kind", "second")
            for step in range(5):
                mlflow.log_metric("loss", step / 2, step=step, timestamp=1000 + step)
            mlflow.log_metric("loss", 9.0, step=2, timestamp=2000)
            read = mlflow.get_run(run_id)
            assert read.data.params == {"depth": "3"}
            assert read.data.tags["kind"] == "second"
            assert read.data.metrics == {"loss": 2.0}
            assert read.info.status == "RUNNING"
            history = client.get_metric_history(run_id, "loss")
            points = [(point.step, point.value) for point in history]
            assert points == [(0, 0), (1, 0.5), (2, 1), (3, 1.5), (4, 2), (2, 9)]
            client.update_run(run_id, name="after")
            assert mlflow.get_run(run_id).info.run_name == "after"
        ended = mlflow.get_run(run_id).info
        assert ended.status == "FINISHED"
        assert ended.end_time >= ended.start_time
        """,
        environment,
        tmp_path,
    )


def test_children_and_threads_write_into_journals_of_their_own(
    mantik_platform: Platform, environment: dict[str, str], tmp_path: Path
) -> None:
    """Eight forks and four threads of one training log at once: every point arrives once."""
    output = run_forked(
        """
        import os, threading
        import mantik, mlflow

        mantik.init_tracking()
        run_id = mlflow.start_run().info.run_id
        mlflow.log_metric("parent", 1.0)
        client = mlflow.MlflowClient()

        def log(name):
            for step in range(200):
                client.log_metric(run_id, name, step / 3, step=step)

        children = []
        for number in range(8):
            child = os.fork()
            if child == 0:
                log(f"fork-{number}")
                from mantik.delivery.ending import close_all
                close_all()
                os._exit(0)
            children.append(child)
        threads = [threading.Thread(target=log, args=(f"thread-{number}",)) for number in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        for child in children: assert os.waitpid(child, 0)[1] == 0
        mlflow.end_run()
        print("RUN", run_id)
        """,
        environment,
        tmp_path,
    )
    run_id = output.partition("RUN ")[2].split()[0]
    held = mantik_platform.read_back
    for name in [f"fork-{number}" for number in range(8)] + [f"thread-{number}" for number in range(4)]:
        history = held.metric_history(run_id, name)
        assert [(point.step, point.value) for point in history] == [(step, step / 3) for step in range(200)]
    assert spool_of(environment) == []


@pytest.fixture(params=["file in the way", "read-only"])
def dead_spool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return a spool that cannot be written: below a file, or read-only, for root too where mounting is allowed."""
    folder = tmp_path / "dead"
    if request.param != "read-only":
        folder.write_text("in the way")
        yield folder / "spool"
        return
    folder.mkdir()
    folder.chmod(0o500)
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    mounted = False
    if os.geteuid() == 0 and mount is not None and unmount is not None:
        command = [mount, "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    # Root in a container that may not mount writes everywhere; /proc is read-only there, too.
    yield folder / "spool" if mounted or os.geteuid() != 0 else Path("/proc/spool")
    if mounted and unmount is not None:
        subprocess.run([unmount, "--lazy", str(folder)], check=True)


def test_a_spool_that_cannot_be_written_leaves_stock_tracking(
    dead_spool: Path, mantik_platform: Platform, environment: dict[str, str], tmp_path: Path
) -> None:
    """With a spool that cannot be written, tracking works as in stock MLflow, and one sentence says so."""
    environment["MANTIK_SPOOL"] = str(dead_spool)
    output = run_forked(
        """
        import mantik, mlflow

        mantik.init_tracking()
        with mlflow.start_run() as run:
            for step in range(3):
                mlflow.log_metric("loss", 1.0, step=step)
        print("RUN", run.info.run_id)
        """,
        environment,
        tmp_path,
    )
    assert output.count("Nothing can be kept in") == 1
    run_id = output.partition("RUN ")[2].split()[0]
    assert len(mantik_platform.read_back.metric_history(run_id, "loss")) == 3


def test_sync_leaves_a_live_process_alone(
    mantik_platform: Platform, environment: dict[str, str], proxy: FaultProxy, tmp_path: Path
) -> None:
    """Two syncs beside a training that cannot deliver ship nothing of it; the training delivers all itself."""
    training = Training(environment, tmp_path)
    switch = proxy.fault(Refuse())
    training.go_on()
    training.expect("LOGGED ")
    for _ in range(2):
        beside = mantik("sync", environment=environment)
        assert beside.returncode == 0
        assert "Nothing waits." in beside.stderr
    assert "is running and sends by itself" in mantik("sync", "--dry-run", environment=environment).stdout
    switch.clear()
    training.finish()
    assert_complete(mantik_platform, training.run_id)
