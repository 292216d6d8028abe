from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

import mantik

FRAMEWORKS = (
    "mlflow",
    "requests",
    "sklearn",
    "torch",
    "lightning",
    "pytorch_lightning",
    "keras",
    "jax",
    "numpy",
    "pandas",
)

WATCHED = """
    import json, os, sys, threading

    opened, read = [], []
    sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
    before = set(sys.modules)

    class Watched(type(os.environ)):
        def __getitem__(self, key):
            read.append(key)
            return super().__getitem__(key)

    os.environ.__class__ = Watched
    import mantik
    os.environ.__class__ = Watched.__base__
    print(json.dumps({
        "modules": sorted(set(sys.modules) - before),
        "threads": threading.active_count(),
        "read": read,
        "opened": [path for path in opened if not path.endswith((".py", ".pyc"))],
    }))
    """


@pytest.fixture(scope="module")
def seen() -> dict[str, list[str]]:
    """Return what a fresh interpreter saw while it imported mantik."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WATCHED)], capture_output=True, text=True, check=True, timeout=60
    )
    content: dict[str, list[str]] = json.loads(done.stdout)
    return content


def test_importing_mantik_imports_no_framework(seen: dict[str, list[str]]) -> None:
    """`import mantik` brings neither mlflow nor requests nor any framework, and of itself the package alone."""
    roots = {name.partition(".")[0] for name in seen["modules"]}
    assert not roots & set(FRAMEWORKS)
    assert [name for name in seen["modules"] if name.startswith("mantik")] == ["mantik"]


def test_importing_mantik_does_nothing(seen: dict[str, list[str]]) -> None:
    """`import mantik` starts no thread, opens no file and reads no environment variable."""
    assert seen["threads"] == 1
    assert seen["read"] == []
    assert seen["opened"] == []


def test_every_public_name_is_there() -> None:
    """All names of `__all__` resolve, `dir` lists them, and any other name is an ordinary AttributeError."""
    assert {name for name in mantik.__all__ if getattr(mantik, name) is not None} == set(mantik.__all__)
    assert set(mantik.__all__) <= set(dir(mantik))
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        mantik.no_such_name  # noqa: B018  # the look-up is the test


def test_importing_mlflow_does_not_load_the_rest_of_mantik() -> None:
    """What MLflow loads through entry points in the middle of its import is the plugin module and nothing more."""
    code = "import sys, mlflow; print(sorted(name for name in sys.modules if name.startswith('mantik')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == (
        "['mantik', 'mantik.plugins', 'mantik.plugins.artifact_repository', 'mantik.plugins.run_context', "
        "'mantik.plugins.tracking_store']"
    )
