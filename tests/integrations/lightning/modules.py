"""Small modules, data and Trainers, on which a test sees what a logger does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer

__all__ = ["Rows", "Small", "checkpoint", "data", "trainer"]

BATCH_SIZE = 4


class Small(pl.LightningModule):
    """Four numbers in, one out; logs ``train/loss`` each step, ``val/loss`` and ``test/loss`` each epoch.

    Args:
        lr: Learning rate.
        width: Of the hidden layer.
        metrics: More that each training step logs.
    """

    def __init__(self, lr: float = 0.1, width: int = 4, metrics: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["metrics"])
        self.lr = lr
        self.metrics = metrics or {}
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what the layers make of it."""
        output: torch.Tensor = self.layers(inputs)
        return output

    def training_step(self, batch: list[torch.Tensor], batch_index: int) -> torch.Tensor:
        """Log and return the loss."""
        del batch_index
        loss = self._loss(batch)
        self.log("train/loss", loss)
        for name, value in self.metrics.items():
            self.log(name, value)
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_index: int) -> None:
        """Log the loss."""
        del batch_index
        self.log("val/loss", self._loss(batch))

    def test_step(self, batch: list[torch.Tensor], batch_index: int) -> None:
        """Log the loss."""
        del batch_index
        self.log("test/loss", self._loss(batch))

    def predict_step(self, batch: list[torch.Tensor], batch_index: int) -> torch.Tensor:
        """Return what the layers make of it."""
        del batch_index
        output: torch.Tensor = self(batch[0])
        return output

    def configure_optimizers(self) -> Optimizer:
        """Return plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def _loss(self, batch: list[torch.Tensor]) -> torch.Tensor:
        inputs, targets = batch
        return torch.nn.functional.mse_loss(self(inputs), targets)


class Rows(pl.LightningDataModule):
    """Data with hyper-parameters of its own.

    Args:
        batches: How many.
        source: Where they come from, for the record.
    """

    def __init__(self, batches: int = 2, source: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.batches = batches
        self.source = source

    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        """Return the batches."""
        return data(self.batches)


def data(batches: int = 4) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Return a few batches, the same at each call."""
    inputs = torch.linspace(-1, 1, batches * BATCH_SIZE * 4).reshape(-1, 4)
    return DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=BATCH_SIZE)


def trainer(**arguments: Any) -> pl.Trainer:  # noqa: ANN401
    """Return a Trainer for one short, quiet epoch on the CPU that logs each step, with whatever else is given."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(**{"accelerator": "cpu", "max_epochs": 1, "log_every_n_steps": 1, **quiet, **arguments})


def checkpoint(training: pl.Trainer) -> str:
    """Return the path of the latest checkpoint of a training."""
    callback = training.checkpoint_callback
    assert isinstance(callback, ModelCheckpoint)
    return callback.best_model_path
