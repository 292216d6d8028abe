"""What happens to a training, and to what it records, when something goes wrong on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mantik.testing import Delay, Hang, Html, LoseAcknowledgement, Platform, Refuse, Status, wait_until
from tests.forked import fork_script, run_forked
from tests.scripts import clean_environment

from .training import STEPS, TRAINING, Training, assert_complete, mantik, server_id, spool_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.testing import FaultProxy
    from mantik.testing.faults import Fault

OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "0"))
"""How long nobody listens at the platform's address, beside the seconds that a restart takes."""


ROOM = 80 * 1024
MANY_STEPS = 1500
"""Of a training that needs more room than that."""

LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
TOKENS = "/api/mantik/tokens"


@pytest.mark.parametrize(
    "fault",
    [
        Refuse(),
        Status(500),
        Status(503),
        Status(429, headers={"Retry-After": "1"}),
        Status(401, "Token expired"),
        Html(),
        LoseAcknowledgement(),
    ],
    ids=lambda fault: f"{type(fault).__name__}{getattr(fault, 'code', '')}",
)
def test_an_outage_in_the_middle_costs_nothing(
    fault: Fault, mantik_platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path
) -> None:
    """While the platform fails in any way, calls stay quick; when it is back, all arrives once, in order."""
    training = Training(environment, tmp_path)
    switch = proxy.fault(fault)
    training.go_on()
    assert float(training.expect("LOGGED ")) < 3.0
    wait_until(lambda: switch.hits >= 2, deadline=30, what="the fault was met")
    switch.clear()
    training.finish()
    assert_complete(mantik_platform, training.run_id)
    assert spool_of(environment) == []


def test_a_black_hole_costs_nothing(
    mantik_platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path
) -> None:
    """A server that takes requests and never answers does not make calls slow."""
    training = Training(environment, tmp_path)
    switch = proxy.fault(Hang())
    training.go_on()
    # MLflow asks for the run when its first artifact is logged, and 5 s are given to the answer.
    assert float(training.expect("LOGGED ")) < 8.0
    wait_until(lambda: switch.hits >= 1, deadline=30, what="the fault was met")
    switch.clear()
    training.finish()
    assert_complete(mantik_platform, training.run_id)


def test_a_black_hole_before_the_start_costs_seconds(
    mantik_platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path
) -> None:
    """A server that answers nothing from the beginning holds the start up for seconds, and gets all once it answers."""
    switch = proxy.fault(Hang())
    training = Training(environment, tmp_path)
    assert training.start_seconds < 20
    training.go_on()
    assert float(training.expect("LOGGED ")) < 8.0
    switch.clear()
    training.finish()
    assert_complete(mantik_platform, training.run_id)
    assert spool_of(environment) == []


def test_a_slow_server_does_not_make_calls_slow(
    mantik_platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path
) -> None:
    """With 300 ms per request the training logs as fast as ever."""
    training = Training(environment, tmp_path)
    proxy.fault(Delay(0.3))
    training.go_on()
    assert float(training.expect("LOGGED ")) < 3.0
    training.finish()
    assert_complete(mantik_platform, training.run_id)


def test_a_dead_server_before_the_start_and_a_restart_cost_nothing(tmp_path: Path) -> None:
    """One training begins before the platform is killed and one after it: when it is back, it gets all of both."""
    with Platform() as platform:
        environment = clean_environment(platform.environment(), tmp_path)
        early = Training(environment, tmp_path)
        platform.kill()
        over = time.monotonic() + OUTAGE_SECONDS
        late = Training(environment, tmp_path)
        assert late.start_seconds < 20
        assert late.run_id.startswith("local-")
        for training in (early, late):
            training.go_on()
            assert float(training.expect("LOGGED ")) < 3.0
        wait_until(lambda: time.monotonic() >= over, deadline=OUTAGE_SECONDS + 10, what="the end of the outage")
        platform.restart()
        output = late.finish()
        early.finish()
        for training in (early, late):
            assert_complete(platform, training.run_id)
        assert f"/runs/{server_id(platform, late.run_id)}" in output
        assert spool_of(environment) == []


def test_what_a_dead_server_missed_is_sent_by_sync(
    mantik_platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path
) -> None:
    """A server that stays away costs the end of the process seconds; `mantik sync` delivers all, end time included."""
    environment["MANTIK_EXIT_TIMEOUT"] = "2"
    training = Training(environment, tmp_path)
    switch = proxy.fault(Refuse())
    training.go_on()
    training.expect("LOGGED ")
    output = training.finish()
    assert "ENDED" in output
    assert "mantik sync" in output
    assert mantik_platform.read_back.run(training.run_id).status == "RUNNING"
    (folder,) = spool_of(environment)
    shown = mantik("sync", "--dry-run", environment=environment)
    assert "is gone" in shown.stdout
    failed = mantik("sync", environment=environment)
    assert failed.returncode == 1
    assert "the platform cannot take it now" in failed.stdout
    assert spool_of(environment) == [folder]
    switch.clear()
    done = mantik("sync", "--json", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["sent"]["metrics"] == 2 * STEPS
    assert report["problem"] is None
    assert_complete(mantik_platform, training.run_id)
    assert spool_of(environment) == []
    assert "Nothing waits." in mantik("sync", environment=environment).stderr


def test_a_server_that_is_dead_all_the_time_gets_the_run_from_sync(
    mantik_platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path
) -> None:
    """A training that never saw the platform is there once after `mantik sync`, with its own start and end."""
    environment["MANTIK_EXIT_TIMEOUT"] = "1"
    switch = proxy.fault(Refuse())
    training = Training(environment, tmp_path)
    training.go_on()
    assert float(training.expect("LOGGED ")) < 3.0
    output = training.finish()
    assert f"mantik sync {training.run_id}" in output
    switch.clear()
    done = mantik("sync", training.run_id, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_complete(mantik_platform, training.run_id)
    assert spool_of(environment) == []


def test_a_name_that_does_not_resolve_costs_seconds(tmp_path: Path) -> None:
    """Without name resolution a training of seconds takes seconds, and what it recorded is shown by a dry run."""
    settings = {"MLFLOW_TRACKING_URI": "https://nowhere.invalid", "MANTIK_USERNAME": "ada", "MANTIK_PASSWORD": "secret"}
    environment = clean_environment({**settings, "MANTIK_EXIT_TIMEOUT": "1"}, tmp_path)
    training = Training(environment, tmp_path)
    assert training.start_seconds < 20
    training.go_on()
    assert float(training.expect("LOGGED ")) < 8.0
    assert "Not everything has reached https://nowhere.invalid" in training.finish()
    shown = mantik("sync", "--dry-run", environment=environment)
    assert "for https://nowhere.invalid: is gone" in shown.stdout
    assert "of files wait" in shown.stdout
    failed = mantik("sync", environment=environment)
    assert failed.returncode == 1
    assert "not finished" in failed.stdout
    assert len(spool_of(environment)) == 1


def test_a_rejected_token_is_renewed_on_the_way(
    mantik_platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path
) -> None:
    """A 401 in the middle costs one refresh, and the same request arrives with the new token."""
    # A token that was issued this very moment would not be renewed at once.
    run_forked("import mantik; mantik.init_tracking()", environment, tmp_path)
    training = Training(environment, tmp_path)
    before = proxy.count(TOKENS)
    switch = proxy.fault(Status(401, "Token expired"), path=LOG_BATCH, times=1)
    training.go_on()
    assert float(training.expect("LOGGED ")) < 3.0
    wait_until(lambda: switch.hits >= 1, deadline=30, what="the fault was met")
    training.finish()
    assert_complete(mantik_platform, training.run_id)
    assert proxy.count(TOKENS) > before


def test_a_token_that_cannot_be_renewed_costs_nothing(
    mantik_platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path
) -> None:
    """With a rejected token and a refused login until after the end, `mantik sync` delivers all with a new login."""
    environment["MANTIK_EXIT_TIMEOUT"] = "2"
    training = Training(environment, tmp_path)
    switch = proxy.fault(Status(401, "Token expired"))
    training.go_on()
    assert float(training.expect("LOGGED ")) < 3.0
    output = training.finish()
    assert "mantik sync" in output
    assert "401" in output
    switch.clear()
    done = mantik("sync", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_complete(mantik_platform, training.run_id)


def test_lost_acknowledgements_of_what_is_created_make_nothing_twice(
    mantik_platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path
) -> None:
    """Run, model and artifact are there once where the platform did what was asked and its answers were lost."""
    lost = [
        proxy.fault(LoseAcknowledgement(), path="/api/2.0/mlflow/runs/create", times=1),
        proxy.fault(LoseAcknowledgement(), path=LOG_BATCH, times=1),
        proxy.fault(LoseAcknowledgement(), path="/api/2.0/mlflow-artifacts/", method="PUT", times=1),
    ]
    model = proxy.fault(LoseAcknowledgement(), path=re.compile("/logged-models$"), method="POST", times=1)
    experiment = mantik_platform.read_back._call("POST", "experiments/create", {"name": tmp_path.name})  # noqa: SLF001
    environment["MLFLOW_EXPERIMENT_NAME"] = tmp_path.name
    code = """
        import mantik, mlflow

        mantik.init_tracking()
        model = mlflow.create_external_model(name="model", params={"depth": "3"})
        with mlflow.start_run() as run:
            mlflow.log_metric("loss", 0.5, step=1, model_id=model.model_id)
            mlflow.log_param("depth", 3)
            mlflow.log_text("text", "text.txt")
        """
    run_forked(code, environment, tmp_path)
    assert [switch.hits for switch in (*lost, model)] == [1, 1, 1, 1]
    held = mantik_platform.read_back
    (run,) = held.runs(tmp_path.name)
    assert (run.status, run.params, run.metrics) == ("FINISHED", {"depth": "3"}, {"loss": 0.5})
    assert [point.value for point in held.metric_history(run.run_id, "loss")] == [0.5]
    assert held.artifacts(run.run_id) == ["text.txt"]
    (known,) = held.logged_models(experiment["experiment_id"])
    assert (known.name, known.params["depth"], known.metrics) == ("model", "3", {"loss": 0.5})
    assert spool_of(environment) == []


@pytest.fixture(params=["full", "limit"])
def small_spool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return settings for a spool with little room: on a full file system, or with a limit that the user set.

    Where mounting is not allowed, a limit on the size of the process's files stands for the full file system.
    """
    if request.param == "limit":
        yield {"MANTIK_SPOOL_LIMIT": str(ROOM)}
        return
    folder = tmp_path / "small"
    folder.mkdir()
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    mounted = False
    if mount is not None and unmount is not None:
        command = [mount, "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    yield {"MANTIK_SPOOL": str(folder)} if mounted else {"MANTIK_SPOOL": str(folder), "FILE_LIMIT": str(ROOM)}
    if mounted and unmount is not None:
        subprocess.run([unmount, "--lazy", str(folder)], check=True)


def test_a_full_disk_costs_what_did_not_fit_and_says_so(
    small_spool: dict[str, str],
    mantik_platform: Platform,
    proxy: FaultProxy,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    """With a full file system or a reached limit training goes on; losses are counted by kind, the rest arrives."""
    environment["MANTIK_EXIT_TIMEOUT"] = "1"
    environment |= small_spool
    limit = """
    import os, resource
    if size := os.environ.get("FILE_LIMIT"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))
"""
    switch = proxy.fault(Refuse())
    training = Training(environment, tmp_path, code=limit + TRAINING, steps=MANY_STEPS)
    training.go_on()
    assert float(training.expect("LOGGED ")) < 3.0
    output = training.finish()
    assert output.count("Training goes on; lost so far") <= 1
    lost = re.search(r"Lost, because .*: ([\d,]+) points", output)
    assert lost is not None, output
    switch.clear()
    done = mantik("sync", "--json", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    sent = json.loads(done.stdout)["sent"]["metrics"]
    assert 0 < sent == 2 * MANY_STEPS - int(lost[1].replace(",", ""))
    held = mantik_platform.read_back
    run_id = server_id(mantik_platform, training.run_id)
    for key in ("loss", "accuracy"):
        steps = [point.step for point in held.metric_history(run_id, key)]
        assert steps == sorted(set(steps))
        assert 2 * len(steps) == sent
    run = held.run(run_id)
    assert len(run.params) == 150
    # The end of a run is over the limit that the user set; where a real disk is full, it is ended as one left open.
    assert run.status == ("FINISHED" if "MANTIK_SPOOL_LIMIT" in small_spool else "KILLED")
    # Delivery made room, also for what the provisional id stands for.
    spool = Path(environment.get("MANTIK_SPOOL") or f"{environment['MANTIK_HOME']}/spool")
    known = json.loads((spool / "ids" / f"{training.run_id}.json").read_text())
    assert known["server_id"] == run_id
    assert spool_of(environment) == []


def test_a_clock_that_is_set_back_harms_nothing(
    mantik_platform: Platform, environment: dict[str, str], tmp_path: Path
) -> None:
    """When the clock goes back an hour in the middle, all points arrive, and the run's end is not before its start."""
    output = run_forked(
        """
        import time
        import mantik, mlflow

        mantik.init_tracking()
        with mlflow.start_run() as run:
            for step in range(100):
                mlflow.log_metric("loss", step / 3, step=step)
            now = time.time
            time.time = lambda: now() - 3600
            for step in range(100, 200):
                mlflow.log_metric("loss", step / 3, step=step)
        print("RUN", run.info.run_id)
        """,
        environment,
        tmp_path,
    )
    held = mantik_platform.read_back
    run = held.run(output.partition("RUN ")[2].split()[0])
    history = sorted(held.metric_history(run.run_id, "loss"), key=lambda point: point.step)
    assert [(point.step, point.value) for point in history] == [(step, step / 3) for step in range(200)]
    assert history[99].timestamp - history[100].timestamp > 3_500_000
    assert run.status == "FINISHED"
    assert run.end_time is not None
    assert run.end_time >= run.start_time
    assert spool_of(environment) == []


def test_strict_tracking_raises(proxy: FaultProxy, environment: dict[str, str], tmp_path: Path) -> None:
    """With MANTIK_STRICT=1 a platform that cannot be asked and a record that does not fit stop the training."""
    code = """
        import mantik, mlflow, pytest
        from mantik.exceptions import PlatformUnreachableError

        with pytest.raises(PlatformUnreachableError):
            mantik.init_tracking()
        print("READY", flush=True)
        input()
        mantik.init_tracking()
        with mlflow.start_run():
            mlflow.log_metric("loss", 0.5)
            with pytest.raises(OSError, match="MANTIK_SPOOL_LIMIT"):
                mlflow.log_param("long", "x" * 5000)
        print("ENDED", flush=True)
        """
    switch = proxy.fault(Refuse())
    process = fork_script(code, {**environment, "MANTIK_STRICT": "1", "MANTIK_SPOOL_LIMIT": "3k"}, tmp_path)
    first = process.stdout.readline()
    switch.clear()
    output, _ = process.communicate("\n", timeout=60)
    assert first == "READY\n"
    assert process.returncode == 0, output
    assert "ENDED" in output
