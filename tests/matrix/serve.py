"""Runs a platform with the MLflow of this environment until standard input is closed.

Where that MLflow is new enough it is ``mantik server``, else the stock server behind a front.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec

from mantik.testing import Platform
from tests.matrix.front import fronted_server

_USER = ("ada", "analytical engine")


def main() -> None:
    """Print where the platform is and who may log in, as one line of JSON, and serve."""
    username, password = _USER
    if find_spec("mlflow.server.fastapi_app") is not None:
        with Platform(username=username, password=password) as platform:
            _stay(platform.url)
    else:
        with fronted_server(username, password) as url:
            _stay(url)


def _stay(url: str) -> None:
    username, password = _USER
    sys.stdout.write(json.dumps({"url": url, "username": username, "password": password}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
