"""Many processes, threads and syncs at once: no record twice, none lost."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest

from mantik.delivery.spool import identities_of
from mantik.delivery.sync import survey
from mantik.settings import Settings
from mantik.testing import Refuse, wait_until
from tests.forked import fork_script, run_forked
from tests.scripts import clean_environment

from .nursery import Nursery, kept_ids
from .training import Training, assert_complete, mantik, spool_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import FaultProxy, Platform

WRITERS = """
import multiprocessing, os, sys, threading

import mantik, mlflow

def write(run_id, name):
    client = mlflow.MlflowClient()
    def log(key):
        for step in range(60):
            client.log_metric(run_id, key, step / 3, step=step)
    threads = [threading.Thread(target=log, args=(f"{name}-{number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    client.log_param(run_id, name, name)
    client.log_text(run_id, name, f"{name}.txt")
    for thread in threads:
        thread.join()

def work(run_id, name):
    mantik.init_tracking()
    write(run_id, name)
    client = mlflow.MlflowClient()
    own = client.create_run("0", run_name=name).info.run_id
    write(own, name)
    client.set_terminated(own)
    # In one write: the lines of many processes must not mix.
    sys.stdout.write(f"OWN {name} {own}\\n")
    sys.stdout.flush()

if __name__ == "__main__":
    mantik.init_tracking()
    run_id = mlflow.start_run().info.run_id
    mlflow.log_metric("parent", 1.0)
    children = []
    for number in range(int(os.environ["WRITERS"])):
        method = "spawn" if number % 4 == 3 else "fork"
        context = multiprocessing.get_context(method)
        child = context.Process(target=work, args=(run_id, f"{method}{number}"))
        child.start()
        children.append(child)
    write(run_id, "parent")
    for child in children:
        child.join()
        assert child.exitcode == 0, child
    mlflow.end_run()
    print("RUN", run_id, flush=True)
"""


@pytest.fixture
def nursery(mantik_platform: Platform, tmp_path: Path) -> Iterator[Nursery]:
    """Warm up a process of a user of the platform."""
    with Nursery(clean_environment(mantik_platform.environment(), tmp_path), tmp_path) as warm:
        yield warm


def assert_written(platform: Platform, run_id: str, names: list[str]) -> None:
    """Check that everything that some writers wrote to a run is there once, and that the run has ended."""
    held = platform.read_back
    run = held.run(run_id)
    assert run.params == {name: name for name in names}
    assert held.artifacts(run_id) == sorted(f"{name}.txt" for name in names)
    for name in names:
        for number in range(2):
            history = held.metric_history(run_id, f"{name}-{number}")
            assert [(point.step, point.value) for point in history] == [(step, step / 3) for step in range(60)]
    assert run.status == "FINISHED"


@pytest.mark.parametrize("writers", [6, pytest.param(16, marks=pytest.mark.thorough)])
def test_many_writers_at_once(
    writers: int, mantik_platform: Platform, environment: dict[str, str], tmp_path: Path
) -> None:
    """Forks and spawned processes with two threads each write to one run and to runs of their own, all at once."""
    script = tmp_path / "writers.py"
    script.write_text(WRITERS)
    # As a file: a process that is spawned reads it again.
    code = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
    output = run_forked(code, {**environment, "WRITERS": str(writers)}, tmp_path)
    said = [line.split() for line in output.splitlines()]
    # Where the platform takes long to create a run, a process goes on with an id of its own.
    known = kept_ids(environment)
    own = {words[1]: known.get(words[2]) or words[2] for words in said if words[:1] == ["OWN"]}
    (run_id,) = [known.get(words[1]) or words[1] for words in said if words[:1] == ["RUN"]]
    assert len(set(own.values())) == writers
    assert_written(mantik_platform, run_id, [*own, "parent"])
    for name, own_id in own.items():
        assert_written(mantik_platform, own_id, [name])
    assert spool_of(environment) == []


def test_syncs_at_once_bring_dead_processes_once(nursery: Nursery, mantik_platform: Platform, tmp_path: Path) -> None:
    """Three syncs share what six processes left behind that never met the platform: each run is there once, whole."""
    spool = {"MANTIK_SPOOL": str(tmp_path / "spool")}
    offline = {**spool, "MANTIK_MODE": "offline"}
    names = [f"at once {number} {tmp_path}" for number in range(3)]
    trainings = [nursery.train(offline, operations=45, experiment=name) for name in names * 2]
    for training in trainings:
        training.read_until("LOGGED")
        training.kill()
    for _ in range(3):
        syncs = [nursery.ship(spool) for _ in range(3)]
        for sync in syncs:
            assert sync.wait()[-1].startswith("EXIT"), sync.errors.read_text()
            assert "Traceback" not in sync.errors.read_text()
    assert nursery.ship(spool).wait() == ["EXIT 0"]
    held = mantik_platform.read_back
    ids = kept_ids(spool)
    for number, name in enumerate(names):
        runs = held.runs(name)
        started = [next(line.split()[1] for line in t.lines() if line.startswith("RUN")) for t in trainings[number::3]]
        assert sorted(run.run_id for run in runs) == sorted(str(ids[run_id]) for run_id in started)
        assert sum(experiment.name == name for experiment in held.experiments()) == 1
        models = held.logged_models(runs[0].experiment_id)
        assert sorted((model.source_run_id, model.name) for model in models) == sorted(
            (run.run_id, model) for run in runs for model in ("model-19", "model-39")
        )
        for run in runs:
            assert run.status == "KILLED"
            steps = [step for step in range(45) if step % 5 in {0, 4} and step % 20 != 19]
            assert [point.step for point in held.metric_history(run.run_id, "loss")] == steps
            assert len(held.artifacts(run.run_id)) == 9
    assert [entry.name for entry in (tmp_path / "spool").iterdir()] == ["ids"]


def test_syncs_beside_a_live_run(mantik_platform: Platform, environment: dict[str, str], tmp_path: Path) -> None:
    """A training ships, and syncs run beside it all the time: nothing is sent twice, and its folder is never theirs."""
    training = Training(environment, tmp_path)
    training.go_on()
    for _ in range(3):
        beside = mantik("sync", "--json", environment=environment)
        assert (beside.returncode, beside.stdout) == (0, "")
    training.expect("LOGGED ")
    beside = mantik("sync", "--json", environment=environment)
    assert (beside.returncode, beside.stdout) == (0, "")
    assert len(spool_of(environment)) == 1
    assert mantik_platform.read_back.run(training.run_id).status == "RUNNING"
    training.finish()
    assert_complete(mantik_platform, training.run_id)
    assert spool_of(environment) == []


def test_a_dead_helper_of_a_live_run_is_brought_in_and_the_run_goes_on(
    mantik_platform: Platform, environment: dict[str, str], tmp_path: Path
) -> None:
    """What a killed process logged to the run of a live one arrives by a sync, which does not end the run."""
    training = Training(environment, tmp_path)
    helper = fork_script(
        f"""
        import os, signal
        import mantik, mlflow

        mantik.init_tracking()
        mlflow.start_run(run_id={training.run_id!r})
        for step in range(50):
            mlflow.log_metric("helper", step / 2, step=step)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        environment,
        tmp_path,
    )
    output, _ = helper.communicate(timeout=60)
    assert helper.returncode == -signal.SIGKILL, output
    assert len(spool_of(environment)) == 2
    done = mantik("sync", "--json", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    held = mantik_platform.read_back
    history = held.metric_history(training.run_id, "helper")
    assert [(point.step, point.value) for point in history] == [(step, step / 2) for step in range(50)]
    assert held.run(training.run_id).status == "RUNNING"
    training.go_on()
    training.finish()
    assert_complete(mantik_platform, training.run_id)
    assert len(held.metric_history(training.run_id, "helper")) == 50


def test_forks_log_to_a_run_that_the_platform_does_not_know_yet(
    mantik_platform: Platform, environment: dict[str, str], proxy: FaultProxy, tmp_path: Path
) -> None:
    """The platform is away when the run begins; children log to it by its provisional id; all is one run in the end."""
    switch = proxy.fault(Refuse())
    released = tmp_path / "released"
    code = f"""
        import multiprocessing, os, pathlib
        import mantik, mlflow
        from mantik.testing import wait_until

        def work(run_id, name):
            client = mlflow.MlflowClient()
            for step in range(50):
                client.log_metric(run_id, name, step / 2, step=step)
            client.log_text(run_id, name, f"{{name}}.txt")
            assert client.get_run(run_id).data.metrics[name] == 24.5

        mantik.init_tracking()
        run_id = mlflow.start_run().info.run_id
        assert run_id.startswith("local-"), run_id
        mlflow.log_metric("parent", 1.0)
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=work, args=(run_id, f"child-{{number}}")) for number in range(3)]
        for child in children: child.start()
        pathlib.Path({str(released)!r}).touch()
        for child in children: child.join()
        assert [child.exitcode for child in children] == [0, 0, 0]
        mlflow.end_run()
        print("RUN", run_id)
        """

    def come_back() -> None:
        wait_until(released.exists, deadline=120, what="the children")
        switch.clear()

    waiting = threading.Thread(target=come_back)
    waiting.start()
    try:
        output = run_forked(code, environment, tmp_path)
    finally:
        released.touch()
        waiting.join()
    settings = Settings.from_environment(environment)
    local_id = output.partition("RUN ")[2].split()[0]
    run_id = identities_of(settings.spool).server_id(local_id)
    held = mantik_platform.read_back
    run = held.run(run_id)
    assert sum(other.tags.get("mantik.op_id") == run.tags["mantik.op_id"] for other in held.runs("Default")) == 1
    names = [f"child-{number}" for number in range(3)]
    for name in names:
        history = held.metric_history(run_id, name)
        assert [(point.step, point.value) for point in history] == [(step, step / 2) for step in range(50)]
    assert run.metrics["parent"] == 1.0
    assert held.artifacts(run_id) == [f"{name}.txt" for name in names]
    assert run.status == "FINISHED"
    assert list(survey(settings)) == []
