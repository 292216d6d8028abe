"""What it costs to have mantik in a program: import and login."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.figures import Figure, interleaved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mantik.testing import Platform

__all__ = ["imports", "login"]


def imports(rounds: int) -> list[Figure]:
    """Time whole processes: bare Python first, then with one import each."""
    return interleaved(
        {
            "python": _process("pass"),
            "python, import mantik": _process("import mantik"),
            "python, import mlflow": _process("import mlflow"),
        },
        rounds,
    )


def login(platform: Platform, home: str, rounds: int) -> list[Figure]:
    """Time `init_tracking()` in new processes, with and without a cached login, against a process that does nothing."""
    environment = {**os.environ, **platform.environment(), "MANTIK_HOME": home}
    no_cache = {**environment, "MANTIK_HOME": os.devnull}
    code = "import mantik; mantik.init_tracking()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    return interleaved(
        {
            "python": _process("pass", environment),
            "init_tracking(), cached login": _process(code, environment),
            "init_tracking(), new login": _process(code, no_cache),
        },
        rounds,
    )


def _process(code: str, environment: Mapping[str, str] | None = None) -> Callable[[], None]:
    def run() -> None:
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)

    return run
