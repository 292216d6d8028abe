"""What Lightning expects of any logger."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import mlflow
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.utilities import rank_zero_only

from mantik import MantikLogger
from tests.integrations.lightning.modules import Small, data, trainer

if TYPE_CHECKING:
    from tests.integrations.arrivals import Arrived


class Looking(pl.Callback):
    """Looks at the run's status at the start of each stage."""

    def __init__(self, arrived: Arrived) -> None:
        self._arrived = arrived
        self.seen: list[tuple[str, str]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look."""
        del pl_module
        self._look("fit", trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look, unless it belongs to a fit."""
        del pl_module
        if trainer.state.fn == "validate":
            self._look("validate", trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look."""
        del pl_module
        self._look("test", trainer)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look."""
        del pl_module
        self._look("predict", trainer)

    def _look(self, stage: str, trainer: pl.Trainer) -> None:
        assert isinstance(trainer.logger, MantikLogger)
        self.seen.append((stage, self._arrived.run(trainer.logger.run_id).status))


def test_a_fit_is_one_run(arrived: Arrived) -> None:
    """A fit is one run with the metrics of each step and the hyper-parameters, and ends as FINISHED."""
    logger = MantikLogger(run_name="first", tags={"team": "a", "n": 1}, description="What *this* is")
    trainer(logger=logger, max_epochs=2).fit(Small(), data(), data())
    run = arrived.run(logger.run_id)
    assert (run.name, run.status, run.params) == ("first", "FINISHED", {"lr": "0.1", "width": "4"})
    assert run.tags.items() >= {"team": "a", "n": "1", "mlflow.note.content": "What *this* is"}.items()
    assert arrived.steps(logger.run_id, "train/loss") == list(range(8))
    assert arrived.steps(logger.run_id, "val/loss") == [3, 7]
    assert arrived.points(logger.run_id, "epoch") == [(step, step // 4) for step in range(8)]
    assert run.tags["mantik.attempt"] == "1"


def test_all_that_a_trainer_does_is_one_run(arrived: Arrived) -> None:
    """Fit, validate, test, predict and another Trainer go into the same run, which is RUNNING meanwhile."""
    logger, module, looking = MantikLogger(), Small(), Looking(arrived)
    first = trainer(logger=logger, callbacks=[looking])
    stages: dict[str, Any] = {
        "fit": lambda: first.fit(module, data(), data()),
        "validate": lambda: first.validate(module, data(), verbose=False),
        "test": lambda: first.test(module, data(), verbose=False),
        "predict": lambda: first.predict(module, data()),
    }
    for stage in stages.values():
        stage()
        assert arrived.run(logger.run_id).status == "FINISHED"
    assert looking.seen == [(name, "RUNNING") for name in stages]
    first.fit_loop.max_epochs = 2
    first.fit(module, data(), data())
    trainer(logger=logger).test(module, data(3), verbose=False)
    (run,) = [run for run in arrived.runs() if run.run_id == logger.run_id]
    assert arrived.steps(run.run_id, "train/loss") == list(range(8))
    assert arrived.steps(run.run_id, "test/loss") == [4, 0]
    assert run.tags["mantik.attempt"] == "1"
    assert mlflow.active_run() is None


def test_sanity_checking_logs_nothing(arrived: Arrived) -> None:
    """The batches before training leave no point, and no other validation's is missing."""
    logger = MantikLogger()
    trainer(logger=logger, num_sanity_val_steps=2, val_check_interval=2).fit(Small(), data(), data())
    assert arrived.steps(logger.run_id, "val/loss") == [1, 3]


def test_prefix(arrived: Arrived) -> None:
    """A prefix goes before each metric of the Trainer and of a call."""
    logger = MantikLogger(prefix="pre")
    trainer(logger=logger).fit(Small(), data())
    logger.log_metrics({"mine": 1.0}, step=3)
    assert set(arrived.run(logger.run_id).metrics) == {"pre-train/loss", "pre-epoch", "pre-mine"}


@pytest.mark.parametrize("kind", [str, Path])
def test_local_files_of_a_run_have_a_folder_of_their_own(arrived: Arrived, tmp_path: Path, kind: type) -> None:
    """save_dir and log_dir are <root_dir>/<experiment id>/<run id>, of plain strings, with the checkpoints in it."""
    logger = MantikLogger(save_dir=kind(tmp_path / "runs"))
    training = trainer(logger=logger)
    assert logger.root_dir == str(tmp_path / "runs")
    training.fit(Small(), data())
    folder = str(tmp_path / "runs" / "0" / str(logger.run_id))
    assert logger.save_dir == logger.log_dir == training.log_dir == folder
    assert [path.name for path in Path(folder, "checkpoints").glob("*.ckpt")] == ["epoch=0-step=4.ckpt"]
    assert (logger.name, logger.version, logger.experiment_id) == ("0", logger.run_id, "0")
    del arrived


def test_local_files_lie_in_the_trainers_folder_by_default(arrived: Arrived, tmp_path: Path) -> None:
    """Without save_dir it is lightning_logs in default_root_dir, which is the current folder by default."""
    here, there = MantikLogger(), MantikLogger()
    trainer(logger=here).fit(Small(), data())
    trainer(logger=there, default_root_dir=tmp_path / "there").fit(Small(), data())
    assert here.save_dir == str(tmp_path / "lightning_logs" / "0" / str(here.run_id))
    assert there.save_dir == str(tmp_path / "there" / "lightning_logs" / "0" / str(there.run_id))
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"lightning_logs", "there"}
    del arrived


def test_pickle_before_and_after_a_run_is_known(arrived: Arrived) -> None:
    """A pickled logger makes its own run, or goes on with the one that it knows; so does that of a pickled Trainer."""
    logger = MantikLogger(prefix="pre", tags={"a": "b"})
    early: MantikLogger = pickle.loads(pickle.dumps(logger))  # noqa: S301  # our own
    logger.log_metrics({"a": 1.0}, step=1)
    training = trainer(logger=logger)
    copied: Any = pickle.loads(pickle.dumps(training)).logger  # noqa: S301
    copied.log_metrics({"a": 2.0}, step=2)
    logger.finalize("success")
    early.log_metrics({"a": 3.0}, step=3)
    assert (copied.run_id, copied.save_dir, copied.name) == (logger.run_id, logger.save_dir, logger.name)
    assert arrived.points(logger.run_id, "pre-a") == [(1, 1.0), (2, 2.0)]
    assert early.run_id != logger.run_id
    assert arrived.points(early.run_id, "pre-a") == [(3, 3.0)]
    assert arrived.run(early.run_id).tags["a"] == "b"


def test_deepcopy_before_and_after_a_run_is_known(arrived: Arrived) -> None:
    """A copied logger makes its own run, or goes on with the one that it knows; neither is broken by the other."""
    logger = MantikLogger()
    early = copy.deepcopy(logger)
    trainer(logger=logger).fit(Small(), data())
    late = copy.deepcopy(logger)
    trainer(logger=late).test(Small(), data(), verbose=False)
    trainer(logger=early).fit(Small(), data())
    assert late.run_id == logger.run_id != early.run_id
    assert "test/loss" in arrived.run(logger.run_id).metrics
    assert {arrived.run(run).status for run in (logger.run_id, early.run_id)} == {"FINISHED"}


def test_beside_a_csv_logger(arrived: Arrived, tmp_path: Path) -> None:
    """With another logger in front, the checkpoints lie where that one says, and are uploaded as usual."""
    logger = MantikLogger(log_model=True)
    training = trainer(logger=[CSVLogger(tmp_path, "csv"), logger])
    training.fit(Small(), data())
    assert (tmp_path / "csv/version_0/checkpoints/epoch=0-step=4.ckpt").exists()
    assert "checkpoints/epoch=0-step=4/epoch=0-step=4.ckpt" in arrived.artifacts(logger.run_id)
    assert arrived.steps(logger.run_id, "train/loss") == [0, 1, 2, 3]


def test_in_front_of_a_csv_logger(arrived: Arrived, tmp_path: Path) -> None:
    """With another logger behind, the checkpoints lie in the run's folder."""
    logger = MantikLogger(log_model=True)
    training = trainer(logger=[logger, CSVLogger(tmp_path, "csv")])
    training.fit(Small(), data())
    assert Path(str(logger.save_dir), "checkpoints/epoch=0-step=4.ckpt").exists()
    assert "checkpoints/epoch=0-step=4/epoch=0-step=4.ckpt" in arrived.artifacts(logger.run_id)


def test_two_of_them_in_one_trainer(arrived: Arrived) -> None:
    """Two loggers of one Trainer write into one run, nothing twice."""
    first, second = MantikLogger(), MantikLogger(prefix="pre")
    trainer(logger=[first, second]).fit(Small(), data())
    assert first.run_id == second.run_id
    assert arrived.steps(first.run_id, "train/loss") == [0, 1, 2, 3]
    assert arrived.steps(first.run_id, "pre-train/loss") == [0, 1, 2, 3]
    assert arrived.run(first.run_id).status == "FINISHED"


def test_fast_dev_run_makes_no_run(arrived: Arrived, tmp_path: Path) -> None:
    """A run of one batch, to see whether the code works, is not tracked, and leaves no folder."""
    before = len(arrived.runs())
    logger = MantikLogger()
    trainer(logger=logger, fast_dev_run=True).fit(Small(), data(), data())
    assert len(arrived.runs()) == before
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.parametrize("other", [False, True])
def test_a_trainer_without_the_logger_is_left_alone(arrived: Arrived, tmp_path: Path, *, other: bool) -> None:
    """With mantik imported, a Trainer of another logger or of none makes no run and writes plain checkpoints."""
    before = len(arrived.runs())
    training = trainer(logger=other)
    training.fit(Small(), data())
    assert len(arrived.runs()) == before
    (path,) = tmp_path.rglob("*.ckpt")
    assert "mantik" not in torch.load(path, weights_only=False)


def test_other_ranks_do_nothing(arrived: Arrived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another rank than zero every method does nothing, no request is sent, and no run is begun."""
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    requests = arrived.proxy.count()
    logger = MantikLogger()
    logger.experiment.log_metric("any", "thing")  # type: ignore[arg-type]  # of a client that takes all
    logger.log_metrics({"a": "no number"})
    logger.log_hyperparams({"a": 1})
    logger.log_graph(Small())
    logger.after_save_checkpoint(None)
    logger.finalize("success")
    logger.save()
    assert (logger.run_id, logger.experiment_id, logger.name, logger.version, logger.save_dir) == (None,) * 5
    assert "MantikLogger" in repr(logger)
    assert arrived.proxy.count() == requests
    assert mlflow.active_run() is None
    assert list(tmp_path.glob("lightning_logs")) == []


def test_it_has_what_lightnings_mlflow_logger_has() -> None:
    """Each public attribute and each argument of MLFlowLogger is there, in the same order."""
    assert issubclass(MantikLogger, MLFlowLogger)
    assert issubclass(MantikLogger, Logger)
    assert {name for name in dir(MLFlowLogger) if not name.startswith("_")} <= set(dir(MantikLogger))
    theirs, ours = (list(inspect.signature(kind.__init__).parameters) for kind in (MLFlowLogger, MantikLogger))
    assert ours[: len(theirs)] == theirs


def test_it_passes_for_an_mlflow_logger(arrived: Arrived) -> None:
    """What other packages read of an MLFlowLogger is there."""
    logger = MantikLogger(tags={"a": "b"})
    assert not logger._initialized  # noqa: SLF001  # what others read
    assert isinstance(logger.experiment, mlflow.MlflowClient)
    assert isinstance(logger._mlflow_client, mlflow.MlflowClient)  # noqa: SLF001
    trainer(logger=logger).fit(Small(), data())
    assert logger._initialized  # noqa: SLF001
    assert logger._tracking_uri == arrived.proxy.url  # noqa: SLF001
    assert logger.tags == {"a": "b"}
    logger.experiment.set_tag(str(logger.run_id), "reviewed", "yes")
    assert arrived.run(logger.run_id).tags["reviewed"] == "yes"


def test_finding_a_learning_rate_makes_no_run_of_its_own(arrived: Arrived) -> None:
    """The search for a learning rate and the fit after it are one run, with the points of the fit alone."""
    before = len(arrived.runs())
    logger, module = MantikLogger(), Small()
    training = trainer(logger=logger)
    Tuner(training).lr_find(module, data(30), num_training=25)
    training.fit(module, data())
    assert module.lr != 0.1
    assert len(arrived.runs()) == before + 1
    assert arrived.steps(logger.run_id, "train/loss") == [0, 1, 2, 3]
    run = arrived.run(logger.run_id)
    assert (run.status, run.params["lr"]) == ("FINISHED", "0.1")
    assert not any(key.startswith("mantik.param_drift") for key in run.tags)
