"""A training outlives its token by far, and nobody notices but the platform."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest

from mantik.testing import FaultProxy, Platform
from tests.forked import fork_script, run_forked
from tests.scripts import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIFETIME = 2.0
RENEWED_AFTER = 1.5
"""A token of 2 s is renewed in the last quarter of its life."""

lives = pytest.mark.parametrize("lives", [4, pytest.param(10, marks=pytest.mark.thorough)])
"""For how many lives of a token something goes on."""

REFRESH = "/api/mantik/tokens/refresh"
CREATE = "/api/mantik/tokens/create"


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """Run a platform whose access tokens live for two seconds."""
    with Platform(token_lifetime=LIFETIME) as running:
        yield running


@pytest.fixture
def proxy(platform: Platform) -> Iterator[FaultProxy]:
    """Stand in front of it and count."""
    with FaultProxy(platform.url) as standing:
        yield standing


@pytest.fixture
def environment(platform: Platform, proxy: FaultProxy, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user of the proxy."""
    return clean_environment({**platform.environment(), "MLFLOW_TRACKING_URI": proxy.url}, tmp_path)


def assert_refreshes_explained(proxy: FaultProxy, seconds: float) -> None:
    """Check that there was one login, and as many refreshes as the lifetime explains: about one per 1.5 s of use."""
    assert proxy.count(CREATE) == 1
    most = math.ceil(seconds / RENEWED_AFTER) + 1
    # Some calls, such as logging a model, go without a request for longer than a token lives, and some take long.
    fewest, begun = 0, proxy.requests[0].time
    for request in proxy.requests:
        if request.time > begun + 2 * LIFETIME:
            fewest, begun = fewest + 1, request.time
    assert max(1, fewest) <= proxy.count(REFRESH) <= most


@lives
def test_a_training_of_many_token_lives_sees_no_401(
    lives: int, platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path
) -> None:
    """Metrics, artifacts, models and registry calls go on for longer than a token lives."""
    output = run_forked(
        f"""
        import json, threading, time
        import mantik, mlflow
        from pathlib import Path
        from sklearn.linear_model import LinearRegression

        mantik.init_tracking()
        model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
        Path("artifact.bin").write_bytes(bytes(200_000))
        client = mlflow.MlflowClient()
        client.create_registered_model("lasting")
        started, step = time.monotonic(), 0
        with mlflow.start_run() as run:
            while time.monotonic() - started < {lives * LIFETIME}:
                mantik.init_tracking()
                mlflow.log_metric("step", step, step=step)
                mlflow.log_artifact("artifact.bin", f"at/{{step}}")
                if step % 20 == 0:
                    options = {{"registered_model_name": "lasting", "pip_requirements": ["scikit-learn"]}}
                    mlflow.sklearn.log_model(model, name="line", **options)
                client.set_registered_model_tag("lasting", "step", str(step))
                step += 1
                threading.Event().wait(0.05)  # a step of training
        print("DONE", json.dumps([run.info.run_id, step, time.monotonic() - started]))
        """,
        environment,
        tmp_path,
    )
    run_id, steps, seconds = json.loads(output.partition("DONE ")[2].splitlines()[0])
    held = platform.read_back
    assert [point.step for point in held.metric_history(run_id, "step")] == list(range(steps))
    assert len([path for path in held.artifacts(run_id) if path.startswith("at/")]) == steps
    registered = {model.name: model for model in held.registered_models()}["lasting"]
    assert registered.tags["step"] == str(steps - 1)
    assert len(registered.versions) == math.ceil(steps / 20)
    assert "401" not in output
    assert_refreshes_explained(proxy, seconds)


@lives
def test_eight_threads_share_the_refreshes(
    lives: int, platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path
) -> None:
    """Eight threads that log for many lives of a token need no more refreshes than one."""
    output = run_forked(
        f"""
        import json, threading, time
        from concurrent.futures import ThreadPoolExecutor
        import mantik, mlflow

        mantik.init_tracking()
        run = mlflow.start_run()
        client = mlflow.MlflowClient()
        started = time.monotonic()

        def log(thread):
            step = 0
            while time.monotonic() - started < {lives * LIFETIME}:
                client.log_metric(run.info.run_id, f"thread-{{thread}}", step, step=step)
                step += 1
                threading.Event().wait(0.05)  # a step of training
            return step

        with ThreadPoolExecutor(8) as pool:
            steps = list(pool.map(log, range(8)))
        mlflow.end_run()
        print("DONE", json.dumps([run.info.run_id, steps, time.monotonic() - started]))
        """,
        environment,
        tmp_path,
    )
    run_id, steps, seconds = json.loads(output.partition("DONE ")[2].splitlines()[0])
    held = platform.read_back
    for thread, count in enumerate(steps):
        assert [point.step for point in held.metric_history(run_id, f"thread-{thread}")] == list(range(count))
    assert "401" not in output
    assert_refreshes_explained(proxy, seconds)


@lives
def test_eight_processes_share_the_refreshes(
    lives: int, platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path
) -> None:
    """Eight processes that start on an expired cache and log for many lives of a token need no more refreshes."""
    run_forked("import mantik; mantik.init_tracking()", environment, tmp_path)
    expire(tmp_path)
    worker = f"""
        import json, sys, threading, time
        import mantik, mlflow

        print("READY", flush=True)
        name = sys.stdin.readline().strip()
        started, step = time.monotonic(), 0
        mantik.init_tracking()
        with mlflow.start_run(run_name=name) as run:
            while time.monotonic() - started < {lives * LIFETIME}:
                mlflow.log_metric("step", step, step=step)
                step += 1
                threading.Event().wait(0.05)  # a step of training
        print("DONE", json.dumps([run.info.run_id, step]), flush=True)
        """
    outputs = run_together(worker, environment, tmp_path)
    held = platform.read_back
    for output in outputs:
        run_id, steps = json.loads(output.partition("DONE ")[2].splitlines()[0])
        assert [point.step for point in held.metric_history(run_id, "step")] == list(range(steps))
        assert "401" not in output
    assert_refreshes_explained(proxy, lives * LIFETIME + 5)


def test_eight_processes_on_an_expired_cache_refresh_once(mantik_platform: Platform, tmp_path: Path) -> None:
    """Where tokens live long, eight processes that start together on an expired one cause exactly one refresh."""
    with FaultProxy(mantik_platform.url) as proxy:
        settings = {**mantik_platform.environment(), "MLFLOW_TRACKING_URI": proxy.url}
        environment = clean_environment(settings, tmp_path)
        run_forked("import mantik; mantik.init_tracking()", environment, tmp_path)
        assert (proxy.count(CREATE), proxy.count(REFRESH)) == (1, 0)
        expire(tmp_path)
        # Nobody needs the password any more.
        del environment["MANTIK_PASSWORD"]
        worker = """
            import sys, mantik.tracking
            print("READY", flush=True)
            sys.stdin.readline()
            print("DONE", len(mantik.init_tracking().token), flush=True)
            """
        for output in run_together(worker, environment, tmp_path):
            assert int(output.partition("DONE ")[2]) > 100
        assert (proxy.count(CREATE), proxy.count(REFRESH)) == (1, 1)


def expire(home: Path) -> None:
    """Let the cached token have ended in the past."""
    (entry,) = (home / ".mantik" / "tokens").glob("*.json")
    content = json.loads(entry.read_text())
    content["expires_at"] = 1.0
    entry.write_text(json.dumps(content))


def run_together(worker: str, environment: dict[str, str], folder: Path) -> list[str]:
    """Start eight processes, let them begin at the same moment, and return what each printed."""
    processes = [fork_script(worker, environment, folder) for _ in range(8)]
    try:
        for process in processes:
            assert process.stdout.readline() == "READY\n"
        for number, process in enumerate(processes):
            process.stdin.write(f"worker {number}\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=150)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * 8, outputs
    return outputs
