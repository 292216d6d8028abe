"""The environment of a job: a clean base, what makes it track, and what its user has set.

Nothing else of the service's environment gets in: it holds, among other things, the password of MLflow's database.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mantik.auth.cache import TokenCache
from mantik.auth.urls import Origin, normalise_tracking_uri, token_endpoint
from mantik.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mantik.compute.environment import Environment
    from mantik.server.compute.folders import JobFolders
    from mantik.server.compute.task import Task

JOB_ID: Final = "MANTIK_JOB_ID"
"""The variable by which the processes of a job are known."""

_BASE: Final = frozenset(
    {
        "HOME",
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "LOGNAME",
        "MODULEPATH",
        "MODULESHOME",
        "PATH",
        "REQUESTS_CA_BUNDLE",
        "SHELL",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TMPDIR",
        "TZ",
        "USER",
    }
)
_BASE_PREFIXES: Final = ("LC_", "CUDA_", "NVIDIA_")
# What a batch system tells the processes of a job. Where the service itself runs in a job of one, that is not this job.
_BATCH_PREFIXES: Final = ("SLURM_", "PMI", "ROCR_", "GPU_DEVICE_", "ZE_AFFINITY_")
_DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
# What would make the platform's own Python another one.
_OF_PROGRAMS: Final = ("LD_", "PYTHON")
# What would make it a process of the job, to be ended with the others.
_OF_JOBS: Final = frozenset({JOB_ID, "PATH"})


def clean(environ: Mapping[str, str], executor: str = "local") -> dict[str, str]:
    """Return what every program needs and nobody minds to show."""
    prefixes = _BASE_PREFIXES if executor == "local" else _BASE_PREFIXES + _BATCH_PREFIXES
    base = {name: value for name, value in environ.items() if name in _BASE or name.startswith(prefixes)}
    return {"PATH": _DEFAULT_PATH} | base


@dataclass(frozen=True, slots=True)
class JobEnvironment:
    """The variables of a job.

    Attributes:
        base: What is there before modules are loaded.
        own: What holds whatever modules say: the job's tracking, and its user's variables over it.
        first: Folders that come first in ``PATH``.
    """

    base: Mapping[str, str]
    own: Mapping[str, str] = field(repr=False)
    first: tuple[str, ...] = ()

    @classmethod
    def of(cls, task: Task, environment: Environment, folders: JobFolders, token: str) -> JobEnvironment:
        """Return the environment of a job, from that of this process.

        Args:
            task: The job.
            environment: The section of its backend configuration.
            folders: Its folders.
            token: An access token that is good now, for clients that do not renew it.
        """
        python = _Python.of(environment, folders)
        metrics = {"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true"} if python.has_psutil else {}
        own = {
            "PYTHONUNBUFFERED": "1",
            **_tracking(task, folders, token),
            **_machine(task),
            **metrics,
            **python.variables,
            **environment.variables,
        }
        return cls(clean(os.environ, task.executor), own, python.path)

    def variables(self) -> dict[str, str]:
        """Return all of them, where no modules are loaded."""
        together = {**self.base, **self.own}
        return {**together, "PATH": os.pathsep.join([*self.first, together["PATH"]])}

    def for_platform(self) -> dict[str, str]:
        """Return them for programs of the platform itself, which run for the job, in the Python of the platform."""
        kept = {name for name in self.own if not name.startswith(_OF_PROGRAMS)} - _OF_JOBS
        own = {name: self.own[name] for name in kept}
        return {**self.base, "MLFLOW_DISABLE_TELEMETRY": "true", **own}


@dataclass(frozen=True, slots=True)
class _Python:
    """The Python that a job's ``python`` is.

    Attributes:
        path: Folders that come first in ``PATH``.
        variables: What makes a virtual environment the active one.
        has_psutil: Whether MLflow can record what the machine does; without psutil it only complains.
    """

    path: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    has_psutil: bool = False

    @classmethod
    def of(cls, environment: Environment, folders: JobFolders) -> _Python:
        if environment.python is not None:
            return cls._at(Path(environment.python), folders)
        if environment.modules or environment.apptainer is not None or "PATH" in environment.variables:
            # They bring their own.
            return cls()
        # The platform's: it has MLflow and mantik.
        return cls((str(Path(sys.executable).parent),), has_psutil=find_spec("psutil") is not None)

    @classmethod
    def _at(cls, path: Path, folders: JobFolders) -> _Python:
        if path.is_dir():
            has_psutil = any(path.glob("lib/python*/site-packages/psutil"))
            return cls((str(path / "bin"),), {"VIRTUAL_ENV": str(path)}, has_psutil)
        if path.name == "python":
            return cls((str(path.parent),))
        # The entry point says `python`, and means this one, whatever else of that name is beside it.
        return cls((str(shim_folder(folders)), str(path.parent)))


def login_cache(folders: JobFolders, url: str, username: str) -> TokenCache:
    """Return where the processes of a job find the login that the service gives to it.

    Args:
        folders: The job's folders.
        url: The platform as the job reaches it.
        username: Who submitted it.
    """
    endpoint = token_endpoint(Settings(tracking_uri=url, allow_http=True))
    return TokenCache(folders.home, endpoint.base, username)


def shim_folder(folders: JobFolders) -> Path:
    """Return the folder of a job in which ``python`` is the interpreter that it has asked for."""
    return folders.state / "bin"


def _tracking(task: Task, folders: JobFolders, token: str) -> dict[str, str]:
    url = normalise_tracking_uri(task.url, allow_http=True)
    origin = Origin.of(url)
    unencrypted = origin is not None and origin.scheme == "http" and not origin.is_loopback
    return {
        "MLFLOW_TRACKING_URI": url,
        "MLFLOW_TRACKING_AUTH": "mantik",
        "MLFLOW_TRACKING_TOKEN": token,
        "MANTIK_TRACKING_CLAIM": url,
        "MANTIK_USERNAME": task.username,
        "MANTIK_HOME": str(folders.home),
        # Whoever runs the platform has decided so; the job has no other way to it.
        **({"MANTIK_ALLOW_HTTP": "1"} if unencrypted else {}),
        "MLFLOW_EXPERIMENT_ID": task.experiment_id,
        "MLFLOW_RUN_ID": task.run_id,
        JOB_ID: task.job_id,
    }


def _machine(task: Task) -> dict[str, str]:
    share, variables = task.share, {}
    if share.cpus is not None:
        variables["OMP_NUM_THREADS"] = str(len(share.cpus))
    if share.gpus is not None:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(share.gpus)
    return variables
