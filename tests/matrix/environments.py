"""Virtual environments with other versions of MLflow, made when they are first needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "python_of"]

ROOT = Path(__file__).parents[2]
_HERE = Path(__file__).parent
_HOME = ROOT / ".venv-matrix"

_NEEDED = {
    "mlflow-2.14": ["mlflow==2.14.3"],
    "mlflow-2.22": ["mlflow==2.22.*"],
    "mlflow-3.5": ["mlflow==3.5.*", "argon2-cffi", "joserfc", "starlette", "uvicorn"],
}
_OWN = ["click", "filelock", "requests", "rich", "scikit-learn", "setuptools"]


def python_of(name: str) -> Path:
    """Return the Python with a version of MLflow and the checkout's mantik: ``newest``, or a name such as `mlflow-3.5`.

    Raises:
        subprocess.CalledProcessError: It cannot be installed; pip has said why.
    """
    if name == "newest":
        return Path(sys.executable)
    python = _HOME / name / "bin" / "python"
    constraints = _HERE / f"constraints-{name}.txt"
    ready = _HOME / name / ".ready"
    needed = max(file.stat().st_mtime for file in (constraints, ROOT / "pyproject.toml"))
    if ready.exists() and ready.stat().st_mtime >= needed:
        return python
    sys.stderr.write(f"Installing {name} into {python.parents[1]} ...\n")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", _HOME / name], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", constraints, *_NEEDED[name], *_OWN], check=True)
    # Without what the newest MLflow asks for: that is the point.
    subprocess.run([*install, "--no-deps", "-e", ROOT], check=True)
    ready.touch()
    return python
