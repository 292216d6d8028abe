"""From a request to a job: completely, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from mantik.compute.backend_config import BackendConfig
from mantik.compute.document import read_mapping
from mantik.compute.mistakes import Mistakes
from mantik.compute.mlproject import Project
from mantik.compute.resources import Resources
from mantik.exceptions import ProjectError
from mantik.server.compute.folders import JobFolders
from mantik.server.compute.form import SubmissionForm
from mantik.server.compute.jobs import Job, TooManyJobsError, now
from mantik.server.compute.quota import disk_full
from mantik.server.compute.refusal import message
from mantik.server.compute.unpack import Limits, unpack
from mantik.server.compute.upload import receive_form
from mantik.server.compute.zip_directory import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.requests import Request

    from mantik.server.compute.config import ComputeConfig
    from mantik.server.compute.incoming import Draft, Incoming
    from mantik.server.compute.jobs import JobStore
    from mantik.server.compute.quota import Quota
    from mantik.server.compute.runs import Runs
    from mantik.server.store import User

_P = ParamSpec("_P")
_R = TypeVar("_R")

# Unpacking takes one core, the rest waits for databases.
_AT_ONCE: Final = 4
_NO_CONFIG: Final = BackendConfig(Resources(""))
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Submissions:
    """Takes submissions.

    A submission is a draft, in a folder of its own, until the job is in the store; then it is a job, and the answer is
    sent. Whatever ends a draft before that ends all of it: upload, files, run. If the process dies, the next one does.
    """

    def __init__(self, config: ComputeConfig, store: JobStore, runs: Runs, incoming: Incoming, quota: Quota) -> None:
        self._config = config
        self._store = store
        self._runs = runs
        self._incoming = incoming
        self._quota = quota
        self._executor = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="mantik-submission")

    async def take(self, request: Request, user: User, experiment_id: str, job_id: str | None) -> Job:
        """Return the job that the request has become.

        Args:
            request: The request.
            user: Who sent it.
            experiment_id: The experiment that the run is to be in.
            job_id: What the client calls the job. A job of that name and of this user is returned as it is, and nothing
                is read of the request.

        Raises:
            RefusedError: It has not.
            ClientDisconnect: The client went away before it had sent everything.
        """
        try:
            async with self._quota.uploads(user.id):
                return await self._take(request, user, experiment_id, job_id)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise disk_full() from error
            raise

    async def _take(self, request: Request, user: User, experiment_id: str, job_id: str | None) -> Job:
        known = None if job_id is None else await self._in_thread(self._store.get, job_id)
        if known is not None and known.user_id == user.id:
            return known
        await self._in_thread(self._check, user, experiment_id)
        try:
            draft = await self._in_thread(self._incoming.new, experiment_id, job_id)
        except FileExistsError:
            raise message(409, "This job is being submitted already.") from None
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self._in_thread, self._incoming.clear, draft)
            form = SubmissionForm.read(await receive_form(request, draft.archive, self._config.archive_limit))
            undo.pop_all()
        # One call for the rest: a thread goes on where the request is cancelled.
        return await self._in_thread(self._finish, draft, form, user)

    async def _in_thread(self, function: Callable[_P, _R], *arguments: _P.args, **_: _P.kwargs) -> _R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(function, *arguments))

    def _check(self, user: User, experiment_id: str) -> None:
        """Refuse what needs no upload to be refused."""
        self._quota.check(user.id)
        self._runs.check_experiment(experiment_id)

    def _finish(self, draft: Draft, form: SubmissionForm, user: User) -> Job:
        try:
            return self._accept(draft, form, user)
        except ArchiveError as error:
            raise message(400, str(error)) from error
        except ProjectError as error:
            # The user has never seen the folder that the messages name.
            raise message(400, str(error).replace(str(draft.project), "the project")) from error
        except TooManyJobsError as error:
            raise self._quota.too_many_jobs() from error
        finally:
            self._incoming.clear(draft)

    def _accept(self, draft: Draft, form: SubmissionForm, user: User) -> Job:
        draft.job.mkdir(mode=0o700)
        unpack(draft.archive, draft.project, Limits(self._config.unpacked_limit))
        draft.archive.unlink()
        config, given, params = self._read_project(draft.project, form)
        draft.run_mark.touch()
        run_id, run_name = self._runs.create(
            draft.experiment_id,
            job_id=draft.job_id,
            username=user.name,
            run_name=form.run_name,
            entry_point=form.entry_point,
            parameters=params,
        )
        job = Job(
            job_id=draft.job_id,
            run_id=run_id,
            experiment_id=draft.experiment_id,
            user_id=user.id,
            username=user.name,
            run_name=run_name,
            entry_point=form.entry_point,
            parameters=given,
            backend_config=config.to_mapping(),
            submitted_at=now(),
            queue=config.resources.queue,
            slots=_cpus(config.resources) if self._config.executor == "local" else 1,
        )
        draft.job.rename(JobFolders(self._config.folder, draft.job_id).root)
        self._store.add(job, at_most=self._config.queue_limit)
        return job

    def _read_project(self, folder: Path, form: SubmissionForm) -> tuple[BackendConfig, dict[str, str], dict[str, str]]:
        """Return the configuration, the parameters as given, and the params of the run.

        Raises:
            ProjectError: The project cannot be run so; names all mistakes.
        """
        mistakes = Mistakes()
        project = Project.read(folder, mistakes)
        given = project.checked(form.entry_point, form.parameters, mistakes)
        config = _read_config(folder, form.config_path, mistakes)
        if self._config.executor == "local":
            _check_machine(config.resources, self._config.slots, mistakes)
        mistakes.raise_if_any("The project cannot be run")
        point = project.entry_points.get(form.entry_point)
        declared = point.parameters if point is not None else {}
        defaults = {name: str(each.default) for name, each in declared.items() if each.default is not None}
        return config, given, defaults | given


def _read_config(folder: Path, path: str, mistakes: Mistakes) -> BackendConfig:
    if not (folder / path).is_file():
        mistakes.add(path, "there is no such file in the project, expected its backend configuration")
        return _NO_CONFIG
    content = read_mapping(folder / path, path, mistakes)
    return _NO_CONFIG if content is None else BackendConfig.read(content, mistakes)


def _check_machine(resources: Resources, slots: int, mistakes: Mistakes) -> None:
    """Refuse what one machine never has: such a job would wait for ever."""
    if (resources.nodes or 1) > 1:
        mistakes.add("Resources.Nodes", f"{resources.nodes} is too many: this platform runs its jobs on one machine")
    elif _cpus(resources) > slots:
        mistakes.add("Resources", f"{_cpus(resources)} CPUs are too many: this platform gives its jobs at most {slots}")


def _cpus(resources: Resources) -> int:
    """Return how many CPUs a job asks for; one where it does not say."""
    return resources.cpus or (resources.cpus_per_node or 1) * (resources.nodes or 1)
