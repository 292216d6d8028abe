"""A platform's compute backend as the client sees it, without anything that runs: tests say what becomes of jobs."""

from __future__ import annotations

import io
import json
import secrets
import time
import zipfile
from typing import Any

from tests.compute.form import Part, parts_of
from tests.compute.serving import Answer, Asked, Server

__all__ = ["StandIn"]

_BASE = "/compute-backend/"
_LIFETIME = 3600


class StandIn(Server):
    """Tokens, submissions, jobs, logs and files in the shapes of the contract.

    Attributes:
        limit: How large an archive may be; None does not say it.
        tokens: Access tokens that are good.
        jobs: Jobs by their ids, the oldest first.
        forms: What was submitted, by the job's id.
        logs: Output by the job's id.
        files: Files of working folders by the job's id.
    """

    def __init__(self) -> None:
        super().__init__()
        self.limit: int | None = None
        self.tokens = {"the-token"}
        self.lifetime = float(_LIFETIME)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.forms: dict[str, dict[str, Part]] = {}
        self.logs: dict[str, bytes] = {}
        self.files: dict[str, dict[str, bytes]] = {}

    def add_job(self, **known: Any) -> str:  # noqa: ANN401  # what JSON has
        """Add a job and return its id."""
        number = len(self.jobs) + 1
        job = {
            "job_id": f"job-{number}",
            "run_id": f"{number:032x}",
            "experiment_id": 3,
            "run_name": f"run {number}",
            "entry_point": "main",
            "parameters": {},
            "state": "QUEUED",
            "reason": None,
            "queue": "batch",
            "submitted_at": f"2026-03-01T10:00:{number:02d}+00:00",
            "started_at": None,
            "ended_at": None,
            "exit_code": None,
            "signal": None,
            "executor": "local",
            "executor_id": None,
            "nodes": None,
            "log_size": 0,
            "backend_config": {"Resources": {"Queue": "batch"}},
        }
        self.jobs[str(job["job_id"])] = {**job, **known}
        return str(job["job_id"])

    def members(self, job_id: str) -> dict[str, bytes]:
        """Return the files in a job's archive."""
        with zipfile.ZipFile(io.BytesIO(self.forms[job_id]["mlproject_zip"].content)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def answer(self, asked: Asked) -> Answer:
        """Answer as the platform does."""
        if asked.path.startswith("/api/mantik/tokens/"):
            return self._issue(asked)
        if not asked.path.startswith(_BASE):
            return Answer(404, b"<html>no such page</html>")
        if asked.token not in self.tokens:
            return Answer(401, {"detail": "Token expired"})
        return self._known(asked)

    def _known(self, asked: Asked) -> Answer:
        parts = asked.path.removeprefix(_BASE).split("/", 3)
        if parts[0] == "submit" and asked.method == "POST":
            return self._submit(asked, parts[1])
        if parts == ["jobs"]:
            return self._listed(asked)
        job = next((job for job in self.jobs.values() if parts[1] in {job["job_id"], job["run_id"]}), None)
        if job is None:
            return Answer(404, {"detail": f"There is no job {parts[1]} of yours."})
        return self._about(job, asked, parts[2:])

    def _issue(self, asked: Asked) -> Answer:
        if json.loads(asked.body).get("password", "right") != "right":
            return Answer(401, b"Incorrect username or password")
        token = secrets.token_hex()
        self.tokens = {token}
        ends = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + self.lifetime))
        content = {"AccessToken": token, "ExpiresAt": ends, "RefreshToken": "refresh"}
        return Answer(201, content)

    def _submit(self, asked: Asked, experiment_id: str) -> Answer:
        form = parts_of(asked.headers["Content-Type"], asked.body)
        assert form["mlflow_tracking_token"].content.decode() == asked.token
        if experiment_id == "404":
            return Answer(400, {"message": "There is no experiment 404."})
        job_id = self.add_job(
            experiment_id=int(experiment_id), parameters=json.loads(form["mlflow_parameters"].content)
        )
        self.forms[job_id] = form
        known = {"experiment_id": int(experiment_id), "run_id": self.jobs[job_id]["run_id"]}
        return Answer(201, {**known, "unicore_job_id": job_id, "job_id": job_id})

    def _listed(self, asked: Asked) -> Answer:
        offset, limit = int(asked.query["offset"]), int(asked.query["limit"])
        newest = list(reversed(self.jobs.values()))
        headers = {"Mantik-Archive-Limit": str(self.limit)} if self.limit is not None else {}
        return Answer(200, {"jobs": newest[offset : offset + limit], "total": len(newest)}, headers)

    def _about(self, job: dict[str, Any], asked: Asked, rest: list[str]) -> Answer:
        job_id = job["job_id"]
        if not rest:
            return Answer(200, job)
        if rest == ["cancel"] and asked.method == "POST":
            job["state"] = "CANCELLED" if job["state"] in {"QUEUED", "RUNNING"} else job["state"]
            return Answer(202, job)
        if rest == ["logs"]:
            log = self.logs.get(job_id, b"")
            headers = {"Mantik-Log-Size": str(len(log)), "Mantik-Job-State": job["state"]}
            return Answer(200, log[int(asked.query["offset"]) :], headers)
        return self._files(self.files.get(job_id, {}), asked, rest[1:])

    def _files(self, files: dict[str, bytes], asked: Asked, rest: list[str]) -> Answer:
        if rest:
            content = files.get(rest[0])
            return Answer(200, content) if content is not None else Answer(404, {"detail": "There is no such file."})
        prefix = asked.query.get("path", "")
        prefix += "/" if prefix else ""
        entries = {}
        for name, content in files.items():
            if name.startswith(prefix):
                head, deeper, _ = name[len(prefix) :].partition("/")
                is_dir = bool(deeper)
                entries[head] = {"path": prefix + head, "size": 0 if is_dir else len(content), "is_dir": is_dir}
        return Answer(200, {"files": list(entries.values())})
