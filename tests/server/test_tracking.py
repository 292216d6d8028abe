from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import requests

from .running import DEADLINE

if TYPE_CHECKING:
    from .running import RunningPlatform


def test_run_with_metric_and_artifact(platform: RunningPlatform) -> None:
    """With a token everything that training does works: experiment, run, metric, artifact up and down."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {platform.access_token('alice')}"

    def post(path: str, **content: object) -> dict[str, Any]:
        answer = session.post(f"{platform.url}/api/2.0/mlflow/{path}", json=content, timeout=DEADLINE)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert isinstance(found, dict)
        return found

    experiment_id = post("experiments/create", name="tracking")["experiment_id"]
    now = int(time.time() * 1000)
    info = post("runs/create", experiment_id=experiment_id, start_time=now)["run"]["info"]
    run_id = info["run_id"]
    post("runs/log-metric", run_id=run_id, key="loss", value=0.5, timestamp=now, step=3)
    post("runs/update", run_id=run_id, status="FINISHED", end_time=now)

    run = session.get(f"{platform.url}/api/2.0/mlflow/runs/get?run_id={run_id}", timeout=DEADLINE).json()["run"]
    assert run["info"]["status"] == "FINISHED"
    assert [(m["key"], m["value"], m["step"]) for m in run["data"]["metrics"]] == [("loss", 0.5, 3)]

    assert info["artifact_uri"].startswith("mlflow-artifacts:/")
    path = info["artifact_uri"].removeprefix("mlflow-artifacts:/")
    url = f"{platform.url}/api/2.0/mlflow-artifacts/artifacts/{path}/weights.bin"
    weights = bytes(range(256)) * 4096
    assert session.put(url, data=weights, timeout=DEADLINE).status_code == 200
    assert session.get(url, timeout=DEADLINE).content == weights
    stored = list((platform.config.data / "artifacts").rglob("weights.bin"))
    assert [file.stat().st_mode & 0o777 for file in stored] == [0o600]


def test_refused_upload_of_some_size_gets_its_answer(platform: RunningPlatform) -> None:
    """An upload with a bad token sees 401, although the server does not want its 8 MiB."""
    url = f"{platform.url}/api/2.0/mlflow-artifacts/artifacts/1/x"
    answer = requests.put(url, data=bytes(8 << 20), headers={"Authorization": "Bearer x"}, timeout=DEADLINE)
    assert (answer.status_code, answer.text) == (401, "Invalid token")
    assert not (platform.config.data / "artifacts" / "1" / "x").exists()
