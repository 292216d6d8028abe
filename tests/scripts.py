"""Runs training scripts as a user does: in a process of their own, with an environment of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.forked import Forked

__all__ = ["clean_environment", "output_of", "run_script", "start_script"]


def clean_environment(settings: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return this process's environment with a home of its own and no settings but these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MANTIK_", "MLFLOW_"))}
    own = {"HOME": str(home), "MPLCONFIGDIR": str(home / "matplotlib"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {**inherited, "MANTIK_HOME": str(home / ".mantik"), **own, **settings}


def start_script(code: str, environment: Mapping[str, str], folder: Path) -> subprocess.Popen[str]:
    """Start a script; its output and its errors come through one pipe, its input is another."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_script(code: str, environment: Mapping[str, str], folder: Path, *, timeout: float = 180) -> str:
    """Run a script to its end and return what it printed; anything but exit code 0 fails the test with the output."""
    return output_of(start_script(code, environment, folder), timeout)


def output_of(process: subprocess.Popen[str] | Forked, timeout: float) -> str:
    """Wait for the end of a script and return what it printed; anything but exit code 0 fails the test with that."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"the script did not end within {timeout} s:\n{output}") from None
    assert process.returncode == 0, output
    return output
