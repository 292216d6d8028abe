"""What ``mlflow server --app-name mantik`` runs: MLflow's application behind the gate.

MLflow imports this module in a process that serves nothing, so importing it loads nothing heavy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mantik.server import lifeline
from mantik.server.compute.config import ComputeConfig
from mantik.server.config import ServerConfig

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def create_app() -> ASGIApp:
    """Build the application of one worker process, from the environment that the command prepared.

    Raises:
        ConfigurationError: The data directory, the database or the signing key cannot be used.
    """
    config = ServerConfig.from_environment(os.environ)
    if config.lifeline is not None:
        lifeline.hold(config.lifeline)
    from mlflow.server.fastapi_app import app as mlflow_app

    return wrap(mlflow_app, config, ComputeConfig.from_environment(os.environ))


def wrap(inner: ASGIApp, config: ServerConfig, compute: ComputeConfig | None = None) -> ASGIApp:
    """Put ``inner`` behind the gate of the platform ``config``.

    Args:
        inner: MLflow's application.
        config: The platform.
        compute: Its compute backend, if it has one.

    Raises:
        ConfigurationError: The data directory, the database or the signing key cannot be used.
    """
    from starlette.middleware.errors import ServerErrorMiddleware

    from mantik.server.attempts import SignInAttempts
    from mantik.server.authority import Authority
    from mantik.server.compute.jobs import JobStore
    from mantik.server.compute.service import build, no_compute
    from mantik.server.gate import Gate
    from mantik.server.passwords import PasswordHasher
    from mantik.server.routes import Routes
    from mantik.server.store import Store
    from mantik.server.tokens import TokenIssuer, load_signing_key

    config.prepare_data()
    store = Store(config.database)
    tokens = TokenIssuer(load_signing_key(config.signing_key), config.token_lifetime)
    authority, backend = Authority(store, tokens), no_compute()
    if compute is not None and compute.executor != "none":
        compute.prepare()
        jobs = JobStore(compute.database)
        authority, backend = Authority(store, tokens, jobs.is_over), build(compute, jobs)
    routes = Routes(authority, SignInAttempts(store, PasswordHasher()), config.instance)
    # Answers 500 with two words to whatever goes wrong inside, and passes the error on to the server's log.
    return ServerErrorMiddleware(Gate(inner, routes.router(), backend, authority))
