"""Trainings of a platform that is away, refuses, breaks off or is never asked: everything arrives, as it was."""

from __future__ import annotations

import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mantik.testing import FaultProxy, Hang, LoseAcknowledgement, Refuse, Status, wait_until

from .trainings import BATCHES, Trainings, assert_same_checkpoints, ended, points, steps, sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import Platform
    from mantik.testing.faults import Fault
    from mantik.testing.holdings import Run

ARTIFACTS = "/api/2.0/mlflow-artifacts"
EPOCHS = 6
BEST_AND_LAST = ("epoch=4-score=4", "epoch=5-score=5", "last")

# MLflow's own logger is held up for 251 s by a platform that is away at the start.
BLOCKED_SECONDS = 60.0

# The best two of six checkpoints are the latest: the others are dropped on the way.
THIRDS = """
    at = {12: lambda: wait("a third"), 24: lambda: wait("two thirds")}
    checkpoints = best_and_last("max")
    trainer(mantik.MantikLogger(log_model="all"), 6, callbacks=[checkpoints]).fit(Net(at=at), data(), data())
    """
WHOLE = """
    trainer(mantik.MantikLogger(log_model=True), EPOCHS, callbacks=[best_and_last("max")]).fit(Net(), data(), data())
    """
TESTED = """
    logger = mantik.MantikLogger(log_model="all")
    mine, net = trainer(logger, 6, callbacks=[best_and_last("max")]), Net()
    mine.fit(net, data(), data())
    mine.test(net, data(), verbose=False)
    """
RESUMED = """
    options = {"callbacks": [best_and_last("max")]}
    trainer(mantik.MantikLogger(log_model=True), 6, **options).fit(Net(), data(), data(), ckpt_path="../taken.ckpt")
    """


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """Warm a process up."""
    with Trainings(tmp_path_factory.mktemp("trainings")) as warm:
        yield warm


@pytest.fixture
def proxy(mantik_platform: Platform) -> Iterator[FaultProxy]:
    """Stand in front of the platform."""
    with FaultProxy(mantik_platform.url) as standing:
        yield standing


@pytest.fixture
def settings(mantik_platform: Platform, proxy: FaultProxy, request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the variables of a user of the proxy, whose runs are in an experiment named like the test."""
    own = {"MLFLOW_TRACKING_URI": proxy.url, "MLFLOW_EXPERIMENT_NAME": request.node.name}
    return {**mantik_platform.environment(), **own}


def the_run(platform: Platform, settings: dict[str, str]) -> Run:
    """Return the one run that the test has made, after checking that it is FINISHED."""
    (run,) = platform.read_back.runs(settings["MLFLOW_EXPERIMENT_NAME"])
    return ended(platform, run.run_id, "FINISHED")


def assert_complete(platform: Platform, run: Run, folder: Path) -> None:
    """Check that all points and checkpoints of a training are there, once and in order, and are told of rightly."""
    assert points(platform, run.run_id) == [(step, float(step)) for step in range(EPOCHS * BATCHES)]
    assert_same_checkpoints(platform, run.run_id, folder, BEST_AND_LAST)
    assert run.tags["mantik.checkpoint.best"] == "checkpoints/epoch=5-score=5/epoch=5-score=5.ckpt"
    assert run.tags["mantik.checkpoint.last"] == "checkpoints/last/last.ckpt"
    aliases = {}
    for name in BEST_AND_LAST:
        about = told(platform, run, f"checkpoints/{name}/metadata.yaml")
        aliases[about["original_filename"]] = about["aliases"]
    expected = {"epoch=4-score=4.ckpt": [], "epoch=5-score=5.ckpt": ["best"], "last.ckpt": ["last"]}
    assert aliases == expected
    index = told(platform, run, "checkpoints/index.yaml")["checkpoints"]
    assert {one["original_filename"]: one["aliases"] for one in index} == expected


def told(platform: Platform, run: Run, path: str) -> Any:  # noqa: ANN401  # whatever the file holds
    """Return what a YAML file of a run holds."""
    return yaml.safe_load(platform.read_back.download(run.run_id, path))


@pytest.mark.parametrize(
    "fault",
    [Refuse(), Hang(), Status(401, "Token expired"), Status(503), Status(500)],
    ids=["dead", "silent", "token-refused", "overloaded", "broken"],
)
def test_an_outage_in_the_middle_third_costs_nothing(  # noqa: PLR0913, PLR0917  # what goes wrong, and where
    fault: Fault,
    trainings: Trainings,
    mantik_platform: Platform,
    proxy: FaultProxy,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    """Training goes on without waiting; points, checkpoints and their labels are complete when the platform is back."""
    training = trainings.start(THIRDS, settings, tmp_path)
    training.reach("a third")
    switch = proxy.fault(fault)
    began = time.monotonic()
    training.go_on("a third")
    training.reach("two thirds")
    assert time.monotonic() - began < BLOCKED_SECONDS
    wait_until(lambda: switch.hits >= 1, deadline=60, what="a request in the outage")
    switch.clear()
    training.go_on("two thirds")
    assert "Not everything" not in training.end()
    assert_complete(mantik_platform, the_run(mantik_platform, settings), tmp_path)


@pytest.mark.parametrize("fault", [Refuse(), Hang()], ids=["dead", "silent"])
def test_a_platform_that_is_away_from_the_start_gets_all(  # noqa: PLR0913, PLR0917  # what goes wrong, and where
    fault: Fault,
    trainings: Trainings,
    mantik_platform: Platform,
    proxy: FaultProxy,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    """A training that began without the platform is one run, as soon as the platform answers."""
    switch = proxy.fault(fault)
    began = time.monotonic()
    training = trainings.start(THIRDS, settings, tmp_path)
    training.reach("a third")
    training.go_on("a third")
    training.reach("two thirds")
    assert time.monotonic() - began < BLOCKED_SECONDS
    assert "without the platform for now" in training.output
    switch.clear()
    training.go_on("two thirds")
    assert "Not everything" not in training.end()
    assert_complete(mantik_platform, the_run(mantik_platform, settings), tmp_path)


def test_artifacts_that_fail_at_the_end_leave_the_run_finished(
    trainings: Trainings, mantik_platform: Platform, proxy: FaultProxy, settings: dict[str, str], tmp_path: Path
) -> None:
    """Where no checkpoint can be uploaded, the run is FINISHED with all its points, and a sync brings them later."""
    switch = proxy.fault(Status(500), path=ARTIFACTS)
    output = trainings.run(WHOLE.replace("EPOCHS", "6"), {**settings, "MANTIK_EXIT_TIMEOUT": "2"}, tmp_path).output
    assert "Traceback" not in output
    assert "Not everything has reached" in output
    run = the_run(mantik_platform, settings)
    assert len(steps(mantik_platform, run.run_id)) == EPOCHS * BATCHES
    assert mantik_platform.read_back.artifacts(run.run_id) == []
    switch.clear()
    sync(settings, tmp_path)
    assert_complete(mantik_platform, the_run(mantik_platform, settings), tmp_path)


@pytest.mark.parametrize("fault", [Refuse(), LoseAcknowledgement()], ids=["on-the-way", "before-the-answer"])
def test_an_upload_that_is_cut_off_is_repeated(  # noqa: PLR0913, PLR0917  # what goes wrong, and where
    fault: Fault,
    trainings: Trainings,
    mantik_platform: Platform,
    proxy: FaultProxy,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    """A connection that breaks in the middle of an upload costs no checkpoint."""
    switch = proxy.fault(fault, path=ARTIFACTS, method="PUT", times=3)
    assert "Not everything" not in trainings.run(WHOLE.replace("EPOCHS", "6"), settings, tmp_path).output
    assert switch.hits == 3
    assert_complete(mantik_platform, the_run(mantik_platform, settings), tmp_path)


def test_a_kill_in_an_outage_costs_nothing(
    trainings: Trainings, mantik_platform: Platform, proxy: FaultProxy, settings: dict[str, str], tmp_path: Path
) -> None:
    """What a training recorded before it was killed is all there after a sync."""
    code = THIRDS.replace('wait("two thirds")', "send(signal.SIGKILL)()")
    switch = proxy.fault(Refuse())
    training = trainings.start(code, settings, tmp_path)
    training.reach("a third")
    training.go_on("a third")
    training.end(-signal.SIGKILL)
    switch.clear()
    sync(settings, tmp_path)
    (run,) = mantik_platform.read_back.runs(settings["MLFLOW_EXPERIMENT_NAME"])
    ended(mantik_platform, run.run_id, "KILLED")
    assert steps(mantik_platform, run.run_id) == list(range(24))
    assert_same_checkpoints(mantik_platform, run.run_id, tmp_path, ("epoch=2-score=2", "epoch=3-score=3", "last"))


def test_an_offline_training_arrives_with_a_sync(
    trainings: Trainings, mantik_platform: Platform, proxy: FaultProxy, settings: dict[str, str], tmp_path: Path
) -> None:
    """Offline nobody is asked; afterwards `mantik sync` brings the run of fit and test, with all checkpoints."""
    output = trainings.run(TESTED, {**settings, "MANTIK_MODE": "offline"}, tmp_path).output
    assert proxy.requests == []
    assert "without the platform for now" in output
    sync(settings, tmp_path)
    run = the_run(mantik_platform, settings)
    assert_complete(mantik_platform, run, tmp_path)
    assert run.metrics["tested"] == 1.0
    assert run.params == {"width": "1"}


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_checkpoint_alone_leads_back_to_its_run(
    mode: str, trainings: Trainings, mantik_platform: Platform, settings: dict[str, str], tmp_path: Path
) -> None:
    """A training that goes on from a checkpoint, on another day and with another home, goes on with its run."""
    trainings.run(WHOLE.replace("EPOCHS", "3"), settings, tmp_path / "early")
    (early,) = mantik_platform.read_back.runs(settings["MLFLOW_EXPERIMENT_NAME"])
    (last,) = (tmp_path / "early").rglob("last.ckpt")
    shutil.copy(last, tmp_path / "taken.ckpt")
    shutil.rmtree(tmp_path / "early")
    trainings.run(RESUMED, {**settings, "MANTIK_MODE": mode}, tmp_path / "late")
    if mode == "offline":
        sync(settings, tmp_path / "late")
    run = the_run(mantik_platform, settings)
    assert run.run_id == early.run_id
    assert run.tags["mantik.attempt"] == "2"
    assert "from taken.ckpt" in run.tags["mantik.attempt.2"]
    assert points(mantik_platform, run.run_id) == [(step, float(step)) for step in range(EPOCHS * BATCHES)]
    assert run.tags["mantik.checkpoint.best"] == "checkpoints/epoch=5-score=5/epoch=5-score=5.ckpt"


def test_a_checkpoint_of_an_offline_training_leads_back_to_its_run(
    trainings: Trainings, mantik_platform: Platform, settings: dict[str, str], tmp_path: Path
) -> None:
    """After the sync of an offline training, one that goes on from its checkpoint goes on with its run."""
    trainings.run(
        WHOLE.replace("EPOCHS", "3"), {**settings, "MANTIK_MODE": "offline"}, tmp_path / "early", home=tmp_path
    )
    sync(settings, tmp_path)
    (last,) = (tmp_path / "early").rglob("last.ckpt")
    shutil.copy(last, tmp_path / "taken.ckpt")
    trainings.run(RESUMED, settings, tmp_path / "late", home=tmp_path)
    run = the_run(mantik_platform, settings)
    assert run.tags["mantik.attempt"] == "2"
    assert points(mantik_platform, run.run_id) == [(step, float(step)) for step in range(EPOCHS * BATCHES)]
