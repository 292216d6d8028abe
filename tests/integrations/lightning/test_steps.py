"""At which steps the points of a training lie: where Lightning says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import DeviceStatsMonitor, EarlyStopping, LearningRateMonitor

from mantik import MantikLogger
from tests.integrations.lightning.modules import Small, data, trainer

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from tests.integrations.arrivals import Arrived


class Manual(Small):
    """Steps with two optimizers, by hand, every second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[torch.Tensor], batch_index: int) -> torch.Tensor:
        """Log the loss, and step."""
        loss = super().training_step(batch, batch_index)
        self.manual_backward(loss)
        if batch_index % 2:
            for optimizer in self.optimizers():  # type: ignore[union-attr]  # there are two
                optimizer.step()
                optimizer.zero_grad()
        return loss

    def configure_optimizers(self) -> Any:  # noqa: ANN401  # two
        """Return one for each layer."""
        return [torch.optim.SGD(layer.parameters(), lr=0.01) for layer in (self.layers[0], self.layers[2])]


class Logging(Small):
    """Logs the same number in all of Lightning's ways."""

    def training_step(self, batch: list[torch.Tensor], batch_index: int) -> torch.Tensor:
        """Log."""
        value = torch.tensor(float(batch_index))
        self.log("both", value, on_step=True, on_epoch=True)
        self.log("epochs", value, on_step=False, on_epoch=True)
        self.log("progress", value, prog_bar=True, logger=False)
        self.log_dict({"a": value, "b": -value})
        return super().training_step(batch, batch_index)


class OwnAxis(Small):
    """Sets the step itself, at the end of each epoch."""

    def on_train_epoch_end(self) -> None:
        """Log against the epoch."""
        self.log_dict({"accuracy": 0.5, "step": float(self.current_epoch)})


def test_each_so_many_steps(arrived: Arrived) -> None:
    """log_every_n_steps thins the points out."""
    logger = MantikLogger()
    trainer(logger=logger, log_every_n_steps=3, max_epochs=2).fit(Small(), data())
    assert arrived.steps(logger.run_id, "train/loss") == [2, 5]


def test_gradient_accumulation(arrived: Arrived) -> None:
    """With accumulated gradients the step is that of the optimizer."""
    logger = MantikLogger()
    trainer(logger=logger, accumulate_grad_batches=2).fit(Small(), data())
    assert arrived.steps(logger.run_id, "train/loss") == [0, 1]


def test_manual_optimization(arrived: Arrived) -> None:
    """With optimizers that are stepped by hand the points lie at the batches, as with any logger of Lightning."""
    logger = MantikLogger()
    trainer(logger=logger, max_epochs=2).fit(Manual(), data())
    assert arrived.steps(logger.run_id, "train/loss") == list(range(8))


def test_on_step_and_on_epoch(arrived: Arrived) -> None:
    """Values by step and by epoch get the names that Lightning gives them; what is for no logger does not arrive."""
    logger = MantikLogger()
    trainer(logger=logger, max_epochs=2).fit(Logging(), data())
    assert arrived.points(logger.run_id, "both_step") == [(step, step % 4) for step in range(8)]
    assert arrived.points(logger.run_id, "both_epoch") == [(3, 1.5), (7, 1.5)]
    assert arrived.points(logger.run_id, "epochs") == [(3, 1.5), (7, 1.5)]
    assert arrived.points(logger.run_id, "b") == [(step, -(step % 4)) for step in range(8)]
    assert "progress" not in arrived.run(logger.run_id).metrics


def test_a_metric_named_step_is_the_step(arrived: Arrived) -> None:
    """A module that logs `step` chooses the axis, as Lightning documents it."""
    logger = MantikLogger()
    trainer(logger=logger, max_epochs=3).fit(OwnAxis(), data())
    assert arrived.steps(logger.run_id, "accuracy") == [0, 1, 2]
    assert "step" not in arrived.run(logger.run_id).metrics


def test_the_step_of_a_call(arrived: Arrived) -> None:
    """A step of 0 is one, a negative one is held, and a call without any goes to that of the last one."""
    logger = MantikLogger()
    logger.log_metrics({"first": 1.0})
    logger.log_metrics({"a": 1.0}, step=0)
    logger.log_metrics({"a": 2.0}, step=7)
    logger.log_metrics({"later": 3.0})
    logger.log_metrics({"before": 4.0}, step=-1)
    assert arrived.points(logger.run_id, "first") == [(0, 1.0)]
    assert arrived.points(logger.run_id, "a") == [(0, 1.0), (7, 2.0)]
    assert arrived.points(logger.run_id, "later") == [(7, 3.0)]
    assert arrived.points(logger.run_id, "before") == [(-1, 4.0)]


def test_early_stopping(arrived: Arrived) -> None:
    """A training that a callback stops early is FINISHED, and its points go as far as it went."""
    logger = MantikLogger()
    stop = EarlyStopping("val/loss", patience=1, min_delta=1000.0)
    trainer(logger=logger, max_epochs=9, callbacks=[stop]).fit(Small(), data(), data())
    assert arrived.run(logger.run_id).status == "FINISHED"
    assert arrived.steps(logger.run_id, "val/loss") == [3, 7]


def test_callbacks_of_lightning_that_log(arrived: Arrived) -> None:
    """Learning rates and the machine's state go into the run at the steps of the training."""
    logger = MantikLogger()
    callbacks: list[pl.Callback] = [LearningRateMonitor("step"), DeviceStatsMonitor(cpu_stats=True)]
    trainer(logger=logger, callbacks=callbacks).fit(Small(lr=0.25), data())
    assert arrived.points(logger.run_id, "lr-SGD") == [(step, 0.25) for step in range(4)]
    stats = [key for key in arrived.run(logger.run_id).metrics if key.startswith("DeviceStatsMonitor")]
    assert len(stats) >= 6
    assert set(arrived.steps(logger.run_id, stats[0])) == {0, 1, 2, 3}
