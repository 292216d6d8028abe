"""A fitted estimator as an MLflow model that can be loaded and served."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING

import cloudpickle
import mlflow
import mlflow.sklearn
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from mantik.integrations.sklearn.attempt import attempted
from mantik.integrations.sklearn.quiet import quiet_here
from mantik.integrations.sklearn.requirements import modules_of, requirements_of, unpublished
from mantik.integrations.sklearn.signature import example_of, signature_of
from mantik.training.boundary import extra
from mantik.training.names import mapped

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.models import ModelSignature
    from sklearn.base import BaseEstimator

    from mantik.integrations.sklearn.data import Data
    from mantik.integrations.sklearn.options import Options

__all__ = ["log_model"]

_logger = logging.getLogger(__name__)

_MOST_SKOPS_BYTES = 32 * 2**20
"""Of a model that is tried with skops, which is written, read and checked in memory."""

_TRUSTED = frozenset({"sklearn", "numpy", "scipy"})
"""Modules some of whose types skops trusts by itself; of others it trusts none."""

_REFUSED = re.compile("[/:.%\"']")
"""Characters that the name of a logged model must not have (MLflow, `utils/validation.py`)."""

_MOST_CHARACTERS = 6_000
"""Of a param of a model, as of a run."""

_NEVER_BY_VALUE = frozenset({"mantik", "mlflow", "numpy", "pandas", "scipy", "sklearn"})
"""Modules that are by no means the user's own, also where a developer has installed them from a folder."""

_registry = threading.Lock()
"""For what cloudpickle takes along, which is one list for all threads."""

_DESCRIBING_TAGS = ("mlflow.user", "mlflow.source.", "mlflow.git")
"""Beginnings of the tags that a model has in common with its run."""


def log_model(  # noqa: PLR0913, PLR0917  # what makes a model
    estimator: BaseEstimator, data: Data, run_id: str, name: str, options: Options, params: Mapping[str, str]
) -> str | None:
    """Log a fitted estimator as a model of a run, which may have ended and need not be the active one.

    ``mlflow.sklearn.load_model("runs:/<run_id>/<name>")`` loads it, and so does `mlflow.pyfunc.load_model` where it can
    `predict`. Where that fails there is one warning, and no model. MLflow's active run, the run's status and the
    estimator stay as they are. Any thread may call.

    With the format ``auto`` the model is written with skops, which executes no code when it is loaded, if skops trusts
    all types in it and reads it back; else with cloudpickle. Reading back costs as much again as writing, so it is done
    only with skops, which builds objects in its own way and refuses some, and only of models up to 32 MiB. What
    cloudpickle has written, Python itself reads back. Classes and functions of a script, a notebook or a module that is
    not on any index travel with the model.

    Args:
        estimator: The estimator, fitted.
        data: What it was fitted to, for signature and example.
        run_id: The run.
        name: What the model is called. MLflow 3 allows fewer characters than MLflow 2, where it is a path; a hyphen
            takes the place of those that it does not allow, of which the slash is one.
        options: What the user asked for.
        params: The params of the model, with MLflow 3.

    Returns:
        The id of the logged model; None with MLflow 2, which has none, and where there is no model.
    """
    kind = type(estimator).__name__
    model_id = None
    with quiet_here(), extra(f"The model of {kind} is not logged", strict=False):
        client = mlflow.MlflowClient()
        with TemporaryDirectory(prefix="mantik-") as folder:
            # The whole of it before MLflow is told of a model, so that there is none which has no files.
            path, model = _save(estimator, data, options, Path(folder))
            run = client.get_run(run_id)
            if hasattr(client, "create_logged_model"):
                logged = _begin(client, run, name, params)
                _log(client, path, model, run_id, logged)
                model_id = logged.model_id
                source = f"models:/{model_id}"
            else:
                _log_as_artifacts(client, path, model, run, name)
                source = f"{run.info.artifact_uri}/{name}"
        registered = options.registered_model_name
        if registered is not None:
            with extra(f"The model of {kind} is no version of {registered}", strict=False):
                _register(client, registered, source, run_id, model_id)
    return model_id


def _begin(client: MlflowClient, run: Run, name: str, params: Mapping[str, str]) -> LoggedModel:
    return client.create_logged_model(
        run.info.experiment_id,
        name=_REFUSED.sub("-", name),
        source_run_id=run.info.run_id,
        tags={key: value for key, value in run.data.tags.items() if key.startswith(_DESCRIBING_TAGS)},
        params={mapped(key): value[:_MOST_CHARACTERS] for key, value in params.items()},
    )


def _log(client: MlflowClient, path: Path, model: Model, run_id: str, logged: LoggedModel) -> None:
    """Log a saved model as MLflow 3 does."""
    from mlflow.entities import LoggedModelOutput

    model_id = logged.model_id
    try:
        model.run_id, model.model_id, model.model_uuid = run_id, model_id, model_id
        model.artifact_path = logged.artifact_location
        model.save(path / "MLmodel")
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
        client.log_model_artifacts(model_id, str(path))
    except Exception:
        client.finalize_logged_model(model_id, "FAILED")
        raise
    client.finalize_logged_model(model_id, "READY")


def _log_as_artifacts(client: MlflowClient, path: Path, model: Model, run: Run, name: str) -> None:
    """Log a saved model as MLflow 2 does."""
    model.run_id, model.artifact_path = run.info.run_id, name
    model.save(path / "MLmodel")
    client.log_artifacts(run.info.run_id, str(path), name)
    # By this the page of the run shows that there is a model among its artifacts.
    client._record_logged_model(run.info.run_id, model)  # noqa: SLF001  # MLflow has no public call for it


def _register(client: MlflowClient, name: str, source: str, run_id: str, model_id: str | None) -> None:
    """Make a model a version of a registered one, without the lines that MLflow's fluent function prints."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if model_id is None:
        client.create_model_version(name, source, run_id, await_creation_for=0)
        return
    version = client.create_model_version(name, source, await_creation_for=0, model_id=model_id)
    versions = [{"name": name, "version": version.version}]
    # By this the page of the model shows where it is registered.
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": json.dumps(versions)})


def _save(estimator: BaseEstimator, data: Data, options: Options, folder: Path) -> tuple[Path, Model]:
    """Write a model into a folder, in the format that was asked for; return where, and what MLflow knows of it."""
    kind = type(estimator).__name__
    signature, example = None, None
    if options.log_model_signatures:
        with extra(f"The model of {kind} has no signature", strict=False):
            signature = signature_of(estimator, data)
    if options.log_input_examples:
        with extra(f"The model of {kind} has no input example", strict=False):
            example = example_of(data)
    writer = _Writer(estimator, data.features, signature, modules_of(estimator), folder)
    if example is not None:
        # MLflow finds out while it writes that it cannot keep an example.
        saved = attempted(lambda: writer.write(options.serialization_format, example))
        if saved is not None:
            return saved
    saved = writer.write(options.serialization_format, None)
    if example is not None:
        _logger.warning("The model of %s has no input example, because MLflow cannot keep the data as JSON.", kind)
    return saved


class _Writer:
    """Writes a model in one format or another, each time into a new folder."""

    def __init__(
        self,
        estimator: BaseEstimator,
        features: object,
        signature: ModelSignature | None,
        modules: Collection[str],
        folder: Path,
    ) -> None:
        self._estimator = estimator
        self._features = features
        self._signature = signature
        self._modules = modules
        self._own = unpublished(modules)
        self._folder = folder

    def write(self, form: str, example: object) -> tuple[Path, Model]:
        """Write it."""
        if form == "cloudpickle":
            return self._with_own_modules(example)
        if form != "auto":
            return self._with_reference(form, example)
        saved = self._with_own_modules(example)
        if self._may_be_skops(saved[0]):
            # MLflow reads back what it writes with skops, and trusts nothing then but what skops does by itself.
            # Whatever is wrong with that or with skops, there is a model already.
            return attempted(lambda: self._written("skops", example)) or saved
        return saved

    def _with_own_modules(self, example: object) -> tuple[Path, Model]:
        """Write it together with the modules that no index has, or without them where they cannot be pickled."""
        travelling = [root for root in self._own if root not in _NEVER_BY_VALUE and root in sys.modules]
        if travelling:
            with _by_value(travelling):
                saved = attempted(lambda: self._written("cloudpickle", example))
            if saved is not None:
                return saved
        return self._with_reference("cloudpickle", example)

    def _with_reference(self, form: str, example: object) -> tuple[Path, Model]:
        saved = self._written(form, example)
        if self._own:
            _logger.warning(
                "The model of %s can be loaded only where Python finds %s, which no package index has.",
                type(self._estimator).__name__,
                " and ".join(self._own),
            )
        return saved

    def _written(self, form: str, example: object) -> tuple[Path, Model]:
        if form == "skops":
            _import_skops()
        place = Path(mkdtemp(dir=self._folder))
        model = Model(metadata={"mantik.unpublished_modules": self._own} if self._own else None)
        mlflow.sklearn.save_model(
            self._estimator,
            str(place),
            mlflow_model=model,
            serialization_format=form,
            # None would have MLflow find one by itself.
            signature=False if self._signature is None else self._signature,
            input_example=example,
            pip_requirements=requirements_of(self._estimator, serializer=form, features=self._features),
        )
        return place, model

    def _may_be_skops(self, saved: Path) -> bool:
        """Tell whether it is worth the time to try skops."""
        supported = getattr(mlflow.sklearn, "SUPPORTED_SERIALIZATION_FORMATS", ())
        if "skops" not in supported or find_spec("skops") is None:
            return False
        return _TRUSTED.issuperset(self._modules) and (saved / "model.pkl").stat().st_size <= _MOST_SKOPS_BYTES


@contextlib.contextmanager
def _by_value(roots: Iterable[str]) -> Iterator[None]:
    """Have cloudpickle take along what is defined in some modules, as it does with that of a script."""
    with _registry:
        before = cloudpickle.list_registry_pickle_by_value()
        modules = [sys.modules[root] for root in roots if root not in before]
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in modules:
                cloudpickle.unregister_pickle_by_value(module)


def _import_skops() -> None:
    """Import skops, which looks through all packages of scikit-learn, and so would import torch where it is installed.

    That takes seconds and hundreds of megabytes. Who computes with torch has imported it before.
    """
    name = "sklearn.externals.array_api_compat.torch"
    is_kept_out = "torch" not in sys.modules and name not in sys.modules
    if is_kept_out:
        # Python's own sign for a module that must not be imported.
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        import skops.io  # type: ignore[import-untyped]  # noqa: F401
    finally:
        if is_kept_out:
            sys.modules.pop(name, None)
