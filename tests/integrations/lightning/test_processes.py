"""Trainings of several processes: one run, whoever starts them, however they end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from mantik.testing import FaultProxy, wait_until
from mantik.testing.processes import end_groups
from tests.scripts import clean_environment

from .trainings import Trainings, sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mantik.testing import Platform
    from mantik.testing.holdings import Run

_SECONDS = 100.0
_NOBODY = "0" * 32
_TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0")

TRAINING = '''
"""Started as a script by torchrun, by Lightning or by the test, and imported by spawned processes."""

import json, os, signal, sys, threading, time
from pathlib import Path

import lightning.pytorch as pl
import mlflow
import torch
from torch.utils.data import DataLoader, TensorDataset

import mantik


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class Net(pl.LightningModule):
    """Logs its number in each step, from 100 on in the second process; `end` says what happens in the sixth."""

    def __init__(self, end="goes_on"):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(1, 1)
        self.end = getattr(self, end)

    def goes_on(self):
        pass

    def second_raises(self):
        if self.global_rank == 1:
            raise ValueError("the second's own")

    def second_is_killed(self):
        if self.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        # What ends this process is the signal of the one that started both.
        until(lambda: False)

    def waits_for_sigterm(self):
        Path(f"waiting-{self.global_rank}").touch()
        until(lambda: self.trainer.received_sigterm)

    def setup(self, stage):
        self.known = known(self.trainer)

    def training_step(self, batch, index):
        if self.global_step == 5:
            self.end()
        self.log("number", float(self.global_step + 100 * self.global_rank))
        return self.layer(batch[0]).pow(2).mean()

    def test_step(self, batch, index):
        self.log("tested", 1.0)

    def on_train_end(self):
        tell(f"fit-{self.global_rank}", self.known)

    def on_test_end(self):
        tell(f"test-{self.global_rank}", self.known)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def known(trainer):
    logger = trainer.logger
    return [logger.run_id, logger.experiment_id, logger.save_dir, logger.log_dir, trainer.log_dir]


def tell(name, known):
    threads = [thread.name for thread in threading.enumerate() if "mantik" in thread.name]
    spool = Path(os.environ["MANTIK_HOME"], "spool")
    folders = [folder.name for folder in spool.glob(f"*-{os.getpid()}-*")]
    Path(f"{name}.json").write_text(json.dumps({"known": known, "threads": threads, "folders": folders}))


def data():
    return DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=1)


def trainer(strategy, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    logger = mantik.MantikLogger(log_model=True, **options)
    usual = {"max_epochs": 2, "accelerator": "cpu", "devices": 2, "default_root_dir": "root"}
    return pl.Trainer(logger=logger, strategy=strategy, **usual, **quiet)


def fit(strategy, end="goes_on", **options):
    mine = trainer(strategy, **options)
    mine.fit(Net(end), data())
    return mine


def fit_and_test(strategy):
    mine = fit(strategy)
    tell(f"fitted-{mine.global_rank}", known(mine))
    mine.test(Net(), data(), verbose=False)
    tell(f"tested-{mine.global_rank}", known(mine))


def fit_with_metrics_of_ranks(strategy):
    fit(strategy, rank_metrics=True)


def fit_in_a_run(strategy, end="goes_on"):
    """Let the training be a part of a run that goes on afterwards."""
    mantik.init_tracking()
    with mlflow.start_run(run_name="mine") as run:
        try:
            mine = fit(strategy, end)
            assert mine.logger.run_id == run.info.run_id
        except Exception as error:
            assert "the second's own" in str(error)
        assert mantik.flush(60)
        print("STATUS", mlflow.get_run(run.info.run_id).info.status, flush=True)
        mlflow.log_metric("after", 1.0)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
'''


LAUNCHERS = ("torchrun", "ddp", "ddp_spawn", "ddp_fork")
DEATHS = ("second_is_killed", "second_raises")


@dataclass(frozen=True)
class Case:
    """A training of two processes.

    Attributes:
        launcher: ``torchrun``, or the strategy with which Lightning starts the processes itself.
        function: What of the script is called, with the strategy and these arguments.
        arguments: The others.
        settings: Variables beside the usual ones.
        is_terminated: Whether SIGTERM is sent to the first process when both wait for it.
    """

    launcher: str
    function: str = "fit"
    arguments: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    is_terminated: bool = False

    @property
    def call(self) -> tuple[str, ...]:
        """What the script is called with."""
        return (self.function, "ddp" if self.launcher == "torchrun" else self.launcher, *self.arguments)


CASES = {
    **{launcher: Case(launcher, "fit_and_test") for launcher in LAUNCHERS},
    **{
        f"{launcher}-{death}": Case(launcher, arguments=(death,))
        for launcher in ("torchrun", "ddp_spawn", "ddp_fork")
        for death in DEATHS
    },
    "terminated": Case("torchrun", arguments=("waits_for_sigterm",), is_terminated=True),
    "ddp_spawn-in-a-run": Case("ddp_spawn", "fit_in_a_run"),
    "ddp_fork-in-a-run": Case("ddp_fork", "fit_in_a_run"),
    "ddp_fork-in-a-run-fails": Case("ddp_fork", "fit_in_a_run", ("second_raises",)),
    "offline": Case("ddp_fork", "fit_and_test", settings={"MANTIK_MODE": "offline"}),
    "metrics-of-ranks": Case("ddp_fork", "fit_with_metrics_of_ranks"),
    **{f"{launcher}-refused": Case(launcher, settings={"MLFLOW_RUN_ID": _NOBODY}) for launcher in ("ddp", "ddp_fork")},
}


@dataclass(frozen=True)
class Ended:
    """What became of a case.

    Attributes:
        exit_code: Of the process that was started.
        output: What all have printed, but for the ranks of ``torchrun``.
        folder: Where they ran.
    """

    exit_code: int
    output: str
    folder: Path

    def told(self, name: str) -> dict[str, Any]:
        """Return what a process has told at some point."""
        facts: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        return facts

    def printed(self, rank: int) -> str:
        """Return what a rank of ``torchrun`` has printed."""
        return "".join(file.read_text() for file in sorted(self.folder.glob(f"ranks/*/attempt_0/{rank}/*.log")))


class Processes:
    """Runs cases: those that have to begin with a new interpreter as a script, the others from a warm process."""

    def __init__(self, folder: Path, settings: Mapping[str, str], warm: Trainings) -> None:
        self._folder = folder
        self._settings = settings
        self._warm = warm
        self._script = folder / "training.py"
        self._script.write_text(TRAINING)

    def settings(self, name: str) -> dict[str, str]:
        """Return the settings of a case, whose experiment has its name."""
        own = {"MLFLOW_EXPERIMENT_NAME": f"processes-{name}", "PYTHONPATH": str(self._folder), "OMP_NUM_THREADS": "1"}
        return {**self._settings, **own, **CASES[name].settings}

    def run_script(self, name: str) -> Ended:
        """Run a case as a script to its end; whatever is left of it then is killed."""
        case, folder = CASES[name], self._folder / name
        folder.mkdir()
        # Each rank's output in a file of its own.
        launch = (*_TORCHRUN, "--log-dir=ranks", "--redirects=3") if case.launcher == "torchrun" else ()
        output = folder / "output"
        with output.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, *launch, str(self._script), *case.call],
                env=clean_environment(self.settings(name), folder),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            if case.is_terminated:
                waiting = [folder / f"waiting-{rank}" for rank in range(2)]
                wait_until(lambda: all(file.exists() for file in waiting), deadline=_SECONDS, what=name)
                process.send_signal(signal.SIGTERM)
            process.wait(_SECONDS)
        finally:
            end_groups([process.pid])
            process.wait()
        return Ended(process.returncode, output.read_text(), folder)

    def run_warm(self, name: str) -> Ended:
        """Run a case from the warm process, in the same way."""
        function, *arguments = CASES[name].call
        code = f"os.setsid()\nsys.path.insert(0, {str(self._folder)!r})\nimport training\n"
        code += f"training.{function}(*{arguments!r})"
        process = self._warm.start(code, self.settings(name), self._folder / name)
        try:
            output = process.end(None)
        finally:
            end_groups([process.pid])
        assert process.exit_code is not None
        return Ended(process.exit_code, output, self._folder / name)


@pytest.fixture(scope="module")
def proxy(mantik_platform: Platform) -> Iterator[FaultProxy]:
    """Stand in front of the platform, to count requests."""
    with FaultProxy(mantik_platform.url) as standing:
        yield standing


@pytest.fixture(scope="module")
def ended(
    mantik_platform: Platform, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Ended]]:
    """Run all cases to their ends, one as a script and one from the warm process at a time."""
    folder = tmp_path_factory.mktemp("processes")
    settings = {**mantik_platform.environment(), "MLFLOW_TRACKING_URI": proxy.url}
    scripts = [name for name, case in CASES.items() if case.launcher in {"torchrun", "ddp"}]
    with Trainings(folder) as warm, ThreadPoolExecutor(1) as pool:
        processes = Processes(folder, settings, warm)
        running = {name: pool.submit(processes.run_script, name) for name in scripts}
        over = {name: processes.run_warm(name) for name in CASES if name not in scripts}
        sync(settings, folder / "offline")
        yield {**over, **{name: future.result() for name, future in running.items()}}


def the_run(platform: Platform, name: str) -> Run:
    """Return the one run of a case."""
    (run,) = platform.read_back.runs(f"processes-{name}")
    return run


def numbers(platform: Platform, run: Run, key: str = "number") -> list[tuple[int, float]]:
    """Return steps and values of a metric, in the order in which they were recorded."""
    return [(point.step, point.value) for point in platform.read_back.metric_history(run.run_id, key)]


def lines(output: str) -> list[str]:
    """Return what mantik and MLflow have said in an output."""
    return [line for line in output.splitlines() if line.startswith("mantik: ") or "View run" in line]


@pytest.mark.parametrize("launcher", [*LAUNCHERS, "offline"])
def test_all_processes_are_one_run(
    launcher: str, ended: dict[str, Ended], mantik_platform: Platform, proxy: FaultProxy
) -> None:
    """A fit and a test of two processes are one run: each step of a metric once, each checkpoint uploaded once."""
    over = ended[launcher]
    assert over.exit_code == 0, over.output + over.printed(0) + over.printed(1)
    run = the_run(mantik_platform, launcher)
    assert run.status == "FINISHED"
    assert run.tags["mantik.attempt"] == "1"
    assert run.params == {"end": "goes_on"}
    assert numbers(mantik_platform, run) == [(step, float(step)) for step in range(8)]
    assert [value for _, value in numbers(mantik_platform, run, "tested")] == [1.0]
    (checkpoint,) = [path for path in mantik_platform.read_back.artifacts(run.run_id) if path.endswith(".ckpt")]
    (file,) = over.folder.rglob("*.ckpt")
    assert mantik_platform.read_back.download(run.run_id, checkpoint) == file.read_bytes()
    uploads = [request for request in proxy.requests if request.method == "PUT" and run.run_id in request.path]
    assert len([request for request in uploads if request.path.endswith(".ckpt")]) == 1


@pytest.mark.parametrize("launcher", [*LAUNCHERS, "offline"])
def test_every_process_knows_the_run(launcher: str, ended: dict[str, Ended], mantik_platform: Platform) -> None:
    """Run, experiment and folder are the same on all ranks from the setup on, and where they were started from."""
    over = ended[launcher]
    run = the_run(mantik_platform, launcher)
    started_here = launcher in {"torchrun", "ddp"}
    outside = [f"{when}-{rank}" for when in ("fitted", "tested") for rank in range(2 if started_here else 1)]
    inside = [f"{when}-{rank}" for when in ("fit", "test") for rank in range(2)]
    known = [over.told(name)["known"] for name in inside + outside]
    assert all(facts == known[0] for facts in known), known
    run_id, experiment_id, *folders = known[0]
    if launcher != "offline":
        assert (run_id, experiment_id) == (run.run_id, run.experiment_id)
    assert folders == [str(over.folder / "root" / "lightning_logs" / experiment_id / run_id)] * 3


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_other_ranks_only_compute(launcher: str, ended: dict[str, Ended]) -> None:
    """A rank that is not the first starts no thread and makes no folder in the spool; the first has both."""
    for when in ("fit", "test"):
        first, second = (ended[launcher].told(f"{when}-{rank}") for rank in range(2))
        assert (second["threads"], second["folders"]) == ([], [])
        assert "mantik-shipper" in first["threads"]
        assert len(first["folders"]) == 1


def test_the_console_hears_of_the_run_once(ended: dict[str, Ended]) -> None:
    """One line at the start and one receipt at the end, from the first rank alone, whatever starts the processes."""
    assert lines(ended["torchrun"].printed(1)) == []
    for output in (ended["torchrun"].printed(0), ended["ddp"].output):
        said = [line for line in lines(output) if line.startswith("mantik: ")]
        assert re.fullmatch(r"mantik: run '[\w-]+' begins: http://\S+", said[0])
        assert "(FINISHED): " in said[1]
        assert len(said) == 2, said
    for launcher in ("ddp_spawn", "ddp_fork"):
        said = [line for line in lines(ended[launcher].output) if line.startswith("mantik: ")]
        assert "begins: " in said[0]
        # One of the process that has fitted, and one of the process that has tested.
        assert [" begins: " in line for line in said].count(True) == 1
        assert ["(FINISHED): " in line for line in said].count(True) == len(said) - 1 == 2


@pytest.mark.parametrize("launcher", ["torchrun", "ddp_spawn", "ddp_fork"])
@pytest.mark.parametrize("death", DEATHS)
def test_a_rank_that_dies_fails_the_run(
    death: str, launcher: str, ended: dict[str, Ended], mantik_platform: Platform
) -> None:
    """The run is FAILED when another rank is killed or raises, although the first is ended by a signal or in its wake.

    What was logged until then is there, as is the checkpoint.
    """
    over = ended[f"{launcher}-{death}"]
    assert over.exit_code == 1, over.output
    run = the_run(mantik_platform, f"{launcher}-{death}")
    assert run.status == "FAILED", over.output + over.printed(0)
    assert numbers(mantik_platform, run) == [(step, float(step)) for step in range(5)]
    held = mantik_platform.read_back.artifacts(run.run_id)
    assert [path for path in held if path.endswith(".ckpt")] == ["checkpoints/epoch=0-step=4/epoch=0-step=4.ckpt"]


def test_a_job_that_is_terminated_is_killed(ended: dict[str, Ended], mantik_platform: Platform) -> None:
    """SIGTERM for torchrun, which passes it on to all ranks, makes the run KILLED and not FAILED."""
    over = ended["terminated"]
    assert over.exit_code != 0
    run = the_run(mantik_platform, "terminated")
    assert run.status == "KILLED", over.printed(0)
    assert numbers(mantik_platform, run) == [(step, float(step)) for step in range(6)]


@pytest.mark.parametrize("name", ["ddp_spawn-in-a-run", "ddp_fork-in-a-run", "ddp_fork-in-a-run-fails"])
def test_a_run_of_the_user_is_ended_by_the_user(name: str, ended: dict[str, Ended], mantik_platform: Platform) -> None:
    """Training inside of a run is a part of it, and neither its end nor its failure in other processes ends the run."""
    over = ended[name]
    assert over.exit_code == 0, over.output
    assert "STATUS RUNNING" in over.output
    run = the_run(mantik_platform, name)
    assert (run.name, run.status) == ("mine", "FINISHED")
    assert numbers(mantik_platform, run) == [(step, float(step)) for step in range(5 if "fails" in name else 8)]
    assert run.metrics["after"] == 1.0
    assert " begins: " not in over.output


def test_other_ranks_may_log_metrics(ended: dict[str, Ended], mantik_platform: Platform) -> None:
    """With rank_metrics=True what another rank has computed is in the same run, under its rank."""
    over = ended["metrics-of-ranks"]
    assert over.exit_code == 0, over.output
    run = the_run(mantik_platform, "metrics-of-ranks")
    assert numbers(mantik_platform, run) == [(step, float(step)) for step in range(8)]
    assert numbers(mantik_platform, run, "rank_1/number") == [(step, 100.0 + step) for step in range(8)]
    assert run.status == "FINISHED"


@pytest.mark.parametrize("launcher", ["ddp", "ddp_fork"])
def test_nobody_waits_for_a_run_that_is_refused(
    launcher: str, ended: dict[str, Ended], mantik_platform: Platform
) -> None:
    """If the first rank cannot have its run, the user reads why, and the job ends."""
    over = ended[f"{launcher}-refused"]
    assert over.exit_code == 1, over.output
    assert f"The run {_NOBODY!r} is not on the platform" in over.output
    assert mantik_platform.read_back.runs(f"processes-{launcher}-refused") == []
