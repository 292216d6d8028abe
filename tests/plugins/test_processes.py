"""The login goes along into threads, forks, spawned and plain child processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mantik.testing import FaultProxy
from tests.forked import run_forked
from tests.scripts import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import Platform

BEGIN = """
    import os, subprocess, sys, threading
    import mantik, mlflow

    def log(name):
        # The parent renewed nothing: the child finds the token rejected or expired, or good, and gets along.
        mlflow.MlflowClient().log_metric(os.environ["RUN"], name, 1.0)

    def main():
        mantik.init_tracking()
        os.environ["RUN"] = mlflow.start_run().info.run_id
        {body}
        mlflow.end_run()
        print("RUN", os.environ["RUN"])

    if __name__ == "__main__":
        main()
    """

CHILDREN = {
    "thread": "child = threading.Thread(target=log, args=('thread',)); child.start(); child.join()",
    "fork": """child = os.fork()
        if child == 0:
            log("fork")
            # A child that ends like this runs no handlers: what it has not sent by then waits for `mantik sync`.
            from mantik.delivery.ending import close_all
            close_all()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0""",
    "multiprocessing": """import multiprocessing
        child = multiprocessing.get_context("fork").Process(target=log, args=("multiprocessing",))
        child.start(); child.join(); assert child.exitcode == 0""",
    "spawn": """import multiprocessing
        child = multiprocessing.get_context("spawn").Process(target=mlflow.log_metric, args=("spawn", 1.0),
                                                             kwargs={"run_id": os.environ["RUN"]})
        child.start(); child.join(); assert child.exitcode == 0""",
    "child": """code = "import mlflow, os; mlflow.MlflowClient().log_metric(os.environ['RUN'], 'child', 1.0)"
        subprocess.run([sys.executable, "-c", code], check=True)""",
    "no password": """code = "import mlflow, os; mlflow.log_metric('no password', 1.0, run_id=os.environ['RUN'])"
        del os.environ["MANTIK_PASSWORD"]
        subprocess.run([sys.executable, "-c", code], check=True)""",
}


@pytest.fixture
def proxy(mantik_platform: Platform) -> Iterator[FaultProxy]:
    """Count what is asked."""
    with FaultProxy(mantik_platform.url) as standing:
        yield standing


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.thorough] * (kind == "child")) for kind in CHILDREN]
)
def test_the_login_goes_along(kind: str, mantik_platform: Platform, proxy: FaultProxy, tmp_path: Path) -> None:
    """A metric logged there arrives, with one login for parent and child together."""
    settings = {**mantik_platform.environment(), "MLFLOW_TRACKING_URI": proxy.url}
    script = tmp_path / "train.py"
    script.write_text(_dedented(BEGIN.replace("{body}", CHILDREN[kind])))
    output = run_forked(
        f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')",
        clean_environment(settings, tmp_path),
        tmp_path,
    )
    run = mantik_platform.read_back.run(output.partition("RUN ")[2].split()[0])
    assert run.metrics == {kind: 1.0}
    assert proxy.count("/api/mantik/tokens") == 1


def test_a_child_of_a_shell_command_is_logged_in_too(
    mantik_platform: Platform, proxy: FaultProxy, tmp_path: Path
) -> None:
    """MLflow's own command line, started by a training, uses the same login."""
    settings = {**mantik_platform.environment(), "MLFLOW_TRACKING_URI": proxy.url}
    output = run_forked(
        """
        import mantik, subprocess, sys

        mantik.init_tracking()
        command = [sys.executable, "-m", "mlflow", "experiments", "search"]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        """,
        clean_environment(settings, tmp_path),
        tmp_path,
    )
    assert "Default" in output
    assert proxy.count("/api/mantik/tokens") == 1


def _dedented(code: str) -> str:
    import textwrap

    return textwrap.dedent(code)
