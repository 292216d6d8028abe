"""Which of several processes has a run, as their launcher says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform
    from tests.integrations.keras.trainings import KerasTrainings


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
