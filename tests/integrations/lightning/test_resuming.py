"""Which run a training goes on with."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import mlflow
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from mantik import MantikLogger
from mantik.exceptions import ConfigurationError
from tests.integrations.lightning.modules import Small, checkpoint, data, trainer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integrations.arrivals import Arrived


class Looking(pl.Callback):
    """Looks at the run when training starts."""

    def __init__(self, arrived: Arrived) -> None:
        self._arrived = arrived
        self.status = ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look."""
        del pl_module
        assert isinstance(trainer.logger, MantikLogger)
        self.status = self._arrived.run(trainer.logger.run_id).status


def begin(**arguments: Any) -> tuple[MantikLogger, str]:  # noqa: ANN401
    """Train one epoch, and return its logger and its checkpoint."""
    logger = MantikLogger()
    training = trainer(logger=logger, **arguments)
    training.fit(Small(), data())
    return logger, checkpoint(training)


def go_on(path: str, **arguments: Any) -> MantikLogger:  # noqa: ANN401
    """Go on for a second epoch with a logger of its own, and return it."""
    logger = MantikLogger(**arguments)
    trainer(logger=logger, max_epochs=2).fit(Small(), data(), ckpt_path=path)
    return logger


def test_a_checkpoint_brings_its_run(arrived: Arrived) -> None:
    """A training from a checkpoint goes on with its run: RUNNING meanwhile, steps without a gap, a second attempt."""
    first, path = begin()
    assert arrived.run(first.run_id).status == "FINISHED"
    looking, second = Looking(arrived), MantikLogger()
    trainer(logger=second, max_epochs=2, callbacks=[looking]).fit(Small(), data(), ckpt_path=path)
    assert second.run_id == first.run_id
    run = arrived.run(first.run_id)
    assert (looking.status, run.status) == ("RUNNING", "FINISHED")
    assert arrived.steps(run.run_id, "train/loss") == list(range(8))
    assert run.tags["mantik.attempt"] == "2"
    assert "from epoch=0-step=4.ckpt" in run.tags["mantik.attempt.2"]
    assert "mantik.started_from" not in run.tags


def test_a_later_attempt_has_a_folder_of_its_own(arrived: Arrived) -> None:
    """What a later attempt writes beside its checkpoints is apart; the checkpoints stay where they were."""
    first, path = begin()
    second = MantikLogger()
    training = trainer(logger=second, max_epochs=2)
    training.fit(Small(), data(), ckpt_path=path)
    assert second.save_dir == second.log_dir == training.log_dir == f"{first.save_dir}/attempt_2"
    assert checkpoint(training) == f"{first.save_dir}/checkpoints/epoch=1-step=8.ckpt"
    assert {"config/hparams-2.yaml", "hparams.yaml"} <= set(arrived.artifacts(first.run_id))


def test_the_same_logger_is_the_same_attempt(arrived: Arrived) -> None:
    """To go on with the logger of before, from its checkpoint, is no other attempt."""
    logger, path = begin()
    trainer(logger=logger, max_epochs=2).fit(Small(), data(), ckpt_path=path)
    assert arrived.run(logger.run_id).tags["mantik.attempt"] == "1"
    assert arrived.steps(logger.run_id, "train/loss") == list(range(8))


def test_lightnings_word_for_the_latest(arrived: Arrived, tmp_path: Path) -> None:
    """ckpt_path="last" brings the run of the file that Lightning finds."""
    first, _ = begin(callbacks=[ModelCheckpoint(tmp_path / "kept", save_last=True)])
    second = MantikLogger()
    callbacks: list[pl.Callback] = [ModelCheckpoint(tmp_path / "kept", save_last=True)]
    trainer(logger=second, max_epochs=2, callbacks=callbacks).fit(Small(), data(), ckpt_path="last")
    assert second.run_id == first.run_id
    assert arrived.steps(first.run_id, "train/loss") == list(range(8))


def test_testing_a_checkpoint(arrived: Arrived) -> None:
    """To test, validate or predict from a checkpoint goes on with its run, too."""
    first, path = begin()
    second = MantikLogger()
    trainer(logger=second).test(Small(), data(), ckpt_path=path, verbose=False)
    assert second.run_id == first.run_id
    assert "test/loss" in arrived.run(first.run_id).metrics


def test_never(arrived: Arrived) -> None:
    """resume="never" begins a new run, which says from which one it started."""
    first, path = begin()
    second = go_on(path, resume="never")
    assert second.run_id != first.run_id
    assert arrived.run(second.run_id).tags["mantik.started_from"] == first.run_id
    assert arrived.steps(second.run_id, "train/loss") == [4, 5, 6, 7]
    assert arrived.steps(first.run_id, "train/loss") == [0, 1, 2, 3]


@pytest.mark.parametrize("resume", ["must", "allow"])
def test_must_and_allow(arrived: Arrived, resume: str) -> None:
    """Both go on with the run of the checkpoint."""
    first, path = begin()
    assert go_on(path, resume=resume).run_id == first.run_id
    assert arrived.run(first.run_id).tags["mantik.attempt"] == "2"


def test_a_checkpoint_that_was_moved(arrived: Arrived, tmp_path: Path) -> None:
    """The run is written in the checkpoint itself, wherever it lies and whatever it is called."""
    first, path = begin()
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    shutil.move(path, moved)
    assert go_on(str(moved)).run_id == first.run_id
    assert "from renamed" in arrived.run(first.run_id).tags["mantik.attempt.2"]


def test_a_checkpoint_of_the_weights_alone(arrived: Arrived, tmp_path: Path) -> None:
    """Lightning lets nobody write into such a checkpoint: the file beside it tells its run, and a copy has none."""
    first, path = begin(callbacks=[ModelCheckpoint(save_weights_only=True)])
    assert "mantik" not in torch.load(path, weights_only=True)
    beside, copied = MantikLogger(), MantikLogger()
    trainer(logger=beside).test(Small(), data(), ckpt_path=path, verbose=False)
    copy = shutil.copy(path, tmp_path / "copied.ckpt")
    trainer(logger=copied).test(Small(), data(), ckpt_path=str(copy), verbose=False)
    assert beside.run_id == first.run_id != copied.run_id
    assert arrived.run(copied.run_id).status == "FINISHED"


def test_a_checkpoint_of_another_platform(arrived: Arrived, tmp_path: Path) -> None:
    """Its run is not looked for here: a new one is begun, which says from which it started."""
    first, path = begin()
    content = torch.load(path, weights_only=True)
    content["mantik"] = content["mantik"].replace(arrived.proxy.url, "https://elsewhere.example")
    torch.save(content, tmp_path / "theirs.ckpt")
    second = go_on(str(tmp_path / "theirs.ckpt"))
    assert second.run_id != first.run_id
    assert arrived.run(second.run_id).tags["mantik.started_from"] == first.run_id


def test_a_checkpoint_of_a_deleted_run(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """A new run is begun, and a warning says why; with resume="must" it is an error."""
    first, path = begin()
    arrived.run(first.run_id)
    mlflow.MlflowClient().delete_run(str(first.run_id))
    with caplog.at_level(logging.WARNING):
        second = go_on(path)
    assert second.run_id != first.run_id
    assert f"{first.run_id}, which epoch=0-step=4.ckpt comes from, was deleted" in caplog.text
    assert arrived.steps(second.run_id, "train/loss") == [4, 5, 6, 7]
    with pytest.raises(ConfigurationError, match="resume is 'must', but there is no run"):
        go_on(path, resume="must")


def test_a_checkpoint_of_an_untracked_training(arrived: Arrived) -> None:
    """A checkpoint without a run begins one, which comes from nowhere."""
    training = trainer(logger=False)
    training.fit(Small(), data())
    logger = go_on(checkpoint(training))
    run = arrived.run(logger.run_id)
    assert (run.status, run.tags["mantik.attempt"]) == ("FINISHED", "1")
    assert "mantik.started_from" not in run.tags


def test_a_checkpoint_that_does_not_exist(arrived: Arrived, tmp_path: Path) -> None:
    """The error is Lightning's, and the run is FAILED."""
    logger = MantikLogger()
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt"):
        trainer(logger=logger).fit(Small(), data(), ckpt_path=str(tmp_path / "none.ckpt"))
    assert arrived.run(logger.run_id).status == "FAILED"


def test_run_id_wins_over_the_checkpoint(arrived: Arrived) -> None:
    """A run that is asked for is taken, whichever run the checkpoint comes from."""
    _, path = begin()
    other, _ = begin()
    assert go_on(path, run_id=other.run_id).run_id == other.run_id
    assert arrived.run(other.run_id).tags["mantik.attempt"] == "2"


def test_allow_takes_a_new_run_for_one_that_is_gone(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """resume="allow" with a run_id that does not exist begins a new run, and a warning says so."""
    logger = MantikLogger(run_id="0" * 32, resume="allow")
    with caplog.at_level(logging.WARNING):
        trainer(logger=logger).fit(Small(), data())
    assert logger.run_id not in {None, "0" * 32}
    assert f"{'0' * 32} is not on the platform" in caplog.text
    assert arrived.run(logger.run_id).status == "FINISHED"
