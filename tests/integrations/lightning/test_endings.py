"""How trainings end: the status of their runs, their exit codes, their last points and their checkpoints."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.integrations.trainings import ended

from .trainings import BATCHES, assert_same_checkpoints, points

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform
    from tests.integrations.trainings import Training

    from .trainings import LightningTrainings

# After SIGTERM a training has five seconds to deliver.
_AT_A_TIME = 4

FIT = """
    logger = mantik.MantikLogger(log_model="all")
    net = Net(at={9: HERE})
    mine = trainer(logger, callbacks=[best_and_last()])
    mine.fit(net, data(), data())
    """
AFTER = FIT.replace("HERE", "lambda: None") + "HERE\n    mine.test(net, data(), verbose=False)\n"
HOOK = """
    class Hooked(Net):
        def HOOK(self, *args, **options):
            HERE

    logger = mantik.MantikLogger(log_model="all")
    mine = trainer(logger, callbacks=[best_and_last()])
    mine.fit(Hooked(), data(), data())
    mine.test(Hooked(), data(), verbose=False)
    """
DATA = """
    class Broken(L.LightningDataModule):
        def setup(self, *args, **options):
            raise OSError("no such disk")

    trainer(mantik.MantikLogger()).fit(Net(), datamodule=Broken())
    """
ALONE = """
    logger = mantik.MantikLogger()
    logger.log_metrics({"number": 0.0}, 0)
    HERE
    """
TWICE = """
    logger = mantik.MantikLogger(log_model="all")
    try:
        trainer(logger, 1).fit(Net(at={3: lambda: 1 / 0}), data(), data())
    except ZeroDivisionError:
        pass
    trainer(logger, callbacks=[best_and_last()]).fit(Net(at={9: HERE}), data(), data())
    """
TERMINATE = "os.kill(os.getpid(), signal.SIGTERM)"
ONE_EPOCH = ("epoch=0-score=0", "last")
TWO_EPOCHS = ("epoch=0-score=0", "epoch=1-score=1", "last")


@dataclass(frozen=True)
class Ending:
    """A way to end.

    Attributes:
        code: The script.
        status: The run's status.
        exit_code: The process's exit code: what it is with any logger.
        points: How many steps were logged.
        checkpoints: Names of the checkpoints that are there.
        says: What is printed.
        vanishes: Whether the process has no end of its own, so that `mantik sync` has to follow.
    """

    code: str
    status: str
    exit_code: int
    points: int
    checkpoints: tuple[str, ...] = ONE_EPOCH
    says: tuple[str, ...] = field(default=())
    vanishes: bool = False


ENDINGS = {
    "success": Ending(FIT.replace("HERE", "lambda: None"), "FINISHED", 0, 12, TWO_EPOCHS),
    "error": Ending(FIT.replace("HERE", "lambda: 1 / 0"), "FAILED", 1, 9, says=("ZeroDivisionError",)),
    "ctrl-c": Ending(FIT.replace("HERE", "send(signal.SIGINT)"), "KILLED", 1, 9),
    "exit-with-code": Ending(FIT.replace("HERE", "lambda: sys.exit(4)"), "FAILED", 4, 9),
    "exit": Ending(FIT.replace("HERE", "lambda: sys.exit()"), "FINISHED", 0, 9),
    # Lightning finishes the step, and then leaves by a SystemExit without a code.
    "sigterm": Ending(FIT.replace("HERE", "send(signal.SIGTERM)"), "KILLED", 0, 10, says=("Received SIGTERM",)),
    "sigterm-in-validation": Ending(
        HOOK.replace("HOOK", "on_validation_batch_start").replace("HERE", TERMINATE), "KILLED", 0, 0, ()
    ),
    "sigterm-in-test": Ending(
        HOOK.replace("HOOK", "on_test_batch_start").replace("HERE", TERMINATE), "KILLED", 0, 12, TWO_EPOCHS
    ),
    # Lightning's handler is there from the first step to the last.
    "sigterm-before-the-first-step": Ending(
        HOOK.replace("HOOK", "setup").replace("HERE", TERMINATE), "KILLED", -signal.SIGTERM, 0, ()
    ),
    "sigterm-between-fit-and-test": Ending(
        AFTER.replace("HERE", TERMINATE), "FINISHED", -signal.SIGTERM, 12, TWO_EPOCHS
    ),
    "error-between-fit-and-test": Ending(AFTER.replace("HERE", "1 / 0"), "FINISHED", 1, 12, TWO_EPOCHS),
    "error-in-data": Ending(DATA, "FAILED", 1, 0, (), says=("no such disk",)),
    "error-after-an-error": Ending(TWICE.replace("HERE", "lambda: 1 / 0"), "FAILED", 1, 12),
    "success-after-an-error": Ending(TWICE.replace("HERE", "lambda: None"), "FINISHED", 0, 15, TWO_EPOCHS),
    "logger-alone": Ending(ALONE.replace("HERE", ""), "FINISHED", 0, 1, ()),
    "logger-alone-error": Ending(ALONE.replace("HERE", "1 / 0"), "FAILED", 1, 1, ()),
    "logger-alone-sigterm": Ending(ALONE.replace("HERE", TERMINATE), "KILLED", -signal.SIGTERM, 1, ()),
    "sigkill": Ending(FIT.replace("HERE", "send(signal.SIGKILL)"), "KILLED", -signal.SIGKILL, 9, vanishes=True),
    "quick-exit": Ending(FIT.replace("HERE", "lambda: os._exit(5)"), "KILLED", 5, 9, vanishes=True),
}
RUNLESS = {
    "a-logger-nobody-uses": ("mantik.MantikLogger()\n1 / 0", "ZeroDivisionError"),
    "a-trainer-that-refuses": ("trainer(mantik.MantikLogger()).fit(L.LightningModule(), data())", "training_step"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which each training has one of its own."""
    return tmp_path_factory.mktemp("endings")


@pytest.fixture(scope="module")
def over(trainings: LightningTrainings, mantik_platform: Platform, home: Path) -> dict[str, Training]:
    """Let all trainings end, a few side by side; what vanished is followed by a sync."""
    environment = mantik_platform.environment()
    started: dict[str, Training] = {}
    names = list(ENDINGS)
    for few in (names[begin : begin + _AT_A_TIME] for begin in range(0, len(names), _AT_A_TIME)):
        started |= {name: trainings.start(ENDINGS[name].code, environment, home / name) for name in few}
        for name in few:
            started[name].end(None)
            if ENDINGS[name].vanishes:
                trainings.sync(environment, home / name)
    return started


@pytest.mark.parametrize("name", ENDINGS)
def test_a_run_ends_as_its_training_does(
    name: str, over: dict[str, Training], mantik_platform: Platform, home: Path
) -> None:
    """Status, points and checkpoints on the platform are those of the training, whose exit code nobody changes."""
    expected, training = ENDINGS[name], over[name]
    assert training.exit_code == expected.exit_code, training.output
    ended(mantik_platform, training.run_id, expected.status)
    logged = list(range(expected.points))
    if "after-an-error" in name:
        # The second fit begins at the beginning again.
        logged = [*range(3), *range(expected.points - 3)]
    assert points(mantik_platform, training.run_id) == [(step, float(step)) for step in logged]
    assert_same_checkpoints(mantik_platform, training.run_id, home / name, expected.checkpoints)
    for text in expected.says:
        assert text in training.output
    if not expected.vanishes:
        assert f"({expected.status}): " in training.output
        assert "Not everything" not in training.output


@pytest.mark.parametrize("name", RUNLESS)
def test_what_never_began_leaves_no_run(
    name: str, trainings: LightningTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """A script that ends before anything was tracked leaves no run behind."""
    code, error = RUNLESS[name]
    settings = {**mantik_platform.environment(), "MLFLOW_EXPERIMENT_NAME": name}
    training = trainings.run(code, settings, tmp_path, exit_code=1)
    assert error in training.output
    assert mantik_platform.read_back.runs(name) == []


def test_the_best_and_the_last_are_told_after_a_kill(
    over: dict[str, Training], mantik_platform: Platform, home: Path
) -> None:
    """The labels of the checkpoints of a training that was killed are those of its last checkpoint."""
    tags = mantik_platform.read_back.run(over["sigkill"].run_id).tags
    assert tags["mantik.checkpoint.best"] == "checkpoints/epoch=0-score=0/epoch=0-score=0.ckpt"
    assert tags["mantik.checkpoint.last"] == "checkpoints/last/last.ckpt"
    index = mantik_platform.read_back.download(over["sigkill"].run_id, "checkpoints/index.yaml").decode()
    assert f"global_step: {BATCHES}" in index
