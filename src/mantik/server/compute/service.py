"""The compute backend of a web worker: put together from its parts, or declined."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from mantik.server.compute.incoming import Incoming
from mantik.server.compute.quota import Quota
from mantik.server.compute.refusal import message
from mantik.server.compute.routes import ComputeRoutes
from mantik.server.compute.runs import Runs
from mantik.server.compute.submissions import Submissions
from mantik.server.drain import drain

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from mantik.server.compute.config import ComputeConfig
    from mantik.server.compute.jobs import JobStore

_NO_BACKEND: Final = (
    "This platform has no compute backend. Whoever runs it switches it on with: mantik server --compute local|slurm"
)


def build(config: ComputeConfig, store: JobStore) -> ASGIApp:
    """Return what answers the paths of the compute backend, and clear what workers that died have left half-done.

    Args:
        config: The set-up, with folders that are there.
        store: Its jobs.
    """
    runs = Runs()
    incoming = Incoming(config, store, runs)
    # MLflow's database may be slow to open, and nobody has to wait for this.
    threading.Thread(target=incoming.recover, name="mantik-recover", daemon=True).start()
    return ComputeRoutes(config, store, Submissions(config, store, runs, incoming, Quota(config, store))).router()


def no_compute() -> ASGIApp:
    """Return what answers them on a platform without a compute backend."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await drain(scope, receive)
        await message(503, _NO_BACKEND).response()(scope, receive, send)

    return answer
