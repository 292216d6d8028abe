"""Trainings of a platform that is away, refuses, breaks off or is never asked: everything arrives, as it was."""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mantik.testing import FaultProxy, Hang, LoseAcknowledgement, Refuse, Status, wait_until
from tests.integrations.trainings import ended

from .trainings import BATCHES, assert_same_checkpoints, points

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import Platform
    from mantik.testing.faults import Fault
    from mantik.testing.holdings import Run
    from tests.integrations.trainings import Training

    from .trainings import LightningTrainings

ARTIFACTS = "/api/2.0/mlflow-artifacts"
BEST_AND_LAST = ("epoch=4-score=4", "epoch=5-score=5", "last")
SIX_EPOCHS = [(step, float(step)) for step in range(6 * BATCHES)]

BLOCKED_SECONDS = 60.0
"""What no outage may hold a training up for. MLflow's own logger waits 251 s for a platform that is away."""

# The best two of six checkpoints are the latest: the others are dropped on the way.
THIRDS = """
    at = {12: lambda: wait("a third"), 24: lambda: wait("two thirds")}
    checkpoints = best_and_last("max")
    trainer(mantik.MantikLogger(log_model="all"), 6, callbacks=[checkpoints]).fit(Net(at=at), data(), data())
    """
WHOLE = """
    trainer(mantik.MantikLogger(log_model=True), 6, callbacks=[best_and_last("max")]).fit(Net(), data(), data())
    """
TESTED = """
    mine, net = trainer(mantik.MantikLogger(log_model=True), 6, callbacks=[best_and_last("max")]), Net()
    mine.fit(net, data(), data())
    mine.test(net, data(), verbose=False)
    """
HALF = """
    trainer(mantik.MantikLogger(), 3, callbacks=[best_and_last("max")]).fit(Net(), data(), data())
    """
OTHER_HALF = """
    options = {"callbacks": [best_and_last("max")]}
    trainer(mantik.MantikLogger(log_model=True), 6, **options).fit(Net(), data(), data(), ckpt_path="../taken.ckpt")
    """


@dataclass(frozen=True)
class Place:
    """Where one test's trainings run, and what the platform holds of them.

    Attributes:
        trainings: What starts them.
        platform: The platform.
        proxy: What stands before it.
        folder: Their working directory and home.
        settings: Their variables.
    """

    trainings: LightningTrainings
    platform: Platform
    proxy: FaultProxy
    folder: Path
    settings: dict[str, str]

    def start(self, code: str, **settings: str) -> Training:
        """Start a training."""
        return self.trainings.start(code, {**self.settings, **settings}, self.folder)

    def run(self, code: str, **settings: str) -> str:
        """Let a training end and return what it printed."""
        return self.start(code, **settings).end()

    def sync(self) -> None:
        """Send what was left behind."""
        self.trainings.sync(self.settings, self.folder)

    def the_run(self, status: str = "FINISHED") -> Run:
        """Return the one run that there is, after checking how it ended."""
        (run,) = self.platform.read_back.runs(self.settings["MLFLOW_EXPERIMENT_NAME"])
        return ended(self.platform, run.run_id, status)

    def points(self, run: Run) -> list[tuple[int, float]]:
        """Return step and value of each of its points."""
        return points(self.platform, run.run_id)

    def told(self, run: Run, path: str) -> Any:  # noqa: ANN401  # whatever the file holds
        """Return what a YAML file of a run holds."""
        return yaml.safe_load(self.platform.read_back.download(run.run_id, path))

    def assert_complete(self) -> None:
        """Check that all points and checkpoints of six epochs are there, once, in order, and told of rightly."""
        run = self.the_run()
        assert self.points(run) == SIX_EPOCHS
        assert_same_checkpoints(self.platform, run.run_id, self.folder, BEST_AND_LAST)
        assert run.tags["mantik.checkpoint.best"] == "checkpoints/epoch=5-score=5/epoch=5-score=5.ckpt"
        assert run.tags["mantik.checkpoint.last"] == "checkpoints/last/last.ckpt"
        expected = [("epoch=4-score=4.ckpt", []), ("epoch=5-score=5.ckpt", ["best"]), ("last.ckpt", ["last"])]
        single = [self.told(run, f"checkpoints/{name}/metadata.yaml") for name in BEST_AND_LAST]
        assert [(about["original_filename"], about["aliases"]) for about in single] == expected
        assert self.told(run, "checkpoints/index.yaml")["checkpoints"] == single


@pytest.fixture
def place(
    trainings: LightningTrainings, mantik_platform: Platform, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Place]:
    """Return a place whose experiment has the name of the test."""
    with FaultProxy(mantik_platform.url) as proxy:
        own = {"MLFLOW_TRACKING_URI": proxy.url, "MLFLOW_EXPERIMENT_NAME": request.node.name}
        yield Place(trainings, mantik_platform, proxy, tmp_path / "work", {**mantik_platform.environment(), **own})


@pytest.mark.parametrize(
    "fault",
    [Refuse(), Hang(), Status(401, "Token expired"), Status(503), Status(500)],
    ids=["dead", "silent", "token-refused", "overloaded", "broken"],
)
def test_an_outage_in_the_middle_third_costs_nothing(fault: Fault, place: Place) -> None:
    """Training goes on without waiting; points, checkpoints and their labels are complete when the platform is back."""
    training = place.start(THIRDS)
    training.reach("a third")
    switch = place.proxy.fault(fault)
    began = time.monotonic()
    training.go_on("a third")
    training.reach("two thirds")
    assert time.monotonic() - began < BLOCKED_SECONDS
    wait_until(lambda: switch.hits >= 1, deadline=60, what="a request in the outage")
    switch.clear()
    training.go_on("two thirds")
    assert "Not everything" not in training.end()
    place.assert_complete()


@pytest.mark.parametrize("fault", [Refuse(), Hang()], ids=["dead", "silent"])
def test_a_platform_that_is_away_from_the_start_gets_all(fault: Fault, place: Place) -> None:
    """A training that began without the platform is one run, as soon as the platform answers."""
    switch = place.proxy.fault(fault)
    began = time.monotonic()
    training = place.start(THIRDS)
    training.reach("a third")
    training.go_on("a third")
    training.reach("two thirds")
    assert time.monotonic() - began < BLOCKED_SECONDS
    assert "without the platform for now" in training.output
    switch.clear()
    training.go_on("two thirds")
    assert "Not everything" not in training.end()
    place.assert_complete()


def test_artifacts_that_fail_at_the_end_leave_the_run_finished(place: Place) -> None:
    """Where no checkpoint can be uploaded, the run is FINISHED with all its points, and a sync brings them later."""
    switch = place.proxy.fault(Status(500), path=ARTIFACTS)
    output = place.run(WHOLE, MANTIK_EXIT_TIMEOUT="2")
    assert "Traceback" not in output
    assert "Not everything has reached" in output
    run = place.the_run()
    assert place.points(run) == SIX_EPOCHS
    assert place.platform.read_back.artifacts(run.run_id) == []
    switch.clear()
    place.sync()
    place.assert_complete()


@pytest.mark.parametrize("fault", [Refuse(), LoseAcknowledgement()], ids=["on-the-way", "before-the-answer"])
def test_an_upload_that_is_cut_off_is_repeated(fault: Fault, place: Place) -> None:
    """A connection that breaks in the middle of an upload costs no checkpoint."""
    switch = place.proxy.fault(fault, path=ARTIFACTS, method="PUT", times=3)
    assert "Not everything" not in place.run(WHOLE)
    assert switch.hits == 3
    place.assert_complete()


def test_a_kill_in_an_outage_costs_nothing(place: Place) -> None:
    """What a training recorded before it was killed is all there after a sync."""
    switch = place.proxy.fault(Refuse())
    training = place.start(THIRDS.replace('wait("two thirds")', "send(signal.SIGKILL)()"))
    training.reach("a third")
    training.go_on("a third")
    training.end(-signal.SIGKILL)
    switch.clear()
    place.sync()
    run = place.the_run("KILLED")
    assert place.points(run) == SIX_EPOCHS[:24]
    names = ("epoch=2-score=2", "epoch=3-score=3", "last")
    assert_same_checkpoints(place.platform, run.run_id, place.folder, names)


def test_an_offline_training_arrives_with_a_sync(place: Place) -> None:
    """Offline nobody is asked; afterwards `mantik sync` brings the run of fit and test, with all checkpoints."""
    output = place.run(TESTED, MANTIK_MODE="offline")
    assert place.proxy.requests == []
    assert "without the platform for now" in output
    place.sync()
    place.assert_complete()
    run = place.the_run()
    assert (run.metrics["tested"], run.params) == (1.0, {"width": "1"})


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_checkpoint_alone_leads_back_to_its_run(mode: str, place: Place, tmp_path: Path) -> None:
    """A training that goes on from a checkpoint, on another day and with another home, goes on with its run."""
    place.run(HALF)
    early = place.the_run()
    (last,) = place.folder.rglob("last.ckpt")
    shutil.copy(last, tmp_path / "taken.ckpt")
    # Home, spool and all other checkpoints.
    shutil.rmtree(place.folder)
    place.run(OTHER_HALF, MANTIK_MODE=mode)
    if mode == "offline":
        place.sync()
    run = place.the_run()
    assert run.run_id == early.run_id
    assert run.tags["mantik.attempt"] == "2"
    assert "from taken.ckpt" in run.tags["mantik.attempt.2"]
    assert place.points(run) == SIX_EPOCHS
    assert run.tags["mantik.checkpoint.best"] == "checkpoints/epoch=5-score=5/epoch=5-score=5.ckpt"


def test_a_checkpoint_of_an_offline_training_leads_back_to_its_run(place: Place, tmp_path: Path) -> None:
    """After the sync of an offline training, one that goes on from its checkpoint goes on with its run."""
    place.run(HALF, MANTIK_MODE="offline")
    place.sync()
    (last,) = place.folder.rglob("last.ckpt")
    shutil.copy(last, tmp_path / "taken.ckpt")
    place.run(OTHER_HALF)
    run = place.the_run()
    assert run.tags["mantik.attempt"] == "2"
    assert place.points(run) == SIX_EPOCHS
