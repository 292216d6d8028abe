"""SIGKILL at any moment, of trainings and of syncs: nothing is lost that a call had taken, and nothing is there twice.

What is killed when follows from the number of a test alone, as far as two processes on one machine can be timed:
`make torture` tries 200 moments of each kind, and one that fails is repeated with
`KILLS=200 pytest "tests/durability/test_kills.py::NAME[NUMBER]"`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from mantik.delivery.creation import SETTLING_SECONDS
from mantik.testing import Delay, FaultProxy, Refuse, Status, wait_until
from tests.forked import fork_script
from tests.scripts import clean_environment

from .nursery import MODEL_EVERY, Nursery, kept_ids
from .training import mantik

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mantik.testing import Platform
    from mantik.testing.holdings import Run

    from .nursery import Child

KILLS = int(os.environ.get("KILLS", "3"))
"""How many processes of each kind are killed."""

OPERATIONS = 70

seeds = pytest.mark.parametrize("seed", range(KILLS))


@pytest.fixture(scope="module")
def nursery(mantik_platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Warm up a process of a user of the platform."""
    folder = tmp_path_factory.mktemp("nursery")
    with Nursery(clean_environment(mantik_platform.environment(), folder), folder) as warm:
        yield warm


@pytest.fixture
def spool(tmp_path: Path) -> dict[str, str]:
    """Return the variables of a spool of one's own."""
    return {"MANTIK_SPOOL": str(tmp_path / "spool")}


def kill_at_a_random_moment(training: Child, dice: random.Random) -> float:
    """Let a training do something between nothing and everything, kill it and return when, in seconds since 1970."""
    training.read_until("READY")
    last = dice.randrange(-2, OPERATIONS)
    if last == -1:
        training.read_until("RUN ")
    elif last >= 0:
        training.read_until(f"DONE {last} ")
    # Not right behind a call: anywhere in the next ones.
    training.read_for(dice.choice([0.0, 0.002, 0.02]) * dice.random())
    killed_at = time.time()
    training.kill()
    return killed_at


def kill_while_shipping(nursery: Nursery, spool: dict[str, str], dice: random.Random, *, longest: float = 0.6) -> None:
    """Start a sync and kill it at a random moment."""
    sync = nursery.ship(spool)
    sync.read_for(dice.random() * longest)
    sync.kill()


def assert_synced(nursery: Nursery, spool: dict[str, str]) -> None:
    """Sync until nothing is left: a killed sync may have asked for something that the platform is still at."""

    def done() -> bool:
        sync = nursery.ship(spool)
        said = sync.wait()
        errors = sync.errors.read_text()
        assert said[-1].startswith("EXIT"), (said, errors)
        assert "Traceback" not in errors
        return said[-1] == "EXIT 0"

    wait_until(done, deadline=60, what="a sync that delivers everything")
    assert nursery.ship(spool).wait() == ["EXIT 0"]


def returned_of(training: Child) -> tuple[str | None, list[float]]:
    """Return the id of the run, once its start had returned, and the times at which operations had."""
    run_id, times = None, []
    for line in training.lines():
        words = line.split()
        if words[0] == "RUN":
            run_id = words[1]
        elif words[0] == "DONE":
            times.append(float(words[2]))
    return run_id, times


def assert_true(platform: Platform, run: Run, returned: int) -> None:
    """Check that a run holds the first operations once, of the next one any part, and nothing else."""
    held = platform.read_back
    operations = range(returned + 1)
    plain = [number for number in operations if number % MODEL_EVERY != MODEL_EVERY - 1]

    def numbers(*kinds: int) -> list[int]:
        return [number for number in plain if number % 5 in kinds]

    def agree(found: Sequence[object], expected: Sequence[int], what: str) -> None:
        certain = [number for number in expected if number < returned]
        assert list(found) in (certain, list(expected)), what

    losses = held.metric_history(run.run_id, "loss")
    agree([point.step for point in losses], numbers(0, 4), "loss")
    assert all(point.value == point.step / 7 for point in losses)
    accuracies = held.metric_history(run.run_id, "accuracy")
    agree([point.step for point in accuracies], numbers(4), "accuracy")
    assert all(point.value == point.step / 9 for point in accuracies)
    agree(sorted(map(int, run.params.values())), numbers(1), "params")
    assert all(name == f"param-{value}" for name, value in run.params.items())
    tags = numbers(2)
    assert run.tags.get("last") in {str(number) for number in tags[-2:]} | ({None} if len(tags) < 2 else set())
    if tags and tags[-1] < returned:
        assert run.tags["last"] == str(tags[-1])
    files = held.artifacts(run.run_id)
    agree(sorted(int(name.removeprefix("texts/").removesuffix(".txt")) for name in files), numbers(3), "texts")
    for name in files:
        assert held.download(run.run_id, name).decode() == f"text {name[6:-4]}\n" * 1000
    assert_models_true(platform, run, returned)


def assert_models_true(platform: Platform, run: Run, returned: int) -> None:
    """Check that each model is there once, whole, and speaks of the run and of itself by their names there."""
    held = platform.read_back
    models = [model for model in held.logged_models(run.experiment_id) if model.source_run_id == run.run_id]
    names = sorted(model.name for model in models)
    assert names == sorted(set(names))
    logged = {f"model-{number}" for number in range(returned) if number % MODEL_EVERY == MODEL_EVERY - 1}
    under_way = {f"model-{returned}"} if returned % MODEL_EVERY == MODEL_EVERY - 1 else set()
    assert logged <= set(names) <= logged | under_way
    for model in models:
        if model.name in logged:
            assert model.status == "LOGGED_MODEL_READY", model
            text = artifact(platform, model.artifact_uri, "MLmodel").decode()
            assert f"model_id: {model.model_id}" in text
            assert f"run_id: {run.run_id}" in text
            assert "local-" not in text
            assert artifact(platform, model.artifact_uri, "python_model.pkl")


def artifact(platform: Platform, uri: str, name: str) -> bytes:
    """Return a file of a model."""
    path = uri.removeprefix("mlflow-artifacts:").strip("/")
    where = f"/api/2.0/mlflow-artifacts/artifacts/{path}/{name}"
    return platform.read_back._send("GET", where).content  # noqa: SLF001  # it reads only the files of runs


def assert_ended_truly(run: Run, times: list[float], killed_at: float) -> None:
    """Check that the run ended as what it was, when it was."""
    assert run.status == "KILLED"
    assert run.end_time is not None
    # A file system's clock lags by some milliseconds; and what was logged last was recorded before its call returned.
    first = times[-1] - 1.0 if times else run.start_time / 1000
    assert first <= run.end_time / 1000 <= killed_at + 0.1


@seeds
def test_a_killed_training_loses_nothing_that_a_call_had_taken(
    seed: int, nursery: Nursery, mantik_platform: Platform, spool: dict[str, str]
) -> None:
    """A training that ships while it logs is killed: after a sync, each thing is there once, content and end true."""
    dice = random.Random(seed)  # noqa: S311  # nothing secret
    training = nursery.train(spool, operations=OPERATIONS)
    killed_at = kill_at_a_random_moment(training, dice)
    assert_synced(nursery, spool)
    run_id, times = returned_of(training)
    if run_id is None:
        return
    run = mantik_platform.read_back.run(run_id)
    assert_true(mantik_platform, run, len(times))
    assert_ended_truly(run, times, killed_at)


@seeds
def test_a_killed_training_without_a_platform_is_there_once(
    seed: int, nursery: Nursery, mantik_platform: Platform, spool: dict[str, str]
) -> None:
    """A process in offline mode is killed: its run, its models and its experiment come to be exactly once."""
    dice = random.Random(1000 + seed)  # noqa: S311  # nothing secret
    name = f"killed offline {seed} {time.time()}"
    training = nursery.train({**spool, "MANTIK_MODE": "offline"}, operations=OPERATIONS, experiment=name)
    killed_at = kill_at_a_random_moment(training, dice)
    assert_synced(nursery, spool)
    assert_there_once(mantik_platform, name, training, spool, killed_at)


@seeds
def test_a_killed_sync_leaves_the_rest_for_the_next(
    seed: int, nursery: Nursery, mantik_platform: Platform, spool: dict[str, str]
) -> None:
    """Syncs are killed one after the other; the one that gets through leaves everything on the platform once."""
    dice = random.Random(2000 + seed)  # noqa: S311  # nothing secret
    name = f"killed sync {seed} {time.time()}"
    training = nursery.train({**spool, "MANTIK_MODE": "offline"}, operations=OPERATIONS, experiment=name)
    killed_at = kill_at_a_random_moment(training, dice)
    for _ in range(dice.randrange(1, 6)):
        kill_while_shipping(nursery, spool, dice)
    assert_synced(nursery, spool)
    assert_there_once(mantik_platform, name, training, spool, killed_at)


@seeds
def test_a_training_killed_in_an_outage_and_killed_syncs_lose_nothing(
    seed: int, nursery: Nursery, mantik_platform: Platform, spool: dict[str, str]
) -> None:
    """The platform goes away in the middle, the training is killed, syncs are killed: all is there once in the end."""
    dice = random.Random(3000 + seed)  # noqa: S311  # nothing secret
    with FaultProxy(mantik_platform.url) as proxy:
        here = {**spool, "MLFLOW_TRACKING_URI": proxy.url}
        training = nursery.train(here, operations=OPERATIONS)
        training.read_until("RUN ")
        training.read_for(dice.random() * 0.2)
        # Where nobody knows whether the server took a request, it is left alone for 15 s: only every tenth time.
        switch = proxy.fault(Refuse() if seed % 10 == 9 else Status(429))
        training.read_until(f"DONE {dice.randrange(OPERATIONS)} ")
        killed_at = time.time()
        training.kill()
        switch.clear()
        for _ in range(dice.randrange(1, 4)):
            kill_while_shipping(nursery, here, dice)
        assert_synced(nursery, here)
    run_id, times = returned_of(training)
    assert run_id is not None
    run = mantik_platform.read_back.run(run_id)
    assert_true(mantik_platform, run, len(times))
    assert_ended_truly(run, times, killed_at)


def assert_there_once(
    platform: Platform, experiment: str, training: Child, spool: dict[str, str], killed_at: float
) -> None:
    """Check that a run that began without the platform is there once, under the id that the spool tells."""
    local_id, times = returned_of(training)
    held = platform.read_back
    runs = held.runs(experiment)
    if local_id is None:
        # The call was under way: it may have come through or not, but not half.
        assert len(runs) <= 1
    else:
        (run,) = runs
        assert kept_ids(spool)[local_id] == run.run_id
    assert sum(found.name == experiment for found in held.experiments()) <= 1
    for run in runs:
        assert_true(platform, run, len(times))
        assert_ended_truly(run, times, killed_at)


def test_a_sync_killed_while_the_platform_creates_its_run_does_not_create_another(
    nursery: Nursery, mantik_platform: Platform, spool: dict[str, str]
) -> None:
    """The platform is slow to create a run, and the sync that asked for it is killed: the next one waits for it."""
    name = f"killed while creating {time.time()}"
    with FaultProxy(mantik_platform.url) as proxy:
        here = {**spool, "MLFLOW_TRACKING_URI": proxy.url}
        training = nursery.train({**here, "MANTIK_MODE": "offline"}, operations=3, experiment=name)
        training.read_until("LOGGED")
        killed_at = time.time()
        training.kill()
        proxy.fault(Delay(2.0), path="/api/2.0/mlflow/runs/create", times=1)
        sync = nursery.ship(here)
        proxy.wait_for(1, "/api/2.0/mlflow/runs/create", deadline=30)
        sync.kill()
        assert_synced(nursery, here)
        # The first request has come through in spite of everything, and there was no other, unless the platform was
        # silent for longer than anybody waits for it.
        first, *later = proxy.wait_for(lambda request: request.upstream_status == 200, "/api/2.0/mlflow/runs/create")
        assert all(request.time - first.time > SETTLING_SECONDS for request in later)
    assert_there_once(mantik_platform, name, training, spool, killed_at)


def test_a_killed_script_is_brought_in_by_the_command_line(
    mantik_platform: Platform, environment: dict[str, str], tmp_path: Path
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
    process = fork_script(code, environment, tmp_path)
    run_id = next(line for line in process.stdout if line.startswith("RUN ")).split()[1]
    for _ in range(250):
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
