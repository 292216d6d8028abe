"""The Lightning logger: translates what a Trainer says into a run on the platform."""

from __future__ import annotations

import html
import logging
import os
from argparse import Namespace  # noqa: TC003  # read at run time by jsonargparse
from typing import TYPE_CHECKING, Any, Literal

import mlflow
import torch  # noqa: TC002  # the same

from mantik.exceptions import ConfigurationError
from mantik.integrations.lightning.media import MediaMethods
from mantik.integrations.lightning.model import ModelRecorder
from mantik.integrations.lightning.namespace import chosen, rank, register
from mantik.integrations.lightning.session import Session
from mantik.integrations.lightning.watch import Watch
from mantik.training.checkpoints import is_artifact_folder
from mantik.training.params import as_yaml, named
from mantik.training.request import RunRequest
from mantik.training.values import flat_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.loggers import MLFlowLogger
    from mlflow import MlflowClient
else:
    MLFlowLogger = chosen().loggers.MLFlowLogger

__all__ = ["MantikLogger"]

_logger = logging.getLogger(__name__)

_LOG_MODEL_WORDS = (False, True, "all")


class MantikLogger(MediaMethods, MLFlowLogger):
    """Tracks the trainings of a Lightning ``Trainer`` on the platform.

    ``Trainer(logger=MantikLogger())`` is all it takes. Metrics, hyper-parameters, checkpoints and the true status of
    the run are on disk before each call returns and reach the platform by themselves: no outage, no expired token and
    no kill loses one, and none stops the training. It is made for both packages, ``lightning.pytorch`` and
    ``pytorch_lightning``, takes all arguments of Lightning's ``MLFlowLogger`` and passes for one.

    Making one does nothing: login and run come with its first use, on rank zero alone. Settings that are left out are
    looked up then, from the environment or ``mlflow.set_experiment``.

    Args:
        experiment_name: Experiment of the run, created if there is none of this name. Default: that of
            ``mlflow.set_experiment``, ``MLFLOW_EXPERIMENT_NAME`` or ``MLFLOW_EXPERIMENT_ID``, else MLflow's default.
        run_name: Name of the run. Default: one that MLflow makes up.
        tracking_uri: Platform to track to. Default: ``MLFLOW_TRACKING_URI``, or where ``mantik login`` logged in.
        tags: Tags of the run.
        save_dir: Local folder under which each run gets a folder of its own for checkpoints:
            ``<save_dir>/<experiment id>/<run id>/checkpoints``. Default: ``lightning_logs`` in the Trainer's
            ``default_root_dir``.
        log_model: Which checkpoints are uploaded: none (``False``), those that are there at the end of a ``fit``
            (``True``), or each as it appears (``"all"``). With ``save_top_k=-1`` they are uploaded as they appear with
            ``True``, too. What the callback deletes locally is deleted on the platform.
        prefix: Put before the names of all metrics, with a ``-`` between.
        artifact_location: Where a new experiment keeps its artifacts. Default: the platform's choice.
        run_id: Run to go on with. Default: ``MLFLOW_RUN_ID``, or see `resume`.
        synchronous: Accepted for the sake of ``MLFlowLogger``, and without effect: no call waits for the network.
        experiment_id: Experiment of the run, by its id.
        description: Description of the run, in Markdown.
        resume: When an earlier run is gone on with. ``"auto"``: with that of the checkpoint in ``fit(ckpt_path=...)``,
            or of the earlier attempt of a requeued Slurm job; ``"allow"``: besides, a `run_id` that does not exist is
            replaced by a new run; ``"must"``: it is an error if there is none; ``"never"``: each is a new run.
        checkpoint_name: Artifact folder of the checkpoints.
        log_config: Keep all hyper-parameters, whole, as the artifact ``hparams.yaml``.
        system_metrics: Record use of processors, memory, disk, network and GPUs. Default: MLflow's setting
            (``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING``).
        strict: Raise what goes wrong with tracking instead of letting the training go on.
        mlflow_model: Log the module after each ``fit`` as the MLflow model ``model``, which
            ``mlflow.pytorch.load_model`` loads, with a signature from the first batch.
        rank_metrics: Let each other rank log the metrics that it computes itself, as ``rank_1/loss`` and so on.

    Raises:
        ConfigurationError: An argument is none of its possible values, or two contradict each other.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # MLFlowLogger's arguments, in its order, and some more
        self,
        experiment_name: str | None = None,
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: dict[str, Any] | None = None,
        save_dir: str | os.PathLike[str] | None = None,
        log_model: Literal[True, False, "all"] = False,  # noqa: FBT002
        prefix: str = "",
        artifact_location: str | None = None,
        run_id: str | None = None,
        synchronous: bool | None = None,  # noqa: FBT001
        experiment_id: str | None = None,
        description: str | None = None,
        resume: Literal["auto", "allow", "must", "never"] = "auto",
        checkpoint_name: str = "checkpoints",
        log_config: bool = True,  # noqa: FBT001, FBT002
        system_metrics: bool | None = None,  # noqa: FBT001
        strict: bool = False,  # noqa: FBT001, FBT002
        mlflow_model: bool = False,  # noqa: FBT001, FBT002
        rank_metrics: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        del synchronous
        if not any(log_model is word or log_model == word == "all" for word in _LOG_MODEL_WORDS):
            raise ConfigurationError(f"log_model is {log_model!r}, which is none of: False, True, 'all'.")
        if not is_artifact_folder(checkpoint_name):
            raise ConfigurationError(
                f"checkpoint_name is {checkpoint_name!r}, which is no artifact folder. Expected is a name or a path "
                f"such as 'weights/fine', without # % ? \\ : * \" < > |."
            )
        request = RunRequest(
            experiment_name=experiment_name,
            experiment_id=None if experiment_id is None else str(experiment_id),
            run_name=run_name,
            run_id=run_id or None,
            tags=tags,
            description=description,
            tracking_uri=tracking_uri,
            artifact_location=artifact_location,
            resume=resume,
            system_metrics=system_metrics,
            strict=strict,
        )
        base = None if save_dir is None else os.fspath(save_dir)
        self._session = Session(request, base, log_model, checkpoint_name)
        self.tags = tags
        self._prefix = prefix
        self._log_config = log_config
        self._rank_metrics = rank_metrics
        self._recorder = ModelRecorder() if mlflow_model else None
        self._watches: list[Watch] = []
        self._hyperparameters: dict[str, Any] = {}
        self._step = 0
        register(type(self))

    @property
    def experiment(self) -> MlflowClient:
        """MLflow's client, logged in, for whatever this class has no method for; on other ranks one that does nothing.

        For example ``self.logger.experiment.set_tag(self.logger.run_id, "reviewed", "yes")``.
        """
        if rank() > 0:
            dummy: MlflowClient = chosen().loggers.logger.DummyExperiment()
            return dummy
        self._session.open_while_running()
        return self._session.run.client

    @property
    def run_id(self) -> str | None:
        """Id of the run, which is begun for it on rank zero; the same on all ranks once the Trainer has set up."""
        self._session.know()
        return self._session.run.run_id

    @property
    def experiment_id(self) -> str | None:
        """Id of the run's experiment; otherwise as `run_id`."""
        self._session.know()
        return self._session.run.experiment_id

    @property
    def name(self) -> str | None:
        """Id of the experiment, as in ``MLFlowLogger``."""
        return self.experiment_id

    @property
    def version(self) -> str | None:
        """Id of the run, as in ``MLFlowLogger``."""
        return self.run_id

    @property
    def root_dir(self) -> str:
        """Local folder under which the runs have theirs."""
        return str(self._session.root)

    @property
    def save_dir(self) -> str | None:
        """Local folder of this run's files, ``<root_dir>/<experiment id>/<run id>``; a later attempt has one within it.

        Before the first Trainer begins it is `root_dir`; None on other ranks than zero until one has set up.
        """
        if self.run_id is None:
            return None
        if not self._session.has_met:
            # With fit(ckpt_path="last") a Trainer looks in <save_dir>/<name>/<version>/checkpoints before it begins.
            return self.root_dir
        folder, attempt = self._session.folder, self._session.run.attempt
        # What a resumed training writes beside its checkpoints does not meet that of the attempt before.
        return str(folder if attempt == 1 else folder / f"attempt_{attempt}")

    @property
    def log_dir(self) -> str | None:
        """The same as `save_dir`."""
        return self.save_dir

    @property
    def link(self) -> str:
        """Address of the run's page on the platform; empty before there is one."""
        return self._session.run.link

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record one point of each metric.

        Args:
            metrics: Numbers, tensors or arrays of one element, by name; nested mappings are joined with ``/``. Names
                that MLflow cannot hold are mapped, each to one of its own, and kept in a tag.
            step: Their step. Default: that of the last call.

        Raises:
            InvalidValueError: A value is no number; nothing of this call is recorded then.
        """
        mine = rank()
        if mine > 0 and not (self._rank_metrics and self._session.run.run_id is not None):
            return
        numbers = flat_metrics(metrics, self._prefix, self.LOGGER_JOIN_CHAR)
        if mine > 0:
            numbers = {f"rank_{mine}/{name}": value for name, value in numbers.items()}
        if step is not None:
            self._step = int(step)
        if numbers:
            self._session.writer.log_metrics(numbers, self._step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Record hyper-parameters: nested ones are joined with ``/``, long values are kept whole in ``hparams.yaml``.

        What a resumed run has already with another value is recorded as drift, in the tag ``mantik.param_drift`` and an
        artifact, and is no error.

        Args:
            params: A mapping, namespace or dataclass.
            *args: Ignored, as other loggers take more.
            **kwargs: The same.
        """
        del args, kwargs
        if rank() > 0:
            return
        self._session.writer.log_params(params)
        if self._log_config:
            self._hyperparameters.update(named(params))
            self._session.documents.write_configuration("hparams.yaml", as_yaml(self._hyperparameters))

    def log_graph(self, model: torch.nn.Module, input_array: torch.Tensor | None = None) -> None:
        """Record which layers a model has, as the artifact ``model_summary.txt``; a Trainer calls it by itself.

        Args:
            model: The module.
            input_array: Not needed.
        """
        del input_array
        if rank() > 0 or not hasattr(model, "example_input_array"):
            return
        module: Any = model
        example, module.example_input_array = module.example_input_array, None
        try:
            # Without an example: with one, a summary calls the user's forward, and an error in there would leave the
            # module in evaluation mode.
            text = str(chosen().utilities.model_summary.summarize(module, max_depth=-1))
        finally:
            module.example_input_array = example
        self._session.know()
        self._session.documents.write("model_summary.txt", text + "\n")

    def watch(
        self, model: torch.nn.Module, log: Literal["gradients", "parameters", "all"] = "gradients", log_freq: int = 100
    ) -> None:
        """Log norm, mean and deviation of gradients or parameters, tensor by tensor and all together.

        Args:
            model: The module, or a part of it.
            log: What of it.
            log_freq: Every how many optimizer steps.

        Raises:
            ConfigurationError: It is no module, or a value is none of those possible.
        """
        self._watches.append(Watch(model, log, log_freq))

    def unwatch(self, model: torch.nn.Module) -> None:
        """Watch a module no more."""
        self._watches = [watch for watch in self._watches if watch.model is not model]

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:  # noqa: ANN401  # a weak reference to one
        """Take note of a checkpoint, and upload it where that is wanted during training."""
        if rank() == 0:
            self._session.take_checkpoint(checkpoint_callback)

    def save(self) -> None:
        """Do nothing: what was logged is on disk already."""

    def finalize(self, status: str = "success") -> None:
        """End the run with its true status, and then upload the checkpoints that are wanted at the end.

        A run that a later ``test`` or ``fit`` goes on with is opened again.

        Args:
            status: Lightning's word: ``success``; ``failed`` for errors, Ctrl-C and signals alike; ``finished`` when a
                Slurm job is about to be requeued, which leaves the run open.
        """
        if rank() == 0:
            self._session.finish(status)

    def __repr__(self) -> str:
        """Show which run it is, as far as that is known."""
        run = self._session.run
        return f"{type(self).__name__}(run_id={run.run_id!r}, experiment_id={run.experiment_id!r})"

    def _repr_html_(self) -> str:
        text = html.escape(repr(self))
        return f'<a href="{html.escape(self.link)}" target="_blank" rel="noopener">{text}</a>' if self.link else text

    @property
    def _tracking_uri(self) -> str:  # type: ignore[override]  # looked up when used
        """What ``MLFlowLogger`` calls so."""
        return self._session.run.request.tracking_uri or mlflow.get_tracking_uri()

    @property
    def _mlflow_client(self) -> MlflowClient:  # type: ignore[override]
        """What ``MLFlowLogger`` calls so."""
        return self._session.run.client

    @property
    def _initialized(self) -> bool:  # type: ignore[override]
        """What ``MLFlowLogger`` calls so."""
        return self._session.run.run_id is not None

    # What the Trainer's callback tells.

    def _begin_training(self, module: LightningModule) -> None:
        if self._recorder is not None and rank() == 0:
            self._recorder.begin(module)

    def _look(self, trainer: Trainer) -> None:
        if not self._watches or rank() > 0:
            return
        step = trainer.global_step
        for watch in self._watches:
            if step % watch.log_freq == 0:
                self.log_metrics(watch.metrics(), step)

    def _end_training(self, module: LightningModule) -> None:
        if self._recorder is None or rank() > 0:
            return
        try:
            self._recorder.log(module, self._step)
        except Exception as error:
            # A module that cannot be pickled is found out here, after days of training: those are kept.
            if self._session.run.request.strict:
                raise
            _logger.warning("The module cannot be logged as an MLflow model: %s", error)
