"""Nothing that a Keras training records is lost, and nothing that goes wrong with the platform reaches it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mantik.testing import FaultProxy, Refuse, Status
from tests.integrations.keras.trainings import BATCHES, said, steps
from tests.integrations.trainings import ended

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import Platform
    from tests.integrations.keras.trainings import KerasTrainings

EPOCHS = 6
TRAINING = f"""
model = net()
places = [At(1, lambda: wait("first")), At(3, lambda: wait("second"))]
callback = MantikCallback(log_freq="batch", save_freq="epoch", log_model=True)
history = fit(model, [callback, *places], epochs={EPOCHS}).history
say(loss=history["loss"])
"""


@pytest.fixture
def proxy(mantik_platform: Platform) -> Iterator[FaultProxy]:
    """Stand before the platform."""
    with FaultProxy(mantik_platform.url) as standing:
        yield standing


@pytest.fixture
def settings(mantik_platform: Platform, proxy: FaultProxy) -> dict[str, str]:
    """Track through the proxy."""
    return {**mantik_platform.environment(), "MLFLOW_TRACKING_URI": proxy.url}


def assert_whole(platform: Platform, run_id: str, losses: list[float]) -> None:
    """Check that all that the training recorded is there, once."""
    run = ended(platform, run_id, "FINISHED")
    found = platform.read_back.metric_history(run_id, "loss")
    assert [(point.step, point.value) for point in found] == list(enumerate(losses))
    assert steps(platform, run_id, "batch/loss") == list(range(EPOCHS * BATCHES))
    assert "checkpoints/last/last.keras" in platform.read_back.artifacts(run_id)
    assert run.params["epochs"] == str(EPOCHS)
    assert [model.source_run_id for model in platform.read_back.logged_models("0")].count(run_id) == 1


def test_a_platform_that_is_away_in_the_middle(
    torch_trainings: KerasTrainings,
    mantik_platform: Platform,
    proxy: FaultProxy,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    """A server that is dead in the middle third of a fit costs it nothing, neither points nor files."""
    training = torch_trainings.start(TRAINING, settings, tmp_path)
    training.reach("first")
    proxy.fault(Refuse())
    training.go_on("first")
    training.reach("second")
    proxy.clear()
    training.go_on("second")
    training.end()
    torch_trainings.sync(settings, tmp_path)
    assert_whole(mantik_platform, training.run_id, said(training)["loss"])


@pytest.fixture(params=[401, 503])
def refusal(request: pytest.FixtureRequest) -> Status:
    """Refuse a login, or everything for a while."""
    return Status(request.param)


def test_a_platform_that_refuses_after_the_first_epochs(  # noqa: PLR0913, PLR0917  # fixtures
    torch_trainings: KerasTrainings,
    mantik_platform: Platform,
    proxy: FaultProxy,
    settings: dict[str, str],
    refusal: Status,
    tmp_path: Path,
) -> None:
    """401 or 503 for everything from the second epoch on, to the end: the fit goes on, and a sync brings the rest."""
    training = torch_trainings.start(TRAINING, {**settings, "MANTIK_EXIT_TIMEOUT": "1"}, tmp_path)
    training.reach("first")
    proxy.fault(refusal)
    training.go_on("first")
    training.go_on("second")
    training.end()
    proxy.clear()
    torch_trainings.sync(settings, tmp_path)
    assert_whole(mantik_platform, training.run_id, said(training)["loss"])


def test_a_training_that_is_killed(
    torch_trainings: KerasTrainings,
    mantik_platform: Platform,
    proxy: FaultProxy,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    """Of a training that is killed without a platform, a sync brings everything up to then, and ends the run."""
    places = '[At(0, lambda: wait("first")), At(3, send(signal.SIGKILL))]'
    code = f'fit(net(), [MantikCallback(log_freq="batch"), *{places}], epochs=9)'
    training = torch_trainings.start(code, settings, tmp_path)
    training.reach("first")
    proxy.fault(Refuse())
    training.go_on("first")
    training.end(exit_code=-9)
    proxy.clear()
    torch_trainings.sync(settings, tmp_path)
    run = ended(mantik_platform, training.run_id, "KILLED")
    assert steps(mantik_platform, run.run_id) == [0, 1, 2, 3]
    assert steps(mantik_platform, run.run_id, "batch/loss") == list(range(4 * BATCHES))
