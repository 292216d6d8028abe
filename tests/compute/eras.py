"""The compute backend services of early releases, as far as their submit route goes (contract, sections 4.2 and 4.3).

They were FastAPI applications: a required field of a form that is empty counts there as one that is missing.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import yaml

from tests.compute.form import Part, parts_of
from tests.compute.serving import Answer, Asked, Server

__all__ = ["Service010", "Service012"]

_REQUIRED = (
    "entry_point",
    "unicore_user",
    "unicore_project",
    "unicore_password",
    "mlflow_tracking_uri",
    "mlflow_tracking_token",
    "mlproject_zip",
)


class _Service(Server):
    """What both eras share."""

    config_field: str

    def __init__(self) -> None:
        super().__init__()
        self.token = "the-token"
        self.submitted: list[dict[str, Any]] = []

    def answer(self, asked: Asked) -> Answer:
        """Take a submission as the release did."""
        prefix = "/compute-backend/submit/"
        if not asked.path.startswith(prefix):
            return Answer(404, {"detail": "Not Found"})
        if asked.method != "POST":
            return Answer(405, {"detail": "Method Not Allowed"})
        if not asked.headers.get("Authorization", "").startswith("Bearer ") or asked.token != self.token:
            return Answer(401, {"detail": "Invalid token"})
        form = parts_of(asked.headers["Content-Type"], asked.body)
        missing = [name for name in _REQUIRED if name not in form or not form[name].content]
        if missing:
            detail = [
                {"loc": ["body", name], "msg": "field required", "type": "value_error.missing"} for name in missing
            ]
            return Answer(422, {"detail": detail})
        return self.submit(int(asked.path.removeprefix(prefix)), form)

    def submit(self, experiment_id: int, form: dict[str, Part]) -> Answer:
        """Read the form and the configuration in the archive."""
        text = {name: part.content.decode() for name, part in form.items() if part.filename is None}
        with zipfile.ZipFile(io.BytesIO(form["mlproject_zip"].content)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        config_path = text.get(self.config_field, "unicore-config.json")
        if config_path not in files:
            return self.refused(f"No such config: {config_path}")
        config = self.read(config_path, files[config_path])
        queue = config.get("Resources", {}).get("Queue")
        if queue is None:
            return self.refused("Config is missing entry for key 'Queue'")
        self.submitted.append(
            {
                "experiment_id": experiment_id,
                "parameters": json.loads(text["mlflow_parameters"]),
                "entry_point": text["entry_point"],
                "queue": queue,
                "files": files,
                "text": text,
            }
        )
        return Answer(201, self.accepted(experiment_id))

    def read(self, name: str, content: bytes) -> dict[str, Any]:
        """Read a configuration."""
        raise NotImplementedError

    def refused(self, words: str) -> Answer:
        """Refuse a configuration."""
        raise NotImplementedError

    def accepted(self, experiment_id: int) -> dict[str, Any]:
        """Say what became of a submission."""
        raise NotImplementedError


class Service010(_Service):
    """The service of 0.1.0 and 0.1.1: reads another field than its own client sends, and JSON only."""

    config_field = "unicore_backend_config_path"

    def read(self, name: str, content: bytes) -> dict[str, Any]:  # noqa: ARG002  # of all eras
        """Read JSON."""
        config: dict[str, Any] = json.loads(content)
        return config

    def refused(self, words: str) -> Answer:  # noqa: ARG002
        """Fail as that service did: nothing was caught."""
        return Answer(500, b"Internal Server Error", {"Content-Type": "text/plain"})

    def accepted(self, experiment_id: int) -> dict[str, Any]:
        """Name the run alone."""
        return {"experiment_id": experiment_id, "run_id": f"{experiment_id:032x}"}


class Service012(_Service):
    """The service of 0.1.2 to 0.3.1."""

    config_field = "unicore_backend_config"

    def read(self, name: str, content: bytes) -> dict[str, Any]:
        """Read JSON or YAML by the file's suffix."""
        suffix = name.rpartition(".")[2]
        assert suffix in {"json", "yaml", "yml"}
        config: dict[str, Any] = json.loads(content) if suffix == "json" else yaml.safe_load(content)
        return config

    def refused(self, words: str) -> Answer:
        """Refuse with a message."""
        return Answer(400, {"message": words})

    def accepted(self, experiment_id: int) -> dict[str, Any]:
        """Name the run and the job."""
        return {"experiment_id": experiment_id, "run_id": f"{experiment_id:032x}", "unicore_job_id": "unicore-17"}
