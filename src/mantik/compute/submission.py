"""What is to be submitted, checked as a whole before anything is sent."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mantik.compute.archive import Archive
from mantik.compute.backend_config import BackendConfig
from mantik.compute.document import mapping_in, read_mapping
from mantik.compute.exclude import Exclusion
from mantik.compute.home import at_home
from mantik.compute.mistakes import Mistakes, shown
from mantik.compute.mlproject import Project
from mantik.compute.resources import Resources
from mantik.compute.tree import survey

if TYPE_CHECKING:
    from mantik.compute.tree import Tree

__all__ = ["Submission"]

_OUTSIDE = ".mantik/backend-config"
"""Where a configuration that is no file of the project is in the archive: no project has such a folder, because it is
left out by default."""

_SUFFIXES = (".json", ".yaml", ".yml")
_LONGEST_NAME = 250
_SUBJECT = "The run cannot be submitted"
_NOTHING = BackendConfig(Resources(""))


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that can be submitted.

    Attributes:
        experiment_id: Where its run is to be.
        entry_point: What it runs.
        parameters: With what, as texts.
        config: What it asks for.
        config_path: Where the configuration is in the archive.
        archive: What is sent of the project.
        run_name: The run's name; None leaves it to the platform.
        notes: What is not wrong but may not be meant.
    """

    experiment_id: int
    entry_point: str
    parameters: Mapping[str, str]
    config: BackendConfig
    config_path: str
    archive: Archive
    run_name: str | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(  # noqa: PLR0913  # what a job is made of
        cls,
        experiment_id: int | str,
        mlproject_path: str | Path,
        mlflow_parameters: Mapping[str, object],
        backend_config: str | Path | Mapping[str, Any] | None,
        *,
        entry_point: str = "main",
        run_name: str | None = None,
    ) -> Submission:
        """Check a job and find the files of its project.

        Args:
            experiment_id: The experiment.
            mlproject_path: The project's folder.
            mlflow_parameters: Parameters of the entry point.
            backend_config: The backend configuration: a file in the project or elsewhere, or what such a file holds.
            entry_point: An entry point of the project, or a script in it.
            run_name: The run's name.

        Raises:
            ProjectError: It cannot be submitted; names all mistakes.
        """
        mistakes = Mistakes()
        if not isinstance(mlproject_path, str | os.PathLike):
            # For some releases of the public client the run's name came first.
            mistakes.add(
                "mlproject_path",
                f"{shown(mlproject_path)} is no folder. In this order come experiment_id, mlproject_path, "
                "mlflow_parameters, backend_config and entry_point; a name is given as run_name=...",
            )
            mistakes.raise_if_any(_SUBJECT)
        folder = at_home(mlproject_path)
        experiment = _experiment(experiment_id, mistakes)
        if run_name is not None and not _is_name(run_name):
            mistakes.add(
                "run_name", f"{shown(run_name)} is no name, expected {_LONGEST_NAME} printable characters at most"
            )
        before = len(mistakes.found)
        project = Project.read(folder, mistakes)
        if not isinstance(entry_point, str):
            mistakes.add("entry_point", f"{shown(entry_point)} is no name of an entry point, expected e.g. main")
        is_sound = len(mistakes.found) == before
        if not isinstance(mlflow_parameters, Mapping):
            mistakes.add("mlflow_parameters", f"{shown(mlflow_parameters)} is no mapping of names to values")
            mlflow_parameters = {}
        parameters = project.checked(entry_point, mlflow_parameters, mistakes) if is_sound else {}
        source = _Source.of(backend_config, folder, mistakes)
        # Without a configuration nobody knows what is excluded, and without a folder there is nothing to look into.
        mistakes.raise_if_any(_SUBJECT)
        tree = _tree(project, source, mistakes)
        environment = source.config.environment
        if not environment.pre_run_on_compute_node and not environment.pre_run_on_login_node:
            _check_paths(project, entry_point, parameters, tree, mistakes)
        mistakes.raise_if_any(_SUBJECT)
        return cls(
            experiment_id=experiment,
            entry_point=entry_point,
            parameters=parameters,
            config=source.config,
            config_path=source.name,
            archive=Archive(tree, source.extra),
            run_name=run_name,
            notes=tuple(project.notes(entry_point, parameters)),
        )


@dataclass(frozen=True, slots=True)
class _Source:
    """A backend configuration as it was given.

    Attributes:
        config: What it says; not to be used where there were mistakes.
        name: Where it is in the archive.
        extra: What is added to the project's files for it.
    """

    config: BackendConfig
    name: str = ""
    extra: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, given: str | Path | Mapping[str, Any] | None, folder: Path, mistakes: Mistakes) -> _Source:
        if given is None:
            expected = "expected a file such as backend-config.yaml, or what one would hold"
            mistakes.add("backend_config", f"is missing, {expected}")
            return cls(_NOTHING)
        if isinstance(given, Mapping):
            return cls._of_mapping(given, mistakes)
        if not isinstance(given, str | os.PathLike):
            mistakes.add("backend_config", f"{shown(given)} is neither a file nor what one would hold")
            return cls(_NOTHING)
        path = _find(at_home(given), folder, mistakes)
        content = read_mapping(path, str(given), mistakes) if path is not None else None
        if path is None or content is None:
            return cls(_NOTHING)
        config, root = BackendConfig.read(content, mistakes), folder.resolve()
        if path.resolve().is_relative_to(root):
            return cls(config, path.resolve().relative_to(root).as_posix())
        suffix = path.suffix.lower()
        name = _OUTSIDE + (suffix if suffix in _SUFFIXES else ".yaml")
        return cls(config, name, {name: path.read_bytes()})

    @classmethod
    def _of_mapping(cls, given: Mapping[str, Any], mistakes: Mistakes) -> _Source:
        try:
            text = json.dumps(dict(given), default=str, indent=2)
        except (TypeError, ValueError, RecursionError) as error:
            mistakes.add("backend_config", f"it cannot be written as JSON ({error})")
            return cls(_NOTHING)
        content = mapping_in(text, "backend_config", mistakes, is_json=True)
        name = f"{_OUTSIDE}.json"
        return cls(BackendConfig.read(content or {}, mistakes), name, {name: text.encode()})


def _is_name(given: object) -> bool:
    return isinstance(given, str) and bool(given.strip()) and given.isprintable() and len(given) <= _LONGEST_NAME


def _experiment(given: object, mistakes: Mistakes) -> int:
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return given
    if isinstance(given, str) and given.isascii() and given.isdecimal():
        return int(given)
    mistakes.add("experiment_id", f"{shown(given)} is no id of an experiment, expected a number, e.g. 3")
    return 0


def _find(path: Path, folder: Path, mistakes: Mistakes) -> Path | None:
    """Find the configuration: a relative path is one in the project, as the contract has it, else one from here."""
    places = [path] if path.is_absolute() else [folder / path, path]
    for place in places:
        if place.is_file():
            return place
    if any(place.is_dir() for place in places):
        mistakes.add(str(path), "it is a folder, expected the file of the backend configuration")
    elif path.is_absolute():
        mistakes.add(str(path), "there is no such file")
    else:
        mistakes.add(str(path), f"there is no such file, neither in {folder} nor in {Path.cwd()}")
    return None


def _tree(project: Project, source: _Source, mistakes: Mistakes) -> Tree:
    """Find the files that are sent; what the job cannot do without is, whatever excludes it."""
    always = [] if source.extra else [source.name]
    if project.file is not None:
        always.append(project.file)
    image = source.config.environment.apptainer
    if image is not None and image.is_local:
        if (project.folder / image.path).is_file():
            always.append(image.path)
        else:
            mistakes.add("Environment.Apptainer.Path", f"there is no image {shown(image.path)} in {project.folder}")
    exclusion = Exclusion.of(project.folder, source.config.exclude, mistakes)
    return survey(project.folder, exclusion, always, mistakes)


def _check_paths(
    project: Project, entry_point: str, parameters: Mapping[str, str], tree: Tree, mistakes: Mistakes
) -> None:
    """Say which parameters of type path name a file of the project that is not sent: MLflow would miss it in the job.

    With commands that run before, it cannot be known: they may bring the file.
    """
    point = project.entry_points.get(entry_point)
    for parameter in point.parameters.values() if point is not None else ():
        text = str(parameters.get(parameter.name, parameter.default))
        path = PurePosixPath(text)
        if parameter.kind != "path" or urlsplit(text).scheme or path.is_absolute() or not path.parts:
            continue
        if not tree.has(path.as_posix()):
            mistakes.add(
                f"parameter {shown(parameter.name)}",
                f"there is no {shown(text)} among the files that are sent; expected a file of the project that is not "
                "left out, or an absolute path on the cluster",
            )
