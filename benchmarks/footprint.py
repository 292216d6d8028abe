"""What a million points that wait take of memory and disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mantik.testing import Platform

__all__ = ["waiting"]

POINTS = 1_000_000

RECORDING = """
import json, os, resource, sys
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric
import mantik

POINTS = int(sys.argv[1])

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

mantik.init_tracking()
client = MlflowClient()
with mlflow.start_run() as run:
    mlflow.log_metric("loss", 0.5)
    before = resident()
    for step in range(POINTS // 8):
        points = [Metric(f"metric-{n}", step / 7 + n, 1700000000000 + step, step) for n in range(8)]
        client.log_batch(run.info.run_id, points)
    after = resident()
spool = os.environ["MANTIK_SPOOL"]
size = sum(os.path.getsize(os.path.join(root, name)) for root, _, names in os.walk(spool) for name in names)
print(json.dumps([before, after, size]))
"""


def waiting(platform: Platform, home: str) -> list[tuple[str, str]]:
    """Record a million points that nobody sends, and look at the process and at the disk."""
    environment = {**os.environ, **platform.environment(), "MANTIK_HOME": home, "MANTIK_MODE": "offline"}
    environment["MANTIK_SPOOL"] = f"{home}/spool-waiting"
    done = subprocess.run(
        [sys.executable, "-c", RECORDING, str(POINTS)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    before, after, size = json.loads(done.stdout.splitlines()[-1])
    return [
        ("memory of the process before", f"{before / 1e6:.0f} MB"),
        ("memory with a million points waiting", f"{after / 1e6:.0f} MB ({after / before:.2f} of that)"),
        ("bytes on disk per point, 8 points a call", f"{size / POINTS:.0f}"),
    ]
