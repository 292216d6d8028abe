"""Jobs on a platform: what a job is, how it is submitted, and what becomes of it.

Each public name is loaded when it is first used: the server needs the half that reads projects, and not the client.
"""

from __future__ import annotations

from importlib import import_module

# Type checkers take this name for true.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from mantik.compute.backend_config import BackendConfig as BackendConfig
    from mantik.compute.client import ComputeBackendClient as ComputeBackendClient
    from mantik.compute.job import Job as Job
    from mantik.compute.mlproject import Project as Project
    from mantik.compute.submitted_run import SubmittedRun as SubmittedRun

__all__ = ["BackendConfig", "ComputeBackendClient", "Job", "Project", "SubmittedRun"]

_HOMES = {
    "BackendConfig": "mantik.compute.backend_config",
    "ComputeBackendClient": "mantik.compute.client",
    "Job": "mantik.compute.job",
    "Project": "mantik.compute.mlproject",
    "SubmittedRun": "mantik.compute.submitted_run",
}


def __getattr__(name: str) -> object:
    """Load a public name from the module that defines it (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(set(globals()) | set(__all__))
