"""How much of a Lightning training's speed loggers take, at every step, near a platform and far from it.

Each logger has a process of its own, in which the same training runs in turn with Lightning's `CSVLogger`, without a
logger and with the logger in question. Requests with points are answered by a proxy, at once or after the time that a
platform far away takes: a platform on this machine would take the training's processors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mantik
from benchmarks.figures import Figure
from mantik.testing import FaultProxy, Refuse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mantik.testing import Platform
    from mantik.testing.faults import Exchange
    from mantik.testing.proxy import FaultSwitch

__all__ = ["loggers", "outage"]

STEPS = 60
LATENCIES = (0.0, 0.1)

TRAINING = """
import json, logging, os, sys, time, warnings
warnings.filterwarnings("ignore")
import torch
import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

KIND, STEPS, ROUNDS, CHECKPOINTS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.set_num_threads(1)

class Network(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3), torch.nn.ReLU(),
            torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(32 * 144, 10),
        )
    def training_step(self, batch, index):
        images, labels = batch
        loss = torch.nn.functional.cross_entropy(self.layers(images), labels)
        self.log_dict({f"metric-{number}": loss.detach() + number for number in range(8)})
        return loss
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())

class Clock(pl.Callback):
    def on_train_start(self, trainer, module):
        self.began = time.perf_counter()
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if index + 1 in (STEPS // 3, 2 * STEPS // 3):
            print("THIRD", self.kind, flush=True)
    def on_train_end(self, trainer, module):
        self.seconds = time.perf_counter() - self.began

def logger_of(kind):
    if kind == "none":
        return False
    if kind == "csv":
        return CSVLogger(".")
    if kind.startswith("mlflow"):
        from lightning.pytorch.loggers import MLFlowLogger
        return MLFlowLogger(tracking_uri=os.environ["MLFLOW_TRACKING_URI"], experiment_name="benchmark",
                            synchronous=None if kind == "mlflow" else False)
    if kind == "wandb":
        from lightning.pytorch.loggers import WandbLogger
        return WandbLogger(offline=True, log_model=False)
    import mantik
    return mantik.MantikLogger(log_model="all" if CHECKPOINTS else False)

batch = torch.randn(64, 1, 28, 28), torch.randint(0, 10, (64,))
data = torch.utils.data.DataLoader([batch] * STEPS, batch_size=None)

def fit(kind):
    torch.manual_seed(0)
    clock = Clock()
    clock.kind = kind
    saving = [ModelCheckpoint(every_n_train_steps=CHECKPOINTS, save_top_k=-1)] if CHECKPOINTS else []
    trainer = pl.Trainer(max_epochs=1, logger=logger_of(kind), callbacks=[clock, *saving], log_every_n_steps=1,
                         enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=bool(saving))
    trainer.fit(Network(), data)
    return clock.seconds

kinds = ("csv", "none", KIND)
[fit(kind) for kind in kinds]
print("FOUND", json.dumps([[fit(kind) for kind in kinds] for _ in range(ROUNDS)]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class _LateAnswer:
    """A platform far away that takes points.

    Attributes:
        seconds: How long an answer takes.
    """

    seconds: float

    def happen(self, exchange: Exchange) -> None:
        """Answer after the time."""
        exchange.wait(self.seconds)
        exchange.answer(200, b"{}", {"Content-Type": "application/json"})


def loggers(platform: Platform, home: str, peers: Path, rounds: int) -> list[Figure]:
    """Time training steps with each logger, and with `CSVLogger` and without one beside it.

    Args:
        platform: Where runs are begun and ended.
        home: mantik's home.
        peers: Python of an environment that has wandb and Lightning.
        rounds: Values per figure.
    """
    figures = []
    token = mantik.init_tracking().token
    for latency in LATENCIES:
        with FaultProxy(platform.url) as proxy:
            proxy.fault(_LateAnswer(latency), path="/api/2.0/mlflow/runs/log-batch")
            durable = {**platform.environment(), "MLFLOW_TRACKING_URI": proxy.url, "MANTIK_HOME": home}
            stock = {"MLFLOW_TRACKING_URI": proxy.url, "MLFLOW_TRACKING_TOKEN": token}
            words = f"{latency * 1000:.0f} ms away"
            for kind, name, settings in (
                ("mlflow", "MLFlowLogger", stock),
                ("mlflow-async", "MLFlowLogger(synchronous=False)", stock),
                ("mantik", "MantikLogger", durable),
            ):
                pairs = _measure(sys.executable, kind, settings, rounds)
                figures += _figures(f"{name}, {words}", pairs)
    pairs = _measure(str(peers.absolute()), "wandb", {"WANDB_SILENT": "true", "WANDB_MODE": "offline"}, rounds)
    return [*figures, *_figures("WandbLogger, offline", pairs)]


def outage(platform: Platform, home: str, rounds: int) -> list[Figure]:
    """Time training steps with checkpoints every ten steps that are uploaded, the platform gone in the middle third."""
    with FaultProxy(platform.url) as proxy:
        proxy.fault(_LateAnswer(0.0), path="/api/2.0/mlflow/runs/log-batch")
        settings = {**platform.environment(), "MLFLOW_TRACKING_URI": proxy.url, "MANTIK_HOME": home}
        pairs = _measure(sys.executable, "mantik", settings, rounds, checkpoints=10, proxy=proxy)
    return _figures('MantikLogger(log_model="all"), platform gone for a third', pairs)


def _figures(name: str, rows: list[list[float]]) -> list[Figure]:
    columns = [tuple(row[number] for row in rows) for number in range(3)]
    names = (f"CSVLogger, beside {name}", f"no logger, beside {name}", name)
    return [Figure(what, values).per(STEPS) for what, values in zip(names, columns, strict=True)]


def _measure(  # noqa: PLR0913  # what is measured, and how
    python: str,
    kind: str,
    settings: Mapping[str, str],
    rounds: int,
    *,
    checkpoints: int = 0,
    proxy: FaultProxy | None = None,
) -> list[list[float]]:
    """Return seconds by round: with `CSVLogger`, without a logger, and with the logger."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            [python, "-c", TRAINING, kind, str(STEPS), str(rounds), str(checkpoints)],
            env={"PATH": os.environ["PATH"], "HOME": folder, **settings},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
        switch: FaultSwitch | None = None
        with process, process.stdout or sys.stdin as output:
            for line in output:
                if line.startswith("FOUND "):
                    rows: list[list[float]] = json.loads(line.removeprefix("FOUND "))
                    if switch is not None:
                        switch.clear()
                    process.wait()
                    return rows
                if proxy is not None and line.strip() == f"THIRD {kind}":
                    switch = _toggle(proxy, switch)
        complaints.seek(0)
        raise RuntimeError(f"{kind} could not be measured:\n{complaints.read()[-3000:]}")


def _toggle(proxy: FaultProxy, switch: FaultSwitch | None) -> FaultSwitch | None:
    """Begin an outage, or end the one that is."""
    if switch is not None:
        switch.clear()
        return None
    return proxy.fault(Refuse(), path="/")
