"""Lightning's two packages, `lightning.pytorch` and `pytorch_lightning`, whichever is imported first, and neither."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.integrations.trainings import Trainings
from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import Platform

PACKAGES = ("lightning.pytorch", "pytorch_lightning")

# What both packages import, but for one.
IMPORTS = "import fsspec, lightning_utilities, mlflow, rich.progress, torch, torch._dynamo, torch.distributed.fsdp"

BOTH = """
    import importlib, json, sys

    # Writing, sending, starting processes and threads: what nothing may do before a run is wanted.
    done = []

    def watch(event, arguments):
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if writes or event in {"socket.connect", "subprocess.Popen", "os.mkdir", "_thread.start_new_thread"}:
            done.append([event, str(arguments[:2])])

    first, second = importlib.import_module(sys.argv[1]), sys.argv[2]
    import mantik
    from mantik import MantikLogger

    sys.addaudithook(watch)
    logger = MantikLogger("both", run_id="none", save_dir="here", log_model="all", mlflow_model=True)
    repr(logger)
    facts = {"done": list(done), "built_on": MantikLogger.__mro__[2].__module__}

    import torch

    def fit(package):
        class Module(package.LightningModule):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(1, 1)

            def training_step(self, batch, _):
                loss = self.layer(batch).sum()
                self.log("loss", loss)
                return loss

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)

        logger = MantikLogger("both", log_model=True)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
        trainer = package.Trainer(accelerator="cpu", max_epochs=1, logger=logger, **quiet)
        trainer.fit(Module(), torch.utils.data.DataLoader(torch.ones(2, 1)))
        loggers = package.loggers
        kinds = [isinstance(logger, kind) for kind in (loggers.MLFlowLogger, loggers.Logger)]
        kinds += [issubclass(MantikLogger, kind) for kind in (loggers.MLFlowLogger, loggers.Logger)]
        kinds += [isinstance(logger, loggers.CSVLogger)]
        return {"run_id": logger.run_id, "kinds": kinds, "folder": trainer.checkpoint_callback.dirpath}

    facts[sys.argv[1]] = fit(first)
    facts[second] = fit(importlib.import_module(second))
    assert mantik.flush(60)
    print("facts", json.dumps(facts))
"""

ABSENT = """
    import sys

    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name in {packages}:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

    sys.meta_path.insert(0, Absent())
    import mantik
    from mantik.exceptions import MissingExtraError

    try:
        mantik.MantikLogger
    except ModuleNotFoundError as error:
        print("raised", isinstance(error, MissingExtraError), error, "|", repr(error.__cause__))
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """Warm a process up that has imported what Lightning needs, and nothing of Lightning."""
    with Trainings(tmp_path_factory.mktemp("scripts"), "", IMPORTS) as warm:
        yield warm


@pytest.fixture(scope="module", params=PACKAGES)
def facts(
    request: pytest.FixtureRequest,
    scripts: Trainings,
    mantik_platform: Platform,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """Return what a script sees that trains with both packages, and imports this one first."""
    order = [request.param, *(name for name in PACKAGES if name != request.param)]
    output = scripts.run(BOTH, mantik_platform.environment(), tmp_path_factory.mktemp("both"), *order).output
    (line,) = [line for line in output.splitlines() if line.startswith("facts ")]
    return {"first": request.param, "output": output, **json.loads(line.removeprefix("facts "))}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_trainer_of_either_package(facts: dict[str, Any], mantik_platform: Platform, package: str) -> None:
    """A Trainer of either package is tracked, whichever was imported first."""
    read_back, run_id = mantik_platform.read_back, facts[package]["run_id"]
    assert read_back.run(run_id).status == "FINISHED"
    assert [point.step for point in read_back.metric_history(run_id, "loss")] == [0, 1]
    assert "checkpoints/epoch=0-step=2/epoch=0-step=2.ckpt" in read_back.artifacts(run_id)
    assert facts[package]["folder"].endswith(f"/{run_id}/checkpoints")


@pytest.mark.parametrize("package", PACKAGES)
def test_it_passes_for_a_logger_of_either_package(facts: dict[str, Any], package: str) -> None:
    """For `isinstance` and `issubclass` it is an MLFlowLogger and a Logger of each package, and no other logger."""
    assert facts[package]["kinds"] == [True, True, True, True, False]


def test_it_is_built_on_the_package_in_use(facts: dict[str, Any]) -> None:
    """The base class is that of the package that was imported first."""
    assert facts["built_on"].startswith(facts["first"])


def test_making_one_does_nothing(facts: dict[str, Any]) -> None:
    """No file, no request, no process and no thread comes of it."""
    assert facts["done"] == []


def test_without_lightning(tmp_path: Path) -> None:
    """Without either package mantik works, and the error at the use of the logger has the command that installs it."""
    code = ABSENT.format(packages='{"lightning", "pytorch_lightning"}')
    output = run_script(code, clean_environment({}, tmp_path), tmp_path)
    assert "raised True MantikLogger needs the package 'lightning', which is not installed." in output
    assert "pip install 'mantik[lightning]' | ModuleNotFoundError" in output


def test_with_one_package(scripts: Trainings, tmp_path: Path) -> None:
    """With `pytorch_lightning` alone the logger is built on that."""
    more = """
    from mantik.integrations.lightning.namespace import chosen
    print(chosen().__name__)
    """
    code = ABSENT.partition("    try:")[0].format(packages='{"lightning"}') + more
    assert scripts.run(code, {}, tmp_path).output.splitlines()[-1] == "pytorch_lightning"


def test_with_a_lightning_that_lacks_something(scripts: Trainings, tmp_path: Path) -> None:
    """A package that is there and cannot be imported is not called absent: the error is its own."""
    code = ABSENT.format(packages='{"torchmetrics"}')
    output = scripts.run(code, {}, tmp_path).output
    assert "raised False No module named 'torchmetrics'" in output
