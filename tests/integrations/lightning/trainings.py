"""Trainings with Lightning, forked from a process that has imported it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from tests.integrations.trainings import BEGINNING, Trainings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mantik.testing import Platform

__all__ = ["BATCHES", "LightningTrainings", "assert_same_checkpoints", "points", "script", "steps"]

BATCHES = 6
"""Steps of an epoch."""

_SCRIPT = '''
import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment

import mantik


class Net(L.LightningModule):
    """Logs its number in each step; `at` says what happens in which."""

    def __init__(self, width=1, at=None):
        super().__init__()
        self.save_hyperparameters("width")
        self.at = at or {}
        self.layer = torch.nn.Linear(1, width)

    def training_step(self, batch, index):
        loss = self.layer(batch[0]).pow(2).mean()
        self.log("number", float(self.global_step))
        self.at.get(self.global_step, lambda: None)()
        return loss

    def validation_step(self, batch, index):
        self.log("score", float(self.current_epoch))

    def test_step(self, batch, index):
        self.log("tested", 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def data():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(BATCHES, 1)), batch_size=1)


def trainer(logger, epochs=2, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    return L.Trainer(logger=logger, max_epochs=epochs, accelerator="cpu", devices=1, **quiet, **options)


def best_and_last(mode="min"):
    return ModelCheckpoint(monitor="score", mode=mode, filename="{epoch}-{score:.0f}", save_top_k=2, save_last=True)
'''


_IMPORTS = """
import git, mlflow, opentelemetry.sdk.metrics

mantik.MantikLogger
"""


def script(code: str) -> str:
    """Return a script that imports everything, defines a module, and then does something."""
    return BEGINNING + _SCRIPT.replace("BATCHES", str(BATCHES)) + textwrap.dedent(code)


class LightningTrainings(Trainings):
    """The warmed-up process.

    Args:
        folder: Its home.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, script(""), _IMPORTS)


def points(platform: Platform, run_id: str, key: str = "number") -> list[tuple[int, float]]:
    """Return step and value of each point of a metric, in the order in which they were recorded."""
    return [(point.step, point.value) for point in platform.read_back.metric_history(run_id, key)]


def steps(platform: Platform, run_id: str, key: str = "number") -> list[int]:
    """Return the steps of a metric in the order in which they were recorded."""
    return [step for step, _ in points(platform, run_id, key)]


def assert_same_checkpoints(platform: Platform, run_id: str, folder: Path, names: Sequence[str]) -> None:
    """Check that these checkpoints are on the platform, no others, each the same as the local file."""
    local = {file.stem: file for file in folder.rglob("checkpoints/*.ckpt")}
    assert sorted(local) == sorted(names)
    held = [path for path in platform.read_back.artifacts(run_id) if path.endswith(".ckpt")]
    assert held == sorted(f"checkpoints/{name}/{name}.ckpt" for name in names)
    for name, file in local.items():
        assert platform.read_back.download(run_id, f"checkpoints/{name}/{name}.ckpt") == file.read_bytes(), name
