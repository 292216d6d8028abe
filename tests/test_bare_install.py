"""What somebody has who typed `pip install mantik` and nothing more."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.scripts import clean_environment

if TYPE_CHECKING:
    from mantik.testing import Platform

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the built wheel without extras into an environment of its own and return its Python."""
    folder = tmp_path_factory.mktemp("bare")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=200)
    (wheel,) = (folder / "dist").glob("*.whl")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    into = [*pip, "--python", str(python), "install", "--no-compile", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*into, str(wheel)], check=True, capture_output=True, timeout=250)
    return python


def run(python: Path, *arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the bare Python."""
    return subprocess.run(
        [str(python), *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.timeout(600)
def test_a_bare_install_tracks(bare: Path, mantik_platform: Platform, tmp_path: Path) -> None:
    """Without extras: log in, a run with param, metric, tag and artifact, and the command line."""
    code = """
import importlib.util
for name in ("sklearn", "torch", "lightning", "keras", "numpy", "pandas", "sqlalchemy", "flask", "argon2", "joserfc"):
    assert importlib.util.find_spec(name) is None, name
import mantik, mlflow
mantik.init_tracking()
mantik.autolog(silent=True)
with mlflow.start_run() as run:
    mlflow.log_param("depth", 3)
    mlflow.log_metric("loss", 0.5)
    mlflow.set_tag("kind", "bare")
    mlflow.log_text("text", "text.txt")
print("RUN", run.info.run_id)
"""
    environment = clean_environment(mantik_platform.environment(), tmp_path)
    done = run(bare, "-c", code, environment=environment)
    assert done.returncode == 0, done.stderr
    held = mantik_platform.read_back
    tracked = held.run(done.stdout.partition("RUN ")[2].split()[0])
    assert (tracked.params, tracked.metrics, tracked.tags["kind"]) == ({"depth": "3"}, {"loss": 0.5}, "bare")
    assert held.download(tracked.run_id, "text.txt") == b"text"
    shown = run(bare, "-m", "mantik", "status", "--json", environment=environment)
    assert (shown.returncode, json.loads(shown.stdout)["works"]) == (0, True)


@pytest.mark.timeout(600)
def test_what_needs_an_extra_names_the_command_that_installs_it(bare: Path, tmp_path: Path) -> None:
    """`mantik server` without its extra is one sentence with the exact pip command, and no traceback."""
    for arguments in (["server"], ["server", "users", "list"]):
        done = run(bare, "-m", "mantik", *arguments, environment=clean_environment({}, tmp_path))
        assert done.returncode == 1
        assert done.stdout == ""
        assert "which is not installed. Install it with: pip install 'mantik[server]'" in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
