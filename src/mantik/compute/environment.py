"""What a job runs in: the section ``Environment`` of a backend configuration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from mantik.compute.mistakes import shown
from mantik.compute.section import Section, as_text

if TYPE_CHECKING:
    from mantik.compute.mistakes import Mistakes

__all__ = ["APPTAINER_KEYS", "COMMAND_KEYS", "ENVIRONMENT_KEYS", "PYTHON_KEYS", "Apptainer", "Environment"]

APPTAINER_KEYS = ("Path", "Type", "Options")
PYTHON_KEYS = ("Path",)
COMMAND_KEYS = ("Command", "ExecuteOnLoginNode")
ENVIRONMENT_KEYS = (
    "Apptainer",
    "Singularity",
    "Python",
    "Modules",
    "Variables",
    "PreRunCommand",
    "PreRunCommandOnLoginNode",
    "PreRunCommandOnComputeNode",
    "PostRunCommand",
    "PostRunCommandOnLoginNode",
    "PostRunCommandOnComputeNode",
)
"""All keys of the section, renamed ones in both spellings."""

_IMAGE = "a path, or a mapping such as {Path: image.sif, Type: local}"
_VENV = "the absolute path of a virtual environment on the cluster, e.g. /home/ada/venv"
_COMMANDS = "a command or a list of commands, e.g. [echo hello]"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_MODULE = re.compile(r"[A-Za-z0-9_][\w.+/:@=-]*", re.ASCII)
_ADDRESS = re.compile(r"[a-z]+://\S+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Apptainer:
    """The image that the job runs in.

    Attributes:
        path: Local: relative to the project, with slashes. Remote: an absolute path on the cluster, or an address such
            as ``docker://python:3.11``.
        is_local: Whether the image is a file of the project, which is sent along.
        options: Further arguments of ``apptainer exec``.
    """

    path: str
    is_local: bool = True
    options: tuple[str, ...] = ()

    @classmethod
    def read(cls, value: object, place: str, mistakes: Mistakes) -> Apptainer | None:
        """Read the image; None where it cannot be used, which is a mistake then."""
        if isinstance(value, str):
            value = {"Path": value}
        if not isinstance(value, Mapping):
            mistakes.add(place, f"{shown(value)} is no image, expected {_IMAGE}")
            return None
        section = Section(value, place, APPTAINER_KEYS, mistakes)
        kind = section.text("Type", pattern=r"(?i:local|remote)", expected="local or remote") or "local"
        path = section.text("Path", expected="the path of an image, e.g. image.sif")
        if path is None:
            if value.get("Path") is None:
                section.refuse("Path", "is missing, expected the path of an image, e.g. image.sif")
            return None
        is_local = kind.lower() == "local"
        if is_local:
            path = _within_project(path, section)
        elif not path.startswith("/") and not _ADDRESS.fullmatch(path):
            section.refuse("Path", f"{shown(path)} is not on the cluster, expected an absolute path or an address")
        return cls(path=path, is_local=is_local, options=_options(section))

    def to_mapping(self) -> dict[str, object]:
        """Return the image as it would be written."""
        written: dict[str, object] = {"Path": self.path, "Type": "local" if self.is_local else "remote"}
        return written | ({"Options": list(self.options)} if self.options else {})


@dataclass(frozen=True, slots=True)
class Environment:
    """What a job runs in.

    Attributes:
        apptainer: ``Apptainer`` or ``Singularity``; never together with ``python``.
        python: ``Python``: absolute path of a virtual environment on the cluster, or of an interpreter.
        modules: ``Modules`` to load first.
        variables: ``Variables`` of the job.
        pre_run_on_login_node: Shell commands before the job, where it is submitted.
        pre_run_on_compute_node: Shell commands in the job, before the entry point.
        post_run_on_compute_node: Shell commands in the job, after the entry point.
        post_run_on_login_node: Shell commands after the job, where it was submitted.
    """

    apptainer: Apptainer | None = None
    python: str | None = None
    modules: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    pre_run_on_login_node: tuple[str, ...] = ()
    pre_run_on_compute_node: tuple[str, ...] = ()
    post_run_on_compute_node: tuple[str, ...] = ()
    post_run_on_login_node: tuple[str, ...] = ()

    @classmethod
    def read(cls, content: Mapping[Any, Any], place: str, mistakes: Mistakes) -> Environment:
        """Read the section.

        Args:
            content: What is in it.
            place: Its path in the file.
            mistakes: Where to say what is wrong; then the result is not to be used.
        """
        section = Section(content, place, ENVIRONMENT_KEYS, mistakes, hint=_variable_hint)
        key, image = section.value("Apptainer", "Singularity")
        python = _python(section, mistakes)
        if image is not None and python is not None:
            section.refuse("Python", f"cannot be used in an image; keep it or {key}")
        pre_login, pre_compute = _commands(section, "PreRunCommand", mistakes)
        post_login, post_compute = _commands(section, "PostRunCommand", mistakes)
        return cls(
            apptainer=Apptainer.read(image, section.path_of(key), mistakes) if image is not None else None,
            python=python,
            modules=_modules(section),
            variables=_variables(section, mistakes),
            pre_run_on_login_node=pre_login,
            pre_run_on_compute_node=pre_compute,
            post_run_on_compute_node=post_compute,
            post_run_on_login_node=post_login,
        )

    def to_mapping(self) -> dict[str, object]:
        """Return the section as it would be written."""
        written: dict[str, object] = {
            "Apptainer": self.apptainer.to_mapping() if self.apptainer is not None else None,
            "Python": self.python,
            "Modules": list(self.modules),
            "Variables": dict(self.variables),
            "PreRunCommandOnLoginNode": list(self.pre_run_on_login_node),
            "PreRunCommandOnComputeNode": list(self.pre_run_on_compute_node),
            "PostRunCommandOnComputeNode": list(self.post_run_on_compute_node),
            "PostRunCommandOnLoginNode": list(self.post_run_on_login_node),
        }
        return {key: value for key, value in written.items() if value}


def _variable_hint(key: str) -> str | None:
    if not _NAME.fullmatch(key):
        return None
    return f"variables of the job are written below Environment.Variables: {{Variables: {{{key}: ...}}}}"


def _within_project(path: str, section: Section) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        section.refuse(
            "Path",
            f"{shown(path)} is not in the project. A local image is given relative to the project; for one that is on "
            "the cluster, write Type: remote",
        )
    return parts.as_posix()


def _options(section: Section) -> tuple[str, ...]:
    _, value = section.value("Options")
    options = section.texts("Options", expected="a list of arguments, e.g. [--nv]")
    if not isinstance(value, str) or not options:
        return options
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        section.refuse("Options", f"{shown(value)} cannot be split into arguments ({error})")
        return ()


def _python(section: Section, mistakes: Mistakes) -> str | None:
    _, value = section.value("Python")
    if isinstance(value, Mapping):
        section = Section(value, section.path_of("Python"), PYTHON_KEYS, mistakes)
        key = "Path"
        if value.get("Path") is None:
            section.refuse("Path", f"is missing, expected {_VENV}")
    else:
        key = "Python"
    path = section.text(key, expected=_VENV)
    if path is not None and not path.startswith("/"):
        section.refuse(key, f"{shown(path)} is no absolute path, expected {_VENV}")
    return path


def _modules(section: Section) -> tuple[str, ...]:
    modules = section.texts("Modules", expected="a list of modules, e.g. [Python/3.11]")
    for module in modules:
        if not _MODULE.fullmatch(module):
            section.refuse("Modules", f"{shown(module)} is no name of a module, expected e.g. Python/3.11")
    return modules


def _variables(section: Section, mistakes: Mistakes) -> dict[str, str]:
    key, content = section.mapping("Variables", expected="names and values, e.g. {OMP_NUM_THREADS: 4}")
    variables = {}
    for name, value in (content or {}).items():
        place = f"{section.path_of(key)}.{name if isinstance(name, str) and name.isprintable() else shown(name)}"
        text = as_text(value)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            mistakes.add(place, "is no name of a variable, expected letters, digits and underscores")
        elif text is None or "\0" in text:
            boolean = f", in quotes: '{str(value).lower()}' or '1'" if isinstance(value, bool) else ""
            mistakes.add(place, f"{shown(value)} is no text, expected a text or a number{boolean}")
        else:
            variables[name] = text
    return variables


def _commands(section: Section, key: str, mistakes: Mistakes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the commands on the login node and those on the compute node, in all spellings of the contract."""
    on_login = section.texts(f"{key}OnLoginNode", expected=_COMMANDS)
    on_compute = section.texts(f"{key}OnComputeNode", expected=_COMMANDS)
    _, value = section.value(key)
    if not isinstance(value, Mapping):
        return on_login, section.texts(key, expected=_COMMANDS) + on_compute
    old = Section(value, section.path_of(key), COMMAND_KEYS, mistakes)
    if value.get("Command") is None:
        old.refuse("Command", f"is missing, expected {_COMMANDS}")
    commands = old.texts("Command", expected=_COMMANDS)
    if old.flag("ExecuteOnLoginNode"):
        return commands + on_login, on_compute
    return on_login, commands + on_compute
