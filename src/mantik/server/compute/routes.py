"""The paths of the compute backend, behind the gate: submit, list, look at, cancel, and the files of a job."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import wraps
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, Router

from mantik.server.compute.clearing import is_overdue
from mantik.server.compute.files import list_folder, open_file, pieces
from mantik.server.compute.folders import JobFolders
from mantik.server.compute.form import read_experiment_id, read_job_id
from mantik.server.compute.refusal import HEADERS, RefusedError, detail, message
from mantik.server.drain import BodyReader, drain

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from mantik.server.authority import Bearer
    from mantik.server.compute.config import ComputeConfig
    from mantik.server.compute.jobs import Job, JobStore
    from mantik.server.compute.submissions import Submissions

PREFIX: Final = "/compute-backend"
BEARER: Final = "mantik.bearer"
"""The key under which a request's scope holds who sent it."""

_DEFAULT_PAGE: Final = 50
_LONGEST_PAGE: Final = 1000
_MOST_FILES: Final = 20_000
_LARGEST: Final = 2**63 - 1
_LONGEST_NUMBER: Final = 19
_DRAINED_BYTES: Final = 1024 * 1024 * 1024
_DRAINED_SECONDS: Final = 30.0
# What a program has left behind is handed out as a file, never shown as a page of the platform.
_AS_A_FILE: Final = {**HEADERS, "Content-Security-Policy": "sandbox; default-src 'none'"}
_REMOVED: Final = "The log and the files of this job were removed"
_NOT_FOUND: Final = "There is no such job, or it is somebody else's"


class ComputeRoutes:
    """Answers the paths below `PREFIX`. A user sees the jobs of nobody else; a job's token shows that job alone."""

    def __init__(self, config: ComputeConfig, store: JobStore, submissions: Submissions) -> None:
        self._config = config
        self._store = store
        self._submissions = submissions

    def router(self) -> Router:
        """Return the routes as an ASGI application."""
        job = f"{PREFIX}/jobs/{{id}}"
        return Router(
            [
                Route(f"{PREFIX}/submit/{{experiment_id}}", self._submit, methods=["POST"]),
                Route(f"{PREFIX}/jobs", _answering(self._list), methods=["GET"]),
                Route(job, _answering(self._show), methods=["GET"]),
                Route(f"{job}/logs", _answering(self._logs), methods=["GET"]),
                Route(f"{job}/cancel", _answering(self._cancel), methods=["POST"]),
                Route(f"{job}/files", _answering(self._files), methods=["GET"]),
                Route(f"{job}/files/{{path:path}}", _answering(self._file), methods=["GET"]),
            ],
            redirect_slashes=False,
            default=_not_found,
        )

    async def _submit(self, request: Request) -> Response:
        body = BodyReader(request.receive)
        try:
            bearer = _person(request, "submit jobs")
            experiment_id = read_experiment_id(request.path_params["experiment_id"])
            job_id = read_job_id(request.headers.get("Idempotency-Key"))
            job = await self._submissions.take(Request(request.scope, body), bearer.user, experiment_id, job_id)
        except RefusedError as refused:
            await _drain_rest(request.scope, body)
            return refused.response()
        except ClientDisconnect:
            return Response(status_code=400)
        await _drain_rest(request.scope, body)
        content = {
            "experiment_id": int(job.experiment_id),
            "run_id": job.run_id,
            "unicore_job_id": job.job_id,
            "job_id": job.job_id,
        }
        return JSONResponse(content, 201, HEADERS)

    def _list(self, request: Request) -> Response:
        bearer = _bearer(request)
        offset = _number(request, "offset", 0, _LARGEST)
        limit = _number(request, "limit", _DEFAULT_PAGE, _LONGEST_PAGE)
        if bearer.job is None:
            jobs, total = self._store.of_user(bearer.user.id, offset=offset, limit=limit)
        else:
            jobs, total = [self._own_job(bearer, bearer.job)], 1
        # Asked for before an upload: so the client knows what is too large without sending it.
        headers = {**HEADERS, "Mantik-Archive-Limit": str(self._config.archive_limit)}
        return JSONResponse({"jobs": [self._as_json(job) for job in jobs], "total": total}, headers=headers)

    def _show(self, request: Request) -> Response:
        return JSONResponse(self._as_json(self._job(request)), headers=HEADERS)

    def _cancel(self, request: Request) -> Response:
        _person(request, "cancel jobs")
        job = self._store.request_cancel(self._job(request).job_id)
        return JSONResponse(self._as_json(job), 202, headers=HEADERS)

    def _logs(self, request: Request) -> Response:
        offset = _number(request, "offset", 0, _LARGEST)
        # The state first: of a job that is over, all of the log is there.
        job = self._job(request)
        folders = self._folders(job)
        file = open_file(folders.root, folders.log.name)
        size = os.fstat(file.fileno()).st_size if file is not None else 0
        headers = {**_AS_A_FILE, "Mantik-Log-Size": str(size), "Mantik-Job-State": job.state.value}
        if file is None:
            self._check_kept(job)
            return Response(b"", headers=headers, media_type="text/plain")
        file.seek(min(offset, size))
        return StreamingResponse(pieces(file, size - offset), headers=headers, media_type="text/plain")

    def _files(self, request: Request) -> Response:
        job = self._job(request)
        path = request.query_params.get("path", "").strip("/")
        try:
            entries = list_folder(self._folders(job).project, path, _MOST_FILES)
        except ValueError:
            raise message(400, f"This folder has more than {_MOST_FILES} files, too many to list.") from None
        if entries is None:
            self._check_kept(job)
            raise detail(404, "There is no such folder in the job's working folder")
        return JSONResponse({"files": [asdict(entry) for entry in entries]}, headers=HEADERS)

    def _file(self, request: Request) -> Response:
        job = self._job(request)
        path = request.path_params["path"]
        file = open_file(self._folders(job).project, path)
        if file is None:
            self._check_kept(job)
            raise detail(404, "There is no such file in the job's working folder")
        size = os.fstat(file.fileno()).st_size
        name = quote(path.rpartition("/")[2])
        headers = {
            **_AS_A_FILE,
            "Content-Length": str(size),
            "Content-Disposition": f"attachment; filename*=utf-8''{name}",
        }
        return StreamingResponse(pieces(file, size), headers=headers, media_type="application/octet-stream")

    def _job(self, request: Request) -> Job:
        return self._own_job(_bearer(request), request.path_params["id"])

    def _own_job(self, bearer: Bearer, id_: str) -> Job:
        """Return the job of this id, or of the run of this id, if the bearer may see it."""
        job = self._store.get(id_) or self._store.by_run(id_)
        if job is None or job.user_id != bearer.user.id or bearer.job not in {None, job.job_id}:
            raise detail(404, _NOT_FOUND)
        return job

    def _folders(self, job: Job) -> JobFolders:
        return JobFolders(self._config.folder, job.job_id)

    def _check_kept(self, job: Job) -> None:
        """Make sure that what was not found is not gone with all that the job has left.

        Raises:
            RefusedError: It is.
        """
        if not job.state.is_over or self._folders(job).root.exists():
            return
        days = self._config.keep_days
        if is_overdue(job, days):
            kept = "1 day" if days == 1 else f"{days} days"
            raise detail(410, f"{_REMOVED}: they are kept for {kept} after its end")
        raise detail(410, f"{_REMOVED} from the platform")

    def _as_json(self, job: Job) -> dict[str, object]:
        log = self._folders(job).log
        return {
            "job_id": job.job_id,
            "run_id": job.run_id,
            "experiment_id": int(job.experiment_id),
            "run_name": job.run_name,
            "entry_point": job.entry_point,
            "parameters": job.parameters,
            "state": job.state.value,
            "reason": job.reason,
            "queue": job.queue,
            "submitted_at": job.submitted_at,
            "started_at": job.started_at,
            "ended_at": job.ended_at,
            "exit_code": job.exit_code,
            "signal": job.signal,
            "executor": job.executor,
            "executor_id": job.executor_id,
            "nodes": job.nodes,
            "log_size": log.stat().st_size if log.exists() else 0,
            "backend_config": job.backend_config,
        }


async def _drain_rest(scope: Scope, body: BodyReader) -> None:
    """Read what a request still has to say, so that its client comes to read the answer."""
    if not body.at_end:
        await drain(scope, body, most_bytes=_DRAINED_BYTES, seconds=_DRAINED_SECONDS)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await drain(scope, receive)
    await detail(404, "Not Found").response()(scope, receive, send)


def _answering(endpoint: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Turn refusals into answers. Starlette calls a function that is no coroutine in a thread."""

    @wraps(endpoint)
    def answer(request: Request) -> Response:
        try:
            return endpoint(request)
        except RefusedError as refused:
            return refused.response()

    return answer


def _bearer(request: Request) -> Bearer:
    return cast("Bearer", request.scope[BEARER])


def _person(request: Request, what: str) -> Bearer:
    """Return the bearer, who has to be there in person.

    Raises:
        RefusedError: It is a job.
    """
    bearer = _bearer(request)
    if bearer.job is not None:
        raise detail(403, f"The token of a job may not {what}")
    return bearer


def _number(request: Request, name: str, default: int, largest: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER) or int(text) > largest:
        raise message(400, f"{name} must be a whole number from 0 to {largest}.")
    return int(text)
