"""A project as MLflow understands it: its ``MLproject`` file, the entry points, their parameters.

MLflow's own loader reads the same, but it comes with all of MLflow, and it speaks of one mistake at a time, in the job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mantik.compute.document import read_mapping
from mantik.compute.mistakes import Mistakes, meant, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EntryPoint", "Parameter", "Project"]

_ENVIRONMENTS = ("docker_env", "conda_env", "python_env")
_SCRIPTS = (".py", ".sh", ".R")
"""What MLflow runs without an entry point of that name."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an entry point.

    Attributes:
        name: Its name.
        kind: ``float``, ``path``, ``uri`` or ``string``; MLflow takes any other one for a string.
        default: Its default; None makes it required.
    """

    name: str
    kind: str = "string"
    default: object = None

    def problem(self, value: object) -> str | None:
        """Say why a value cannot be this parameter's; None if it can."""
        text = str(value)
        if self.kind == "float":
            return None if _is_float(text) else f"{shown(value)} is no number, expected a float"
        if self.kind == "uri":
            return None if _is_uri(text) else f"{shown(value)} is no URI, expected e.g. s3://bucket/data.csv"
        if self.kind == "path" and (not text.strip() or "\0" in text):
            return f"{shown(value)} is no path, expected e.g. data/train.csv"
        return None


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """Something that a project can run.

    Attributes:
        name: Its name, or the script's.
        command: What it runs, with the parameters in braces; None for a script that the file does not declare.
        parameters: Its parameters by name, in the order of the file.
    """

    name: str
    command: str | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with an ``MLproject`` file.

    Attributes:
        folder: The folder.
        file: Name of the file in it, in whatever case it is written; None where there is none, and only scripts can be
            run.
        entry_points: What the file declares, by name.
    """

    folder: Path
    file: str | None = None
    entry_points: Mapping[str, EntryPoint] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | Path) -> Project:
        """Read a project.

        Args:
            folder: The folder with the ``MLproject`` file.

        Raises:
            ProjectError: It cannot be read or run; names all mistakes.
        """
        mistakes = Mistakes()
        project = cls.read(Path(folder), mistakes)
        mistakes.raise_if_any(f"The project {folder} cannot be run")
        return project

    @classmethod
    def read(cls, folder: Path, mistakes: Mistakes) -> Project:
        """Read a project.

        Args:
            folder: The folder.
            mistakes: Where to say what is wrong; then the result is not to be used.
        """
        try:
            names = sorted(path.name for path in folder.iterdir())
        except NotADirectoryError:
            mistakes.add(str(folder), "it is a file, expected the folder with the MLproject file")
            return cls(folder)
        except OSError as error:
            mistakes.add(str(folder), f"it cannot be read ({error.strerror}), expected a folder with an MLproject file")
            return cls(folder)
        name = next((name for name in names if name.lower() == "mlproject"), None)
        content = read_mapping(folder / name, name, mistakes) if name is not None else None
        if content is None or name is None:
            return cls(folder, name)
        _check_environments(content, folder, name, mistakes)
        return cls(folder, name, _entry_points(content, name, mistakes))

    def check(self, entry_point: str, parameters: Mapping[str, object]) -> dict[str, str]:
        """Check what is to be run.

        Args:
            entry_point: Name of an entry point, or of a script as MLflow runs it.
            parameters: Values by name. Those that the entry point does not declare are passed on to its command as
                ``--name value``, as MLflow does.

        Returns:
            The values as texts, as MLflow passes them on.

        Raises:
            ProjectError: It cannot be run so; names all mistakes.
        """
        mistakes = Mistakes()
        texts = self.checked(entry_point, parameters, mistakes)
        mistakes.raise_if_any(f"The project {self.folder} cannot be run so")
        return texts

    def checked(self, name: str, parameters: Mapping[str, object], mistakes: Mistakes) -> dict[str, str]:
        """Check what is to be run, as ``check``, and say what is wrong there."""
        texts = {}
        for key, value in parameters.items():
            problem = _name_problem(key) or _value_problem(value)
            if problem is not None:
                mistakes.add(f"parameter {shown(key)}", problem)
            else:
                texts[key] = str(value)
        point = self.find(name, mistakes)
        if point is not None:
            _check_command(point, f"{self.file}, entry_points.{name}.command", mistakes)
            _check_values(point, parameters, texts, mistakes)
        return texts

    def find(self, name: str, mistakes: Mistakes) -> EntryPoint | None:
        """Return the entry point of a name, or the script; None if there is none, which is a mistake then."""
        point = self.entry_points.get(name)
        if point is not None:
            return point
        if Path(name).suffix in _SCRIPTS:
            script = self.folder / name
            if not Path(name).is_absolute() and ".." not in Path(name).parts and script.is_file():
                return EntryPoint(name)
            mistakes.add(f"entry point {shown(name)}", "there is neither an entry point nor a script of that name")
        elif self.file is None:
            mistakes.add(f"entry point {shown(name)}", f"there is no MLproject file in {self.folder} that declares it")
        else:
            known = ", ".join(self.entry_points) or "none"
            nearest = meant(name, self.entry_points)
            advice = f"; did you mean {nearest}?" if nearest else ""
            mistakes.add(f"entry point {shown(name)}", f"{self.file} does not declare it, but: {known}{advice}")
        return None

    def notes(self, name: str, parameters: Mapping[str, object]) -> Iterator[str]:
        """Say what is not wrong but may not be meant: parameters that are passed on undeclared."""
        point = self.entry_points.get(name, EntryPoint(name))
        for key in parameters:
            if key in point.parameters:
                continue
            nearest = meant(key, [known for known in point.parameters if known not in parameters])
            advice = f" Did you mean {nearest}?" if nearest else ""
            yield f"{name} declares no parameter {key!r}: it is passed on as --{key}, as MLflow does.{advice}"


def _entry_points(content: Mapping[Any, Any], file: str, mistakes: Mistakes) -> dict[str, EntryPoint]:
    declared = content.get("entry_points", {})
    if not isinstance(declared, Mapping):
        mistakes.add(f"{file}, entry_points", f"{shown(declared)} is no mapping of names to entry points")
        return {}
    points = {}
    for name, value in declared.items():
        place = f"{file}, entry_points.{name}"
        if not isinstance(value, Mapping):
            mistakes.add(place, f"{shown(value)} is no entry point, expected e.g. {{command: python train.py}}")
        # MLflow finds none whose name is a number.
        elif isinstance(name, str):
            command = value.get("command")
            parameters = _parameters(value.get("parameters", {}), f"{place}.parameters", mistakes)
            points[name] = EntryPoint(name, command if isinstance(command, str) else "", parameters)
    return points


def _parameters(declared: object, place: str, mistakes: Mistakes) -> dict[str, Parameter]:
    if not isinstance(declared, Mapping):
        mistakes.add(place, f"{shown(declared)} is no mapping of names to types")
        return {}
    parameters = {}
    for name, value in declared.items():
        if not isinstance(name, str):
            mistakes.add(place, f"{shown(name)} is no name, expected a text; write it in quotes")
        elif isinstance(value, str):
            parameters[name] = Parameter(name, value)
        elif isinstance(value, Mapping):
            parameters[name] = Parameter(name, str(value.get("type", "string")), value.get("default"))
        else:
            mistakes.add(f"{place}.{name}", f"{shown(value)} is no type, expected e.g. {{type: float, default: 0.1}}")
    return parameters


def _check_command(point: EntryPoint, place: str, mistakes: Mistakes) -> None:
    if point.command is None:
        return
    if not point.command.strip():
        mistakes.add(place, "is missing, expected e.g. python train.py --alpha {alpha}")
        return
    try:
        used = [name for _, name, _, _ in Formatter().parse(point.command) if name is not None]
    except ValueError as error:
        mistakes.add(place, f"{error}; braces that are no parameter are doubled: {{{{ }}}}")
        return
    for name in used:
        # MLflow formats texts by name: a number would be a position, and {name[0]} is a part of a text.
        word = name.partition(".")[0].partition("[")[0]
        if word not in point.parameters or word.isdecimal():
            known = ", ".join(point.parameters) or "none"
            mistakes.add(
                place,
                f"uses {{{name}}}, which is no parameter of it (but: {known}); other braces are doubled: {{{{ }}}}",
            )


def _check_environments(content: Mapping[Any, Any], folder: Path, file: str, mistakes: Mistakes) -> None:
    named = [key for key in _ENVIRONMENTS if key in content]
    if len(named) > 1:
        mistakes.add(file, f"{' and '.join(named)} are there together, expected one of them at most")
    for key in named:
        value = content[key]
        if key == "docker_env" or not value:
            continue
        if not isinstance(value, str) or not (folder / value).exists():
            mistakes.add(f"{file}, {key}", f"there is no file {shown(value)} in the project")


def _check_values(
    point: EntryPoint, parameters: Mapping[str, object], texts: Mapping[str, str], mistakes: Mistakes
) -> None:
    for name, parameter in point.parameters.items():
        place = f"parameter {shown(name)}"
        if name in texts:
            value: object = texts[name]
        elif name in parameters:
            # Said already.
            continue
        elif parameter.default is None:
            mistakes.add(place, f"is missing; {point.name} has no default for it (type {parameter.kind})")
            continue
        else:
            value, place = parameter.default, f"{place} (default)"
        problem = parameter.problem(value)
        if problem is not None:
            mistakes.add(place, problem)


def _name_problem(name: object) -> str | None:
    if not isinstance(name, str):
        return "is no name, expected a text"
    return None if name.strip() and name.isprintable() else "is no name, expected printable characters"


def _value_problem(value: object) -> str | None:
    if value is None:
        return "is None; leave it out for the default"
    if isinstance(value, str) and "\0" in value:
        return f"{shown(value)} contains a null character"
    return None


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_uri(text: str) -> bool:
    try:
        return bool(urlsplit(text).scheme)
    except ValueError:
        return False
