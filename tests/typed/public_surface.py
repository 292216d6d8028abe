"""Checked by mypy, never run: what users write is typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from typing_extensions import assert_type

import mantik
from mantik import Environment, MantikCallback, MantikError, MantikLogger, autolog, init_tracking
from mantik.compute import ComputeBackendClient, Job, SubmittedRun
from mantik.exceptions import (
    InvalidValueError,
    MissingExtraError,
    MissingSettingsError,
    ProjectError,
    SubmissionError,
    UnexpectedAnswerError,
)
from mantik.testing import FaultProxy, Platform, ReadBack, Status

environment = mantik.init_tracking()
assert_type(environment, Environment)
assert_type(init_tracking(), Environment)
assert_type(environment.token, str)
assert_type(environment.username, str | None)
assert_type(environment.to_dict(), dict[str, str])
assert_type(environment.to_bash_statement(no_export=True), str)
autolog(log_models=False, extra_tags={"team": "wine"})

logger = MantikLogger("digits", run_name="first", tags={"team": "wine"}, log_model="all")
assert_type(logger.run_id, str | None)
assert_type(logger.link, str)
logger.log_metrics({"loss": 0.5}, step=3)

with MantikCallback("digits", "first", log_freq=10, log_model="best", save_freq="epoch") as callback:
    assert_type(callback, MantikCallback)
    assert_type(callback.run_id, str | None)
    assert_type(callback.experiment_id, str | None)
    assert_type(callback.link, str)
    callback.log_metrics({"loss": 0.5}, step=3)
    callback.log_params({"depth": 3})

try:
    mantik.init_tracking()
except MissingSettingsError as error:
    assert_type(error.names, tuple[str, ...])
except UnexpectedAnswerError as error:
    assert_type(error.status, int)
except MissingExtraError as error:
    assert_type(error.extra, str)
except InvalidValueError as error:
    assert_type(error.name, str)
except MantikError:
    pass

with Platform(Path("data"), token_lifetime=2.0) as platform, FaultProxy(platform.url) as proxy:
    assert_type(platform.read_back, ReadBack)
    assert_type(platform.environment(), dict[str, str])
    proxy.fault(Status(503), path="/api/2.0/", times=3).clear()

client = mantik.ComputeBackendClient.from_env()
assert_type(client, ComputeBackendClient)
submitted = client.submit_run(3, Path("project"), {"alpha": 0.5}, "backend-config.yaml", run_name="first")
assert_type(submitted, SubmittedRun)
assert_type(submitted.content, bytes)
assert_type(submitted.wait(timeout=60), Job)
assert_type(client.list(), list[Job])
assert_type(client.logs("17", follow=True), Iterator[str])
try:
    client.submit_run(experiment_id=3, mlproject_path="project", backend_config_path={"Resources": {"Queue": "batch"}})
except ProjectError as error:
    assert_type(error.mistakes, tuple[str, ...])
except SubmissionError as error:
    assert_type(error.status, int)
