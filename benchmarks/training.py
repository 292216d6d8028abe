"""How much slower a real training gets by logging 8 metrics at each step.

The platform runs on a processor of its own, because in real life it is another machine. The training has one thread for
its arithmetic, and mantik's threads share the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from mantik.testing.processes import family

if TYPE_CHECKING:
    from mantik.testing import Platform

__all__ = ["slowdown"]

STEPS = 100

TRAINING = """
import json, os, sys, time
import mlflow, torch
import mantik

STEPS, ROUNDS = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
torch.manual_seed(0)
mantik.init_tracking()
model = torch.nn.Sequential(
    torch.nn.Conv2d(1, 16, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(16 * 169, 10)
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
    """Time a convolutional network's training steps alone, with the journal alone, and with journal and delivery.

    The journal alone is offline mode: what is left between it and the third figure is all that a helper process for
    delivery could save.
    """
    processors = sorted(os.sched_getaffinity(0))
    members = [platform.pid, *(member.pid for member in family(platform.pid))]
    for member in members:
        os.sched_setaffinity(member, processors[-1:])
    try:
        delivered = _measure(platform, home, rounds, "online")
        recorded = _measure(platform, home, rounds, "offline")
    finally:
        for member in members:
            os.sched_setaffinity(member, processors)
    return [
        Figure("training steps", tuple(alone for alone, _ in delivered)).per(STEPS),
        Figure("with 8 metrics each, journal and delivery", tuple(logged for _, logged in delivered)).per(STEPS),
        Figure("training steps, offline mode", tuple(alone for alone, _ in recorded)).per(STEPS),
        Figure("with 8 metrics each, journal alone", tuple(logged for _, logged in recorded)).per(STEPS),
    ]


def _measure(platform: Platform, home: str, rounds: int, mode: str) -> list[tuple[float, float]]:
    environment = {**os.environ, **platform.environment(), "MANTIK_HOME": home, "MANTIK_MODE": mode}
    environment["MANTIK_SPOOL"] = f"{home}/spool-{mode}"
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(STEPS), str(rounds)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [tuple(pair) for pair in json.loads(done.stdout.splitlines()[0])]
