"""What happens to a training, and to what it records, when something goes wrong on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mantik.testing import Delay, FaultProxy, Hang, Html, LoseAcknowledgement, Platform, Refuse, Status, wait_until
from tests.scripts import clean_environment, run_script, start_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing.faults import Fault

LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
UPDATE = "/api/2.0/mlflow/runs/update"

TRAINING = """
    import json, sys, time
    import mantik, mlflow

    mantik.init_tracking()
    longest = 0.0
    with mlflow.start_run() as run:
        print("RUN", run.info.run_id, flush=True)
        sys.stdin.readline()
        mlflow.log_params({f"param-{number}": number for number in range(150)})
        mlflow.set_tag("kind", "first")
        for step in range(STEPS):
            started = time.perf_counter()
            mlflow.log_metrics({"loss": 1.0 / (step + 1), "accuracy": step / STEPS}, step=step)
            longest = max(longest, time.perf_counter() - started)
        mlflow.set_tag("kind", "last")
        print("LOGGED", longest, flush=True)
        sys.stdin.readline()
    print("ENDED", flush=True)
    """

STEPS = 1500
KILLS = int(os.environ.get("KILLS", "4"))
"""How many processes are killed; `make torture` kills 200."""


@pytest.fixture
def proxy(mantik_platform: Platform) -> Iterator[FaultProxy]:
    """Stand in front of the platform."""
    with FaultProxy(mantik_platform.url) as standing:
        yield standing


@pytest.fixture
def environment(mantik_platform: Platform, proxy: FaultProxy, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user of the proxy, whose processes wait a minute for delivery at their end."""
    return clean_environment({**mantik_platform.environment(), "MLFLOW_TRACKING_URI": proxy.url}, tmp_path)


class Training:
    """A training in a process of its own that waits for leave at two places."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        code = TRAINING.replace("STEPS", str(STEPS))
        self.process = start_script(code, environment, folder)
        self.run_id = self.expect("RUN ")

    def expect(self, word: str) -> str:
        """Read what it prints up to a word, and return what follows on that line."""
        assert self.process.stdout is not None
        seen = ""
        for line in self.process.stdout:
            seen += line
            if line.startswith(word):
                return line.removeprefix(word).strip()
        raise AssertionError(f"{word!r} never came:\n{seen}")

    def go_on(self) -> None:
        """Let it pass the place where it waits."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> str:
        """Let it end, and return what else it printed."""
        output, _ = self.process.communicate("\n", timeout=150)
        assert self.process.returncode == 0, output
        return output


def assert_complete(platform: Platform, run_id: str, status: str = "FINISHED") -> None:
    """Check that everything the training recorded is there once, in order, and nothing else."""
    held = platform.read_back
    run = held.run(run_id)
    assert run.status == status
    assert run.params == {f"param-{number}": str(number) for number in range(150)}
    assert run.tags["kind"] == "last"
    for key, value in (("loss", lambda step: 1.0 / (step + 1)), ("accuracy", lambda step: step / STEPS)):
        history = held.metric_history(run_id, key)
        assert [(point.step, point.value) for point in history] == [(step, value(step)) for step in range(STEPS)]


def spool_of(environment: dict[str, str]) -> list[str]:
    """Return the folders that are left in the spool."""
    folder = f"{environment['MANTIK_HOME']}/spool"
    return os.listdir(folder) if os.path.isdir(folder) else []  # noqa: PTH112, PTH208  # names are enough


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
    assert float(training.expect("LOGGED ")) < 1.0
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
    assert float(training.expect("LOGGED ")) < 1.0
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
    assert float(training.expect("LOGGED ")) < 1.0
    training.finish()
    assert_complete(mantik_platform, training.run_id)


def test_a_restart_of_the_server_costs_nothing(tmp_path: Path) -> None:
    """A platform that is killed in the middle and comes back has everything in the end."""
    with Platform() as platform:
        environment = clean_environment(platform.environment(), tmp_path)
        training = Training(environment, tmp_path)
        platform.kill()
        training.go_on()
        assert float(training.expect("LOGGED ")) < 1.0
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


def test_poison_is_found_and_the_rest_arrives(
    mantik_platform: Platform, environment: dict[str, str], tmp_path: Path
) -> None:
    """A changed param is refused by the server and kept with its reason; everything around it arrives."""
    output = run_script(
        """
        import math
        import mantik, mlflow

        mantik.init_tracking()
        with mlflow.start_run() as run:
            mlflow.log_params({f"param-{number}": number for number in range(300)})
            mantik_flushed = mlflow.search_runs()
            mlflow.log_params({f"param-{number}": number + (number == 77) for number in range(300)})
            mlflow.log_metrics({"nan": math.nan, "inf": math.inf, "minus": -math.inf, "loss": 1.0}, step=3)
            mlflow.log_param("long", "x" * 5999)
            print("RUN", run.info.run_id)
        """,
        environment,
        tmp_path,
    )
    run = mantik_platform.read_back.run(output.partition("RUN ")[2].split()[0])
    assert len(run.params) == 301
    assert run.params["param-77"] == "77"
    assert run.params["long"] == "x" * 5999
    assert run.metrics["loss"] == 1.0
    assert set(run.metrics) == {"nan", "inf", "minus", "loss"}
    assert run.metrics["nan"] != run.metrics["nan"]  # that is NaN
    assert run.status == "FINISHED"
    assert "1 of the records; the reasons are in" in output
    (folder,) = spool_of(environment)
    kept = json.loads(open(f"{environment['MANTIK_HOME']}/spool/{folder}/quarantine.jsonl").read())  # noqa: PTH123, SIM115
    assert kept["what"] == "param 'param-77'"
    assert "param-77" in kept["reason"]


def test_what_the_user_did_wrong_is_said_at_once(environment: dict[str, str], tmp_path: Path) -> None:
    """A value that is no number and an illegal name raise MLflow's own error from the call, and harm nothing else."""
    run_script(
        """
        import mantik, mlflow, pytest

        mantik.init_tracking()
        with mlflow.start_run() as run:
            client = mlflow.MlflowClient()
            for key, value in (("loss", "high"), ("loss", None), ("a//b", 1.0), ("../x", 1.0), ("", 1.0)):
                with pytest.raises(mlflow.MlflowException):
                    client.log_metric(run.info.run_id, key, value)
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
    run_script(
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
    output = run_script(
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
                from mantik.delivery.outbox import close_all
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


def test_a_spool_that_cannot_be_written_leaves_stock_tracking(
    mantik_platform: Platform, environment: dict[str, str], tmp_path: Path
) -> None:
    """With a file where the spool should be, tracking works as in stock MLflow, and one sentence says so."""
    (tmp_path / "file").write_text("in the way")
    environment["MANTIK_SPOOL"] = str(tmp_path / "file" / "spool")
    output = run_script(
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


def mantik(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(
        [sys.executable, "-m", "mantik", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
