"""Several processes of one training are one run, which rank zero writes."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.integrations.keras.trainings import BACKENDS, said, steps
from tests.integrations.trainings import ended

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mantik.testing import Platform
    from tests.integrations.keras.trainings import KerasTrainings

# Each process trains by itself between the two meetings: what is asked here is who records.
CONNECTED = {
    "torch": """
import torch
torch.distributed.init_process_group("gloo", init_method=f"tcp://{ADDRESS}", rank=RANK, world_size=2)
""",
    "jax": """
keras.distribution.initialize(ADDRESS, num_processes=2, process_id=RANK)
import jax
assert jax.process_count() == 2
""",
    "tensorflow": "os.environ.update(RANK=str(RANK), WORLD_SIZE='2')\n",
}
TRAINING = """
callback = MantikCallback("EXPERIMENT", log_freq="batch", save_freq="epoch", log_model=True, log_evaluation=True)
with callback:
    model = net()
    fit(model, [callback], epochs=2, validation_data=(X, Y))
    model.evaluate(X, Y, verbose=0, callbacks=[callback])
    callback.log_params({"mine": 1})
    callback.log_metrics({"own": 1.0})
say(run=callback.run_id, experiment=callback.experiment_id, link=callback.link)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_rank_zero_writes(
    backend: str, trainings_on: Callable[[str], KerasTrainings], mantik_platform: Platform, tmp_path: Path
) -> None:
    """Of two connected processes the first one's metrics and files are recorded, once; the other knows no run."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    experiment = f"two-{backend}"
    code = CONNECTED[backend] + TRAINING.replace("EXPERIMENT", experiment)
    trainings = [
        trainings_on(backend).start(
            f"ADDRESS, RANK = {address!r}, {rank}\n{code}", mantik_platform.environment(), tmp_path / str(rank)
        )
        for rank in range(2)
    ]
    for training in trainings:
        training.end()
    first, second = map(said, trainings)
    assert second == {"run": None, "experiment": None, "link": ""}
    (run,) = mantik_platform.read_back.runs(experiment)
    assert first["run"] == ended(mantik_platform, run.run_id, "FINISHED").run_id
    assert steps(mantik_platform, run.run_id) == [0, 1]
    assert steps(mantik_platform, run.run_id, "batch/loss") == list(range(10))
    assert "mantik: run" not in trainings[1].output
    assert not (tmp_path / "1" / "keras_logs").exists()


def test_launched_processes(torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path) -> None:
    """A launcher's rank counts before anything is connected; tasks of Slurm that nothing connects have own runs."""
    code = "fit(net(), [MantikCallback('launched')], epochs=1)"
    settings = [{"RANK": "1", "WORLD_SIZE": "2"}, {"RANK": "1", "WORLD_SIZE": "1"}]
    settings += [{"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "12"}]
    trainings = [
        torch_trainings.start(code, {**mantik_platform.environment(), **one}, tmp_path / str(at))
        for at, one in enumerate(settings)
    ]
    outputs = [training.end() for training in trainings]
    assert ["mantik: run" in output for output in outputs] == [False, True, True]
