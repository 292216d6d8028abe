from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest
from mlflow.exceptions import MlflowException
from mlflow.projects import _project_spec as upstream

from mantik.compute import Project
from mantik.exceptions import ProjectError

if TYPE_CHECKING:
    from pathlib import Path


def project_of(text: str, tmp_path: Path, name: str = "MLproject") -> Path:
    """Make a project whose file has this text."""
    (tmp_path / name).write_text(textwrap.dedent(text), encoding="utf-8")
    return tmp_path


def mistakes_of(folder: Path, entry_point: str = "main", **parameters: object) -> tuple[str, ...]:
    """Return what is wrong with running a project so."""
    with pytest.raises(ProjectError) as raised:
        Project.load(folder).check(entry_point, parameters)
    return raised.value.mistakes


def test_a_project_is_read_as_mlflow_reads_it(project: Path) -> None:
    """Entry points, parameters, types and defaults are those of MLflow's own loader."""
    ours, theirs = Project.load(project), upstream.load_project(project)
    assert list(ours.entry_points) == ["main", "evaluate"]
    for name, point in ours.entry_points.items():
        read = [(parameter.name, parameter.kind, parameter.default) for parameter in point.parameters.values()]
        parameters = theirs.get_entry_point(name).parameters.values()
        assert read == [(parameter.name, parameter.type, parameter.default) for parameter in parameters]


PROJECTS = {
    "no entry points": "name: x",
    "types in short": "entry_points: {main: {parameters: {a: float, b: path}, command: 'run {a} {b}'}}",
    "defaults": "entry_points: {main: {parameters: {a: {default: 1}, b: {type: uri}}, command: 'run {a} {b}'}}",
    "unknown type": "entry_points: {main: {parameters: {a: int}, command: 'run {a}'}}",
    "empty default": "entry_points: {main: {parameters: {a: {default: ''}}, command: 'run {a}'}}",
    "null default": "entry_points: {main: {parameters: {a: {default: null}}, command: 'run {a}'}}",
    "numbers as names": "entry_points: {1: {command: 'run {2}', parameters: {2: float}}}",
    "a number as a parameter": "entry_points: {main: {command: 'run {2}', parameters: {'2': {default: 1}}}}",
    "a part of a text": "entry_points: {main: {command: 'run {a[0]}', parameters: {a: {default: xy}}}}",
    "braces": "entry_points: {main: {command: 'awk {{print}}'}}",
    "unknown braces": "entry_points: {main: {command: 'run {x}'}}",
    "broken braces": "entry_points: {main: {command: 'run {'}}",
    "two environments": "{docker_env: {image: a}, conda_env: b, entry_points: {main: {command: run}}}",
    "missing environment": "{conda_env: b.yaml, entry_points: {main: {command: run}}}",
}
CALLS = [
    ("main", {}),
    ("main", {"a": 1, "b": "x"}),
    ("main", {"a": "1", "b": "s3://x/y", "more": "it"}),
    ("1", {"2": 3}),
    ("script.py", {"a": 1}),
    ("script.sh", {}),
    ("nothing", {}),
]


@pytest.mark.parametrize("text", PROJECTS.values(), ids=PROJECTS)
@pytest.mark.parametrize("call", CALLS, ids=[f"{name}-{len(given)}" for name, given in CALLS])
def test_what_mlflow_would_run_is_accepted(text: str, call: tuple[str, dict[str, object]], tmp_path: Path) -> None:
    """What this accepts MLflow makes a command of, and what MLflow cannot make one of is refused."""
    folder = project_of(text, tmp_path)
    (tmp_path / "script.py").touch()
    (tmp_path / "script.sh").touch()
    name, parameters = call
    try:
        theirs = upstream.load_project(folder).get_entry_point(name).compute_command(dict(parameters), None)
    except (MlflowException, KeyError, ValueError, IndexError, AttributeError):
        with pytest.raises(ProjectError):
            Project.load(folder).check(name, parameters)
        return
    assert theirs
    try:
        given = Project.load(folder).check(name, parameters)
    except ProjectError as error:
        # The one thing that is refused and that MLflow passes on: a text for a float.
        assert all("is no number" in mistake for mistake in error.mistakes)  # noqa: PT017
    else:
        assert given == {key: str(value) for key, value in parameters.items()}


def test_all_mistakes_of_a_call_are_in_one_error(tmp_path: Path) -> None:
    """Missing and mistyped parameters are named together."""
    folder = project_of(
        """
        entry_points:
          main:
            parameters: {alpha: float, model: uri, data: path, name: string, depth: {type: float, default: deep}}
            command: run {alpha} {model} {data} {name} {depth}
        """,
        tmp_path,
    )
    assert mistakes_of(folder, alpha="much", model="here", data=" ", more=None) == (
        "parameter 'more': is None; leave it out for the default",
        "parameter 'alpha': 'much' is no number, expected a float",
        "parameter 'model': 'here' is no URI, expected e.g. s3://bucket/data.csv",
        "parameter 'data': ' ' is no path, expected e.g. data/train.csv",
        "parameter 'name': is missing; main has no default for it (type string)",
        "parameter 'depth' (default): 'deep' is no number, expected a float",
    )


@pytest.mark.parametrize("value", [1, 0.5, "1e-3", True, "nan"])
def test_values_become_texts(value: object, project: Path) -> None:
    """Values are passed on as texts, as MLflow does; True is no float."""
    if value is True:
        assert mistakes_of(project, alpha=value) == ("parameter 'alpha': 'True' is no number, expected a float",)
    else:
        assert Project.load(project).check("main", {"alpha": value}) == {"alpha": str(value)}


def test_an_unknown_entry_point_names_the_known_ones(project: Path) -> None:
    """What there is, and what may have been meant."""
    assert mistakes_of(project, "evalute") == (
        "entry point 'evalute': MLproject does not declare it, but: main, evaluate; did you mean evaluate?",
    )


def test_a_script_is_an_entry_point_if_it_is_there(project: Path) -> None:
    """A script of the project can be run as MLflow runs it; one that is not there, or not in it, cannot."""
    assert Project.load(project).check("train.py", {"any": 1}) == {"any": "1"}
    outside = project.parent / "outside.py"
    outside.touch()
    for name in ("missing.py", "../outside.py", str(outside)):
        (mistake,) = mistakes_of(project, name)
        assert mistake.endswith(": there is neither an entry point nor a script of that name")


def test_undeclared_parameters_are_passed_on_and_said(project: Path) -> None:
    """MLflow appends them to the command: a note says so, and which one may have been meant."""
    loaded = Project.load(project)
    assert loaded.check("main", {"alhpa": 1, "zzz": 2}) == {"alhpa": "1", "zzz": "2"}
    assert list(loaded.notes("main", {"alhpa": "1", "zzz": "2"})) == [
        "main declares no parameter 'alhpa': it is passed on as --alhpa, as MLflow does. Did you mean alpha?",
        "main declares no parameter 'zzz': it is passed on as --zzz, as MLflow does.",
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("entry_points: [main]", "MLproject, entry_points: ['main'] is no mapping of names to entry points"),
        ("entry_points: {main: run}", "MLproject, entry_points.main: 'run' is no entry point, expected e.g. {command"),
        ("entry_points: {main: {}}", "MLproject, entry_points.main.command: is missing, expected e.g. python train.py"),
        (
            "entry_points: {main: {command: 'x {y}'}}",
            "MLproject, entry_points.main.command: uses {y}, which is no param",
        ),
        ("entry_points: {main: {command: 'x {}'}}", "MLproject, entry_points.main.command: uses {}, which is no param"),
        ("entry_points: {main: {command: 'x }'}}", "MLproject, entry_points.main.command: Single '}' encountered"),
        ("entry_points: {main: {command: x, parameters: [a]}}", "MLproject, entry_points.main.parameters: ['a'] is no"),
        (
            "entry_points: {main: {command: x, parameters: {a: 1}}}",
            "MLproject, entry_points.main.parameters.a: 1 is no",
        ),
        (
            "{docker_env: a, conda_env: b.yaml}",
            "MLproject: docker_env and conda_env are there together, expected one of",
        ),
        ("python_env: b.yaml", "MLproject, python_env: there is no file 'b.yaml' in the project"),
        ("", "MLproject: it holds nothing, expected a mapping of keys to values"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(text: str, mistake: str, tmp_path: Path) -> None:
    """What cannot be run says where it is."""
    assert mistakes_of(project_of(text, tmp_path))[0].startswith(mistake)


def test_folders_that_are_no_project(tmp_path: Path) -> None:
    """A missing folder, a file, and a folder without an MLproject file are one sentence each."""
    (missing,) = mistakes_of(tmp_path / "missing")
    assert missing.endswith(
        "missing: it cannot be read (No such file or directory), expected a folder with an MLproject file"
    )
    (tmp_path / "file").touch()
    (file,) = mistakes_of(tmp_path / "file")
    assert file.endswith("file: it is a file, expected the folder with the MLproject file")
    assert mistakes_of(tmp_path) == (f"entry point 'main': there is no MLproject file in {tmp_path} that declares it",)


def test_the_file_may_be_written_in_any_case(tmp_path: Path) -> None:
    """`mlproject` and `MLPROJECT` are found, as by MLflow."""
    assert Project.load(project_of("entry_points: {main: {command: x}}", tmp_path, "MLPROJECT")).file == "MLPROJECT"
