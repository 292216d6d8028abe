"""How much slower a real training gets by logging 8 metrics at each step.

In real life the platform is another machine. Here it would take the training's processors, so the requests with points
are answered by a proxy that does nothing with them; everything else goes to a real platform.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from mantik.testing import FaultProxy, Status

if TYPE_CHECKING:
    from mantik.testing import Platform

__all__ = ["slowdown"]

STEPS = 40

TRAINING = """
import json, os, sys, time
import mlflow, torch
import mantik

STEPS, ROUNDS = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
torch.manual_seed(0)
mantik.init_tracking()
model = torch.nn.Sequential(
    torch.nn.Conv2d(1, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
    torch.nn.Flatten(), torch.nn.Linear(32 * 144, 10),
)
optimizer = torch.optim.Adam(model.parameters())
images, labels = torch.randn(64, 1, 28, 28), torch.randint(0, 10, (64,))
clock = iter(range(10**9))

def train(log):
    started = time.perf_counter()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        value = loss.item()
        if log:
            step = next(clock)
            mlflow.log_metrics({f"metric-{number}": value + number for number in range(8)}, step=step)
    return time.perf_counter() - started

with mlflow.start_run():
    train(False), train(True)
    print(json.dumps([(train(False), train(True)) for _ in range(ROUNDS)]))
"""


def slowdown(platform: Platform, home: str, rounds: int) -> list[Figure]:
    """Time a convolutional network's training steps alone and with 8 metrics logged at each.

    Three times: with MLflow's own calls alone (disabled mode), with the journal (offline mode), and with journal and
    delivery. What is left between the last two is all that a helper process for delivery could save.
    """
    answer = Status(200, "{}", headers={"Content-Type": "application/json"})
    figures = []
    with FaultProxy(platform.url) as proxy:
        proxy.fault(answer, path="/api/2.0/mlflow/runs/log-batch")
        for mode, words in (
            ("disabled", "calls of MLflow alone"),
            ("offline", "calls and journal"),
            ("online", "calls, journal and delivery"),
        ):
            pairs = _measure(platform, proxy.url, home, rounds, mode)
            figures += [
                Figure("training steps", tuple(alone for alone, _ in pairs)).per(STEPS),
                Figure(f"with 8 metrics each: {words}", tuple(logged for _, logged in pairs)).per(STEPS),
            ]
    return figures


def _measure(platform: Platform, uri: str, home: str, rounds: int, mode: str) -> list[tuple[float, float]]:
    settings = {"MLFLOW_TRACKING_URI": uri, "MANTIK_HOME": home, "MANTIK_MODE": mode}
    settings["MANTIK_SPOOL"] = f"{home}/spool-{mode}"
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(STEPS), str(rounds)],
        env={**os.environ, **platform.environment(), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return [tuple(pair) for pair in json.loads(next(line for line in done.stdout.splitlines() if line[0] == "["))]
