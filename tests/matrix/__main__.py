"""Runs every pairing and prints one table; arguments choose among them, such as ``2.14/3.5`` or ``newest/``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tests.matrix.environments import ROOT, python_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAIRINGS = (
    ("newest", "mlflow-2.22"),
    ("newest", "mlflow-3.5"),
    ("mlflow-2.14", "mlflow-2.22"),
    ("mlflow-2.14", "mlflow-3.5"),
    ("mlflow-2.14", "newest"),
    ("mlflow-2.22", "mlflow-2.22"),
    ("mlflow-2.22", "mlflow-3.5"),
    ("mlflow-2.22", "newest"),
)
"""Client and server."""

_SECONDS = 900


@dataclass
class Outcome:
    """What came of a pairing."""

    name: str
    seconds: float
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def main() -> int:
    """Run the pairings; return the exit code."""
    words = sys.argv[1:]
    chosen = [
        pairing
        for pairing in PAIRINGS
        if not words or any(word in "/".join(pairing).replace("mlflow-", "") for word in words)
    ]
    outcomes = []
    for server in dict.fromkeys(server for _, server in chosen):
        with _platform(python_of(server)) as address:
            outcomes += [_outcome(client, server, address) for client, other in chosen if other == server]
    _show(outcomes)
    return int(not outcomes or any(outcome.failed for outcome in outcomes))


@contextmanager
def _platform(python: Path) -> Iterator[str]:
    command = [python, "-m", "tests.matrix.serve"]
    with subprocess.Popen(
        command, cwd=ROOT, env=_environment({}), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline()
        finally:
            process.stdin.close()
            process.wait(60)


def _outcome(client: str, server: str, address: str) -> Outcome:
    names = [_version(python_of(name)) for name in (client, server)]
    started = time.monotonic()
    with TemporaryDirectory() as home:
        own = {"HOME": home, "MANTIK_HOME": f"{home}/.mantik", "MLFLOW_DISABLE_TELEMETRY": "true"}
        # Older scikit-learns import setuptools late, which then wants to take the place of distutils.
        own["SETUPTOOLS_USE_DISTUTILS"] = "stdlib"
        done = subprocess.run(
            [python_of(client), "-m", "tests.matrix.contract"],
            cwd=ROOT,
            env=_environment(own),
            input=address,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    outcome = Outcome(f"client {names[0]}, server {names[1]}", time.monotonic() - started)
    for line in done.stdout.splitlines():
        if line.startswith("REPORT "):
            _add(outcome, json.loads(line.removeprefix("REPORT ")))
    if done.returncode != 0:
        sys.stderr.write(f"--- {outcome.name}:\n{done.stdout}\n")
        outcome.failed = outcome.failed or ["the end"]
    sys.stderr.write(f"{outcome.name}: {_result(outcome)} in {outcome.seconds:.0f} s\n")
    return outcome


def _add(outcome: Outcome, report: dict[str, Any]) -> None:
    (outcome.passed if report["problem"] is None else outcome.failed).append(report["check"])
    if report["note"]:
        outcome.notes.append(report["note"])
    if report["problem"]:
        sys.stderr.write(f"--- {outcome.name}, {report['check']}:\n{report['problem']}\n")


def _result(outcome: Outcome) -> str:
    total = len(outcome.passed) + len(outcome.failed)
    bad = f" (failed: {', '.join(outcome.failed)})" if outcome.failed else ""
    return f"{len(outcome.passed)} of {total}{bad}"


def _version(python: Path) -> str:
    code = "from mantik.delivery.compatibility import client_version; print(client_version())"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _environment(own: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MANTIK_", "MLFLOW_"))}
    return {**inherited, **own}


def _show(outcomes: list[Outcome]) -> None:
    table = Table("pairing", "checks passed", "seconds", "what it cannot do")
    for outcome in outcomes:
        table.add_row(outcome.name, _result(outcome), f"{outcome.seconds:.0f}", "; ".join(outcome.notes) or "-")
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    sys.exit(main())
