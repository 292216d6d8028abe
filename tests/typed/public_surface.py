"""Checked by mypy, never run: what users write is typed."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import assert_type

import mantik
from mantik import Environment, MantikError, autolog, init_tracking
from mantik.exceptions import InvalidValueError, MissingExtraError, MissingSettingsError, UnexpectedAnswerError
from mantik.testing import FaultProxy, Platform, ReadBack, Status

environment = mantik.init_tracking()
assert_type(environment, Environment)
assert_type(init_tracking(), Environment)
assert_type(environment.token, str)
assert_type(environment.username, str | None)
assert_type(environment.to_dict(), dict[str, str])
assert_type(environment.to_bash_statement(no_export=True), str)
autolog(log_models=False, extra_tags={"team": "wine"})

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
