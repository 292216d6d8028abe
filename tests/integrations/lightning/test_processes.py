"""Trainings of several processes: one run, whoever starts them, however they end."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from mantik.testing import FaultProxy
from mantik.testing.processes import end_groups

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from _pytest.mark.structures import ParameterSet

    from mantik.testing import Platform
    from mantik.testing.holdings import Run
    from tests.integrations.trainings import Training

    from .trainings import LightningTrainings

_AT_A_TIME = 3
# Each rank's output goes into a file of its own.
_TORCHRUN = ("--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--log-dir=ranks", "-r=3")

NOBODY = "0" * 32

TRAINING = '''
"""A script for torchrun and Lightning, and a module for processes that are spawned."""

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
        Path(f"at-{self.global_rank}").touch()
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


def fit_test_and_be_refused(strategy):
    fit_and_test(strategy)
    fit(strategy, run_id="NOBODY")


def fit_test_and_be_terminated(strategy):
    fit_and_test(strategy)
    fit(strategy, "waits_for_sigterm", experiment_name="processes-terminated")


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
'''.replace("NOBODY", NOBODY)


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
    """

    launcher: str
    function: str = "fit"
    arguments: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_terminated(self) -> bool:
        """Whether SIGTERM is sent to the first process when both ranks wait for it."""
        return self.function == "fit_test_and_be_terminated"

    def code(self, script: Path) -> str:
        """Return what is run: the launcher, or at once the script."""
        strategy = "ddp" if self.launcher == "torchrun" else self.launcher
        call = [str(script), self.function, strategy, *self.arguments]
        begin = f"os.setsid()\nsys.path.insert(0, {str(script.parent)!r})\n"
        if self.launcher == "torchrun":
            return f"{begin}from torch.distributed.run import main\nmain({[*_TORCHRUN, *call]!r})"
        return f"{begin}sys.argv = {call!r}\nimport training\ntraining.{self.function}(*{call[2:]!r})"


CASES = {
    "torchrun": Case("torchrun", "fit_test_and_be_terminated"),
    "ddp": Case("ddp", "fit_test_and_be_refused"),
    "ddp_spawn": Case("ddp_spawn", "fit_and_test"),
    "ddp_fork": Case("ddp_fork", "fit_and_test"),
    **{
        f"{launcher}-{death}": Case(launcher, arguments=(death,))
        for death in DEATHS
        for launcher in ("torchrun", "ddp_spawn", "ddp_fork")
    },
    "ddp_spawn-in-a-run": Case("ddp_spawn", "fit_in_a_run", ("second_raises",)),
    "ddp_fork-in-a-run": Case("ddp_fork", "fit_in_a_run"),
    "ddp_fork-in-a-run-fails": Case("ddp_fork", "fit_in_a_run", ("second_raises",)),
    "offline": Case("ddp_fork", "fit_and_test", settings={"MANTIK_MODE": "offline"}),
    "ranks": Case("ddp_fork", "fit_with_metrics_of_ranks"),
    "refused": Case("ddp_fork", settings={"MLFLOW_RUN_ID": NOBODY}),
}


# Each of their processes imports all of Lightning anew, unlike those of "ddp_fork".
LONG = {"torchrun-second_raises", "ddp_spawn-second_is_killed", "ddp_spawn-second_raises", "ddp_spawn-in-a-run"}


def cases(*names: str) -> list[ParameterSet]:
    """Return cases as parameters."""
    return [pytest.param(name, marks=pytest.mark.thorough if name in LONG else ()) for name in names]


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


@pytest.fixture(scope="module")
def proxy(mantik_platform: Platform) -> Iterator[FaultProxy]:
    """Stand in front of the platform, to count requests."""
    with FaultProxy(mantik_platform.url) as standing:
        yield standing


@pytest.fixture(scope="module")
def ended(
    trainings: LightningTrainings,
    mantik_platform: Platform,
    proxy: FaultProxy,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Ended]:
    """Run all cases to their ends, a few at a time."""
    home = tmp_path_factory.mktemp("processes")
    script = home / "training.py"
    script.write_text(TRAINING)
    environment = {**mantik_platform.environment(), "MLFLOW_TRACKING_URI": proxy.url}
    over: dict[str, Ended] = {}
    started: list[Training] = []
    names = [name for name in CASES if name not in LONG or os.environ.get("THOROUGH") == "1"]
    try:
        for few in (names[begin : begin + _AT_A_TIME] for begin in range(0, len(names), _AT_A_TIME)):
            for name in few:
                # The experiment of a case has its name.
                own = {"MLFLOW_EXPERIMENT_NAME": f"processes-{name}", "PYTHONPATH": str(home)}
                settings = {**environment, **own, **CASES[name].settings}
                started.append(trainings.start(CASES[name].code(script), settings, home / name))
            for name, training in zip(few, started[-len(few) :], strict=True):
                if CASES[name].is_terminated:
                    training.reach("0")
                    training.reach("1")
                    os.kill(training.pid, signal.SIGTERM)
                output = training.end(None)
                assert training.exit_code is not None
                over[name] = Ended(training.exit_code, output, home / name)
    finally:
        end_groups(training.pid for training in started)
    trainings.sync(environment, home / "offline")
    return over


def the_run(platform: Platform, name: str) -> Run:
    """Return the one run of a case."""
    (run,) = platform.read_back.runs(f"processes-{name}")
    return run


def numbers(platform: Platform, run: Run, key: str = "number") -> list[tuple[int, float]]:
    """Return steps and values of a metric, in the order in which they were recorded."""
    return [(point.step, point.value) for point in platform.read_back.metric_history(run.run_id, key)]


def lines(output: str) -> list[str]:
    """Return what mantik has said in an output, of which Python's errors are no part."""
    return [line for line in output.splitlines() if line.startswith("mantik: ")]


@pytest.mark.parametrize("launcher", [*LAUNCHERS, "offline"])
def test_all_processes_are_one_run(
    launcher: str, ended: dict[str, Ended], mantik_platform: Platform, proxy: FaultProxy
) -> None:
    """A fit and a test of two processes are one run: each step of a metric once, each checkpoint uploaded once."""
    over = ended[launcher]
    assert over.exit_code == (launcher in {"torchrun", "ddp"}), over.output + over.printed(0) + over.printed(1)
    run = the_run(mantik_platform, launcher)
    assert run.status == "FINISHED"
    assert run.tags["mantik.attempt"] == "1"
    assert run.params == {"end": "goes_on"}
    assert numbers(mantik_platform, run) == [(step, float(step)) for step in range(8)]
    assert [value for _, value in numbers(mantik_platform, run, "tested")] == [1.0]
    (checkpoint,) = [path for path in mantik_platform.read_back.artifacts(run.run_id) if path.endswith(".ckpt")]
    (file,) = (over.folder / over.told("fit-0")["known"][2]).rglob("*.ckpt")
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
    assert folders == [f"root/lightning_logs/{experiment_id}/{run_id}"] * 3


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
    assert "mantik: " not in ended["torchrun"].printed(1)
    assert "View run" not in ended["torchrun"].printed(1)
    for output, ends in (
        (ended["ddp"].output, ["FINISHED"]),
        (ended["torchrun"].printed(0), ["FINISHED", "KILLED"]),
        # A receipt of each process that has written.
        (ended["ddp_spawn"].output, ["FINISHED"] * 2),
        (ended["ddp_fork"].output, ["FINISHED"] * 2),
    ):
        said = lines(output)
        assert re.fullmatch(r"mantik: run '[\w-]+' begins: http://\S+/runs/\w+", said[0])
        receipts = [line for line in said if " begins: " not in line]
        assert [re.sub(r".*\((\w+)\): .*", r"\1", line) for line in receipts] == ends
        assert len(said) == len(receipts) + (2 if "KILLED" in ends else 1)


@pytest.mark.parametrize("name", cases(*(name for name in CASES if name.endswith(DEATHS))))
def test_a_rank_that_dies_fails_the_run(name: str, ended: dict[str, Ended], mantik_platform: Platform) -> None:
    """The run is FAILED when another rank is killed or raises, although the first is ended by a signal or in its wake.

    What was logged until then is there, as is the checkpoint.
    """
    over = ended[name]
    assert over.exit_code == 1, over.output
    run = the_run(mantik_platform, name)
    assert run.status == "FAILED", over.output + over.printed(0)
    assert numbers(mantik_platform, run) == [(step, float(step)) for step in range(5)]
    held = mantik_platform.read_back.artifacts(run.run_id)
    assert [path for path in held if path.endswith(".ckpt")] == ["checkpoints/epoch=0-step=4/epoch=0-step=4.ckpt"]


def test_a_job_that_is_terminated_is_killed(ended: dict[str, Ended], mantik_platform: Platform) -> None:
    """SIGTERM for torchrun, which passes it on to all ranks, makes the run KILLED and not FAILED."""
    run = the_run(mantik_platform, "terminated")
    assert run.status == "KILLED", ended["torchrun"].output + ended["torchrun"].printed(0)
    assert numbers(mantik_platform, run) == [(step, float(step)) for step in range(6)]


@pytest.mark.parametrize("name", cases("ddp_spawn-in-a-run", "ddp_fork-in-a-run", "ddp_fork-in-a-run-fails"))
def test_a_run_of_the_user_is_ended_by_the_user(name: str, ended: dict[str, Ended], mantik_platform: Platform) -> None:
    """Training in a run of the user's is a part of it, and whether it succeeds or fails, the run goes on."""
    over = ended[name]
    assert over.exit_code == 0, over.output
    assert "STATUS RUNNING" in over.output
    run = the_run(mantik_platform, name)
    assert (run.name, run.status) == ("mine", "FINISHED")
    logged = 5 if CASES[name].arguments else 8
    assert numbers(mantik_platform, run) == [(step, float(step)) for step in range(logged)]
    assert run.metrics["after"] == 1.0
    assert " begins: " not in over.output


def test_other_ranks_may_log_metrics(ended: dict[str, Ended], mantik_platform: Platform) -> None:
    """With rank_metrics=True what another rank has computed is in the same run, under its rank."""
    over = ended["ranks"]
    assert over.exit_code == 0, over.output
    run = the_run(mantik_platform, "ranks")
    assert numbers(mantik_platform, run) == [(step, float(step)) for step in range(8)]
    assert numbers(mantik_platform, run, "rank_1/number") == [(step, 100.0 + step) for step in range(8)]
    assert run.status == "FINISHED"


@pytest.mark.parametrize("name", ["ddp", "refused"])
def test_nobody_waits_for_a_run_that_is_refused(name: str, ended: dict[str, Ended], mantik_platform: Platform) -> None:
    """If the first rank cannot have its run, the user reads why, and the job ends."""
    over = ended[name]
    assert over.exit_code == 1, over.output
    assert f"The run {NOBODY!r} is not on the platform" in over.output
    assert len(mantik_platform.read_back.runs(f"processes-{name}")) == (name == "ddp")
