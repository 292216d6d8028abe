"""What other trackers' calls cost, each in an environment of its own, against a raw append in the same process."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

from benchmarks.figures import Figure

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["peers"]

CALLS = 300

TIMING = """
import json, os, sys, tempfile, time

folder, calls, rounds = tempfile.mkdtemp(), int(sys.argv[1]), int(sys.argv[2])
os.chdir(folder)
descriptor = os.open("raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def raw(step):
    os.write(descriptor, json.dumps([["loss", 0.5, 1700000000000, step]]).encode() + b"\\n")

{setup}

found = []
for number in range(rounds + 1):
    pair = []
    for action in (raw, log):
        started = time.perf_counter()
        for step in range(calls):
            action(number * calls + step)
        pair.append((time.perf_counter() - started) / calls)
    if number:
        found.append(pair)
print("FOUND", json.dumps(found), flush=True)
os._exit(0)
"""

SETUPS = {
    "wandb, offline": """
import wandb
run = wandb.init(mode="offline", dir=folder, settings=wandb.Settings(console="off", silent=True))
def log(step):
    run.log({"loss": 0.5}, step=step)
""",
    "trackio": """
import trackio
trackio.init(project="benchmark")
def log(step):
    trackio.log({"loss": 0.5}, step=step)
""",
}


def peers(python: Path, rounds: int) -> list[Figure]:
    """Time one metric's call of each tracker that the environment of the peers has.

    Args:
        python: That environment's interpreter.
        rounds: Values per figure.
    """
    figures = []
    for name, setup in SETUPS.items():
        with tempfile.TemporaryDirectory() as home:
            environment = {"PATH": os.environ["PATH"], "HOME": home, "TRACKIO_DIR": home, "HF_HUB_OFFLINE": "1"}
            done = subprocess.run(
                [python, "-c", TIMING.replace("{setup}", setup), str(CALLS), str(rounds)],
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        line = next((line for line in done.stdout.splitlines() if line.startswith("FOUND ")), None)
        if line is None:
            raise RuntimeError(f"{name} could not be measured:\n{done.stdout}{done.stderr}")
        pairs = json.loads(line.removeprefix("FOUND "))
        figures += [
            Figure(f"raw append, beside {name}", tuple(pair[0] for pair in pairs)),
            Figure(f"{name}, one metric", tuple(pair[1] for pair in pairs)),
        ]
    return figures
