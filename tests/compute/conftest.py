"""Projects and services for the tests of the compute backend's client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mantik.compute.client import ComputeBackendClient
from tests.compute.stand_in import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MLPROJECT = """\
name: wine
entry_points:
  main:
    parameters:
      alpha: {type: float, default: 0.1}
      data: {type: path, default: data/train.csv}
      note: {type: string, default: none}
    command: "python train.py --alpha {alpha} --data {data} --note {note}"
  evaluate:
    parameters:
      model: uri
    command: "python evaluate.py {model}"
"""
CONFIG = """\
Environment:
  Python: /home/ada/venv
Resources:
  Queue: batch
  Runtime: 12h
Exclude:
  - "*.sif"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with two entry points, data, and a backend configuration."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "MLproject").write_text(MLPROJECT, encoding="utf-8")
    (folder / "backend-config.yaml").write_text(CONFIG, encoding="utf-8")
    (folder / "train.py").write_text("print('training')\n", encoding="utf-8")
    (folder / "data" / "train.csv").write_text("1,2\n", encoding="utf-8")
    return folder


@pytest.fixture
def service() -> Iterator[StandIn]:
    """Run a compute backend that tests say the jobs of."""
    with StandIn().running() as running:
        yield running


@pytest.fixture
def client(service: StandIn, blank_environment: pytest.MonkeyPatch) -> ComputeBackendClient:
    """Make a client as users do who have everything at hand."""
    return ComputeBackendClient(service.url, "", "", "", service.url, "the-token")


def log_in(environment: pytest.MonkeyPatch, service: StandIn) -> None:
    """Set what a user sets."""
    environment.setenv("MLFLOW_TRACKING_URI", service.url)
    environment.setenv("MANTIK_USERNAME", "ada")
    environment.setenv("MANTIK_PASSWORD", "right")
