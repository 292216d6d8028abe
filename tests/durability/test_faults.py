"""What happens to a training, and to what it records, when something goes wrong on the way."""

from __future__ import annotations

import json
import os
import random
import signal
from typing import TYPE_CHECKING

import pytest

from mantik.testing import Delay, FaultProxy, Hang, Html, LoseAcknowledgement, Platform, Refuse, Status, wait_until
from tests.scripts import clean_environment, start_script

from .training import STEPS, Training, assert_complete, mantik, spool_of

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing.faults import Fault


KILLS = int(os.environ.get("KILLS", "4"))
"""How many processes are killed; `make torture` kills 200."""


@pytest.mark.parametrize(
    "fault",
    [
        Refuse(),
        Status(500),
        Status(503),
        Status(429, headers={"Retry-After": "1"}),
        Status(401, "Token expired"),
        Status(404, "<html>not here</html>"),
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
    assert float(training.expect("LOGGED ")) < 3.0
    wait_until(lambda: switch.hits >= 1, deadline=30, what="the fault was met")
    switch.clear()
    training.finish()
    assert_complete(mantik_platform, training.run_id)


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


def test_a_restart_of_the_server_costs_nothing(tmp_path: Path) -> None:
    """A platform that is killed in the middle and comes back has everything in the end."""
    with Platform() as platform:
        environment = clean_environment(platform.environment(), tmp_path)
        training = Training(environment, tmp_path)
        platform.kill()
        training.go_on()
        assert float(training.expect("LOGGED ")) < 3.0
        platform.restart()
        training.finish()
        assert_complete(platform, training.run_id)


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


@pytest.mark.parametrize("moment", range(KILLS))
def test_a_killed_process_loses_nothing_that_a_call_had_taken(
    moment: int, mantik_platform: Platform, environment: dict[str, str], tmp_path: Path
) -> None:
    """After SIGKILL in the middle of logging, `mantik sync` delivers each point whose call had returned, once."""
    code = """
        import mantik, mlflow

        mantik.init_tracking()
        run = mlflow.start_run()
        print("RUN", run.info.run_id, flush=True)
        step = 0
        while True:
            mlflow.log_param(f"param-{step}", step)
            mlflow.set_tag("last", step)
            mlflow.log_metric("loss", step / 7, step=step)
            print(step, flush=True)
            step += 1
        """
    process = start_script(code, environment, tmp_path)
    assert process.stdout is not None
    run_id = next(line for line in process.stdout if line.startswith("RUN ")).split()[1]
    # A moment of its own for each, the same in every run of the test.
    for _ in range(random.Random(moment).randrange(1, 1500)):  # noqa: S311  # nothing secret
        last = process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    # Not communicate(): it would miss what readline() has read ahead.
    rest = process.stdout.read()
    process.wait(60)
    # The last line may be cut off.
    returned = int([line for line in (last + rest).splitlines(keepends=True) if line.endswith("\n")][-1])
    done = mantik("sync", "--json", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["closed_runs"] == [run_id]
    held = mantik_platform.read_back
    history = held.metric_history(run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(step, step / 7) for step in range(len(history))]
    # The call that was under way when the process died may have come through or not.
    assert returned + 1 <= len(history) <= returned + 2
    run = held.run(run_id)
    # Param and tag of a step are recorded before its point: there may be one more of them than points.
    params = {f"param-{step}": str(step) for step in range(len(history))}
    assert params.items() <= run.params.items()
    assert len(run.params) <= len(params) + 1
    assert int(run.tags["last"]) in {len(history) - 1, len(history)}
    assert run.status == "KILLED"
    assert run.end_time is not None
    assert abs(run.end_time - history[-1].timestamp) < 5000
