"""LightningCLI with the logger in its configuration, and a platform that is not on this machine's disk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI

from mantik import MantikLogger
from tests.integrations.lightning.modules import Rows, Small, checkpoint

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from tests.integrations.arrivals import Arrived


@pytest.fixture
def config(arrived: Arrived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a configuration that says where to track to, which the environment does not."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setattr(sys, "argv", sys.argv[:1])
    arguments = {"tracking_uri": arrived.proxy.url, "log_model": True, "tags": {"team": "a"}}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    training = {"accelerator": "cpu", "max_epochs": 1, "log_every_n_steps": 1, **quiet}
    logger = {"class_path": "mantik.MantikLogger", "init_args": arguments}
    path = tmp_path / "training.yaml"
    path.write_text(yaml.safe_dump({"trainer": {**training, "logger": logger}, "model": {"lr": 0.2}}))
    return path


def run(*arguments: str) -> tuple[pl.Trainer, MantikLogger]:
    """Do what a command line says; return Trainer and logger."""
    trainer = LightningCLI(Small, Rows, args=list(arguments)).trainer
    assert isinstance(trainer.logger, MantikLogger)
    return trainer, trainer.logger


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what a command line prints that trains nothing."""
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_a_training(arrived: Arrived, config: Path) -> None:
    """A fit is tracked where the configuration says, with all of the configuration as an artifact."""
    trainer, logger = run("fit", "--config", str(config), "--data.batches=3")
    held = arrived.run(logger.run_id)
    assert (held.status, held.tags["team"]) == ("FINISHED", "a")
    assert held.params.items() >= {"lr": "0.2", "width": "4", "batches": "3"}.items()
    assert arrived.steps(held.run_id, "train/loss") == [0, 1, 2]
    kept = arrived.yaml(held.run_id, "config.yaml")
    assert kept["trainer"]["logger"]["init_args"]["tracking_uri"] == arrived.proxy.url
    assert (kept["model"]["lr"], kept["data"]["batches"], kept["trainer"]["max_epochs"]) == (0.2, 3, 1)
    assert kept == yaml.safe_load(Path(str(trainer.log_dir), "config.yaml").read_text())


def test_the_same_training_again(arrived: Arrived, config: Path, tmp_path: Path) -> None:
    """A second fit in the same folder is another run, and finds no file of the first in its way."""
    runs = [run("fit", "--config", str(config))[1].run_id for _ in range(2)]
    assert len(set(runs)) == 2
    assert {arrived.run(run_id).status for run_id in runs} == {"FINISHED"}
    assert len(list(tmp_path.rglob("config.yaml"))) == 2


def test_a_later_attempt(arrived: Arrived, config: Path) -> None:
    """A fit from a checkpoint goes on with its run; its configuration stands beside that of the first attempt."""
    first, logger = run("fit", "--config", str(config))
    more = ["--ckpt_path", checkpoint(first), "--trainer.max_epochs=2"]
    _, second = run("fit", "--config", str(config), *more)
    assert second.run_id == logger.run_id
    assert arrived.steps(second.run_id, "train/loss") == [0, 1, 2, 3]
    assert arrived.yaml(second.run_id, "config.yaml")["trainer"]["max_epochs"] == 1
    assert arrived.yaml(second.run_id, "config/config-2.yaml")["trainer"]["max_epochs"] == 2
    assert arrived.run(second.run_id).status == "FINISHED"


def test_its_help(arrived: Arrived, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The help has each argument with its values, its default and what it does."""
    text = " ".join(printed(capsys, "fit", "--trainer.logger.help", "mantik.MantikLogger").split())
    assert "--trainer.logger.resume {auto,allow,must,never}" in text
    assert "--trainer.logger.log_model {True,False,all}" in text
    assert "Which checkpoints are uploaded: none (``False``)" in text
    assert "(type: str | null, default: null)" in text
    del arrived, config


def test_its_configuration(arrived: Arrived, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--print_config shows all arguments, as a configuration to begin with, and begins no run."""
    requests = arrived.proxy.count()
    logger = ["--trainer.logger=mantik.MantikLogger", "--trainer.logger.log_model=all"]
    shown = yaml.safe_load(printed(capsys, "fit", *logger, "--print_config"))["trainer"]["logger"]
    assert shown["class_path"] == "mantik.MantikLogger"
    assert (shown["init_args"]["log_model"], shown["init_args"]["resume"]) == ("all", "auto")
    assert arrived.proxy.count() == requests
    del config


def test_a_value_that_there_is_not(arrived: Arrived, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong value is refused by the command line, which names those that there are."""
    with pytest.raises(SystemExit) as ended:
        run("fit", "--config", str(config), "--trainer.logger.resume=yes")
    assert ended.value.code == 2
    assert "['auto', 'allow', 'must', 'never']. Got value: yes" in capsys.readouterr().err
    del arrived
