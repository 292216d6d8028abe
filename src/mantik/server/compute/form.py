"""What a submission's form asks for, in the field names of the platform contract, section 4.2."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mantik.server.compute.folders import JOB_ID
from mantik.server.compute.names import check_path
from mantik.server.compute.refusal import FieldMistake, invalid, message
from mantik.server.compute.zip_directory import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_CONFIG: Final = "unicore-config.json"
"""The backend configuration of a form that names none, as in the contract."""

_CONFIG_FIELDS: Final = ("unicore_backend_config", "unicore_backend_config_path")
_LONGEST_NAME: Final = 250
_LONGEST_EXPERIMENT_ID: Final = 18


@dataclass(frozen=True, slots=True)
class SubmissionForm:
    """A checked form. Its user, password, token and tracking URI are not looked at: the bearer says who submits.

    Attributes:
        entry_point: The entry point of the MLproject.
        parameters: Values of its parameters: texts, numbers and truth values.
        config_path: The path of the backend configuration in the project.
        run_name: The name of the run; empty if MLflow is to find one.
    """

    entry_point: str
    parameters: Mapping[str, object]
    config_path: str
    run_name: str

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> SubmissionForm:
        """Read the fields.

        Raises:
            RefusedError: Fields are missing or malformed; names all of them.
        """
        mistakes: list[FieldMistake] = []
        form = cls(
            _name(fields, "entry_point", mistakes, required=True),
            _parameters(fields, mistakes),
            _config_path(fields, mistakes),
            _name(fields, "run_name", mistakes, required=False),
        )
        if mistakes:
            raise invalid(mistakes)
        return form


def read_experiment_id(text: str) -> str:
    """Return the id in the form that MLflow writes it.

    Raises:
        RefusedError: It is no whole number.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_EXPERIMENT_ID):
        raise invalid([FieldMistake("experiment_id", "Expected the number of an experiment", "int_parsing", "path")])
    return str(int(text))


def read_job_id(text: str | None) -> str | None:
    """Return what a client calls its job; None if it leaves that to the platform.

    Raises:
        RefusedError: It is no UUID in the form that the platform writes.
    """
    if text is not None and not re.fullmatch(JOB_ID, text):
        raise message(400, "Idempotency-Key must be a UUID in lower case, with hyphens.")
    return text


def _name(fields: Mapping[str, str], name: str, mistakes: list[FieldMistake], *, required: bool) -> str:
    text = fields.get(name, "")
    if required and not text:
        mistakes.append(FieldMistake(name, "The field is missing", "missing"))
    elif not text.isprintable() or len(text) > _LONGEST_NAME:
        mistakes.append(FieldMistake(name, f"Expected at most {_LONGEST_NAME} printable characters"))
    return text


def _parameters(fields: Mapping[str, str], mistakes: list[FieldMistake]) -> dict[str, object]:
    name = "mlflow_parameters"
    if name not in fields:
        mistakes.append(FieldMistake(name, "The field is missing", "missing"))
        return {}
    try:
        content = json.loads(fields[name])
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        mistakes.append(FieldMistake(name, "Expected a JSON object with the values of the parameters", "json_invalid"))
        return {}
    nested = [key for key, value in content.items() if not isinstance(value, str | int | float | bool)]
    if nested:
        mistakes.append(FieldMistake(name, f"Expected a text, a number or a truth value for {nested[0][:80]!r}"))
    return content


def _config_path(fields: Mapping[str, str], mistakes: list[FieldMistake]) -> str:
    named = {fields[name]: name for name in _CONFIG_FIELDS if fields.get(name)}
    if len(named) > 1:
        mistakes.append(FieldMistake(_CONFIG_FIELDS[1], f"It differs from {_CONFIG_FIELDS[0]}; send one path in both"))
    mistakes.extend(FieldMistake(name, problem) for path, name in named.items() if (problem := _path_problem(path)))
    return next(iter(named), DEFAULT_CONFIG)


def _path_problem(path: str) -> str | None:
    try:
        check_path(path)
    except ArchiveError as error:
        return str(error)
    return None
