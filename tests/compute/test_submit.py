from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import mantik
from mantik.compute.archive import Archive
from mantik.exceptions import (
    ConfigurationError,
    ProjectError,
)
from tests.compute.conftest import log_in

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.compute import ComputeBackendClient
    from tests.compute.stand_in import StandIn


def mistakes_of(client: ComputeBackendClient, *arguments: Any, **named: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Return what is wrong with a submission."""
    with pytest.raises(ProjectError) as raised:
        client.submit_run(*arguments, **named)
    return raised.value.mistakes


def test_the_pattern_that_users_have(
    service: StandIn, project: Path, blank_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`from_env()`, keywords only, `backend_config_path`, and `print(response.content)` (contract, section 7)."""
    log_in(blank_environment, service)
    client = mantik.ComputeBackendClient.from_env()
    response = client.submit_run(
        experiment_id=3,
        entry_point="evaluate",
        mlflow_parameters={"model": "models:/wine/1"},
        mlproject_path=project,
        backend_config_path="backend-config.yaml",
    )
    print(response.content)  # noqa: T201  # the pattern
    assert capsys.readouterr().out.strip() == str(response.content)
    assert response.status_code == 201
    assert response.json() == {
        "experiment_id": 3,
        "run_id": f"{1:032x}",
        "unicore_job_id": "job-1",
        "job_id": "job-1",
    }
    assert (response.run_id, response.experiment_id, response.job_id) == (f"{1:032x}", 3, "job-1")
    assert response.url == f"{service.url}/compute-backend/submit/3"
    assert response.link == f"{service.url}/#/experiments/3/runs/{1:032x}"


def test_the_pattern_by_position(service: StandIn, client: ComputeBackendClient, project: Path) -> None:
    """The positional order of the contract, with paths as texts; an entry point of None is main."""
    run = client.submit_run(3, str(project), {"alpha": 1}, str(project / "backend-config.yaml"), None)
    form = service.forms[run.job_id]
    assert (form["entry_point"].content, form["mlflow_parameters"].content) == (b"main", b'{"alpha": "1"}')


def test_what_is_sent(service: StandIn, client: ComputeBackendClient, project: Path) -> None:
    """The fields of both eras, empty texts for what is not set, the name only if there is one, and the project."""
    run = client.submit_run(3, project, {}, "backend-config.yaml", run_name="first try")
    form = service.forms[run.job_id]
    texts = {name: part.content.decode() for name, part in form.items() if part.filename is None}
    assert texts == {
        "entry_point": "main",
        "mlflow_parameters": "{}",
        "unicore_user": "",
        "unicore_password": "",
        "unicore_project": "",
        "unicore_backend_config": "backend-config.yaml",
        "unicore_backend_config_path": "backend-config.yaml",
        "mlflow_tracking_uri": service.url,
        "mlflow_tracking_token": "the-token",
        "run_name": "first try",
    }
    assert form["mlproject_zip"].content_type == "application/zip"
    assert sorted(service.members(run.job_id)) == ["MLproject", "backend-config.yaml", "data/train.csv", "train.py"]
    (asked,) = service.asked_for("/compute-backend/submit/")
    assert asked.headers["Accept"] == "application/json"
    assert int(asked.headers["Content-Length"]) == len(asked.body)
    unnamed = client.submit_run(3, project, {}, "backend-config.yaml")
    assert "run_name" not in service.forms[unnamed.job_id]


def test_relative_paths_are_from_here(
    service: StandIn, client: ComputeBackendClient, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Project and configuration may be relative; the configuration is looked for in the project first."""
    monkeypatch.chdir(project.parent)
    (project.parent / "here.yaml").write_text("Resources: {Queue: here}\n", encoding="utf-8")
    (project.parent / "backend-config.yaml").write_text("nonsense\n", encoding="utf-8")
    first = client.submit_run(3, "project", {}, "backend-config.yaml")
    second = client.submit_run(3, "project", {}, "here.yaml")
    third = client.submit_run(3, "project", {}, "project/backend-config.yaml")
    paths = [service.forms[run.job_id]["unicore_backend_config"].content for run in (first, second, third)]
    assert paths == [b"backend-config.yaml", b".mantik/backend-config.yaml", b"backend-config.yaml"]
    assert service.members(second.job_id)[".mantik/backend-config.yaml"] == b"Resources: {Queue: here}\n"


def test_what_the_job_needs_is_sent_whatever_excludes_it(
    service: StandIn, client: ComputeBackendClient, project: Path
) -> None:
    """A local image, the configuration and the MLproject file are always there."""
    (project / "images").mkdir()
    (project / "images" / "a.sif").write_bytes(b"SIF")
    (project / "images" / "b.sif").write_bytes(b"SIF")
    (project / ".mantikignore").write_text("*\n!data/\n!data/*\n", encoding="utf-8")
    (project / "other.yaml").write_text(
        "Resources: {Queue: a}\nEnvironment: {Apptainer: {Path: images/a.sif}}\n", encoding="utf-8"
    )
    run = client.submit_run(3, project, {}, "other.yaml")
    assert sorted(service.members(run.job_id)) == ["MLproject", "data/train.csv", "images/a.sif", "other.yaml"]


def test_all_mistakes_are_named_before_anything_is_sent(
    service: StandIn, client: ComputeBackendClient, project: Path
) -> None:
    """Experiment, name, entry point, parameters and configuration in one error, and no request."""
    (project / "backend-config.yaml").write_text("Resources: {Runtime: 12hours, Queue: a}\n", encoding="utf-8")
    mistakes = mistakes_of(client, "first", project, {"alpha": "much"}, "backend-config.yaml", run_name="\n")
    assert mistakes == (
        "experiment_id: 'first' is no id of an experiment, expected a number, e.g. 3",
        "run_name: '\\n' is no name, expected 250 printable characters at most",
        "parameter 'alpha': 'much' is no number, expected a float",
        "Resources.Runtime: '12hours' is no duration, expected a whole number and one unit of s, m, h, d, e.g. 12h",
    )
    assert service.asked == []


@pytest.mark.parametrize("experiment_id", [-1, True, None, 1.0, "", "1.5", "\u0661"])
def test_what_is_no_experiment(experiment_id: object, client: ComputeBackendClient, project: Path) -> None:
    """An experiment is a whole number, or its digits."""
    (mistake,) = mistakes_of(client, experiment_id, project, {}, "backend-config.yaml")
    assert mistake.startswith("experiment_id: ")


def test_parameters_that_are_no_mapping(client: ComputeBackendClient, project: Path) -> None:
    """Parameters are names and values, and not a text of them."""
    assert mistakes_of(client, 3, project, '{"alpha": 1}', "backend-config.yaml") == (
        "mlflow_parameters: '{\"alpha\": 1}' is no mapping of names to values",
    )


def test_files_that_are_missing_are_named(client: ComputeBackendClient, project: Path, tmp_path: Path) -> None:
    """A configuration, an image or data that is not there, or is left out, is said before the upload."""
    (mistake,) = mistakes_of(client, 3, project, {}, "missing.yaml")
    assert mistake.startswith(f"missing.yaml: there is no such file, neither in {project} nor in ")
    absent = f"{tmp_path}/missing.yaml"
    assert mistakes_of(client, 3, project, {}, absent) == (f"{absent}: there is no such file",)
    assert mistakes_of(client, 3, project, {}, "data") == (
        "data: it is a folder, expected the file of the backend configuration",
    )
    assert mistakes_of(client, 3, project) == (
        "backend_config: is missing, expected a file such as backend-config.yaml, or what one would hold",
    )
    image = {"Resources": {"Queue": "a"}, "Environment": {"Apptainer": "no.sif"}}
    assert mistakes_of(client, 3, project, {}, image) == (
        f"Environment.Apptainer.Path: there is no image 'no.sif' in {project}",
    )
    left_out = {"Resources": {"Queue": "a"}, "Exclude": ["*.csv"]}
    (mistake,) = mistakes_of(client, 3, project, {}, left_out)
    assert mistake.startswith("parameter 'data': there is no 'data/train.csv' among the files that are sent;")
    assert client.submit_run(3, project, {"data": "/on/the/cluster.csv"}, left_out).job_id
    assert client.submit_run(3, project, {"data": "s3://bucket/train.csv"}, left_out).job_id
    brought = {**left_out, "Environment": {"PreRunCommandOnComputeNode": "fetch-data"}}
    assert client.submit_run(3, project, {}, brought).job_id


def test_an_image_that_is_a_link_out_of_the_project_is_one_mistake(
    client: ComputeBackendClient, project: Path, tmp_path: Path
) -> None:
    """What the job cannot do without is looked at once, also where it is excluded."""
    (tmp_path / "shared.sif").write_bytes(b"SIF")
    (project / "image.sif").symlink_to("../shared.sif")
    for exclude in ([], ["*.sif"]):
        config = {"Resources": {"Queue": "a"}, "Environment": {"Apptainer": "image.sif"}, "Exclude": exclude}
        (mistake,) = mistakes_of(client, 3, project, {}, config)
        assert mistake.startswith("image.sif: it is a link that leads out of the project (to ../shared.sif)")


def test_arguments_of_another_kind_are_named(service: StandIn, client: ComputeBackendClient, project: Path) -> None:
    """A number where a name or a file was expected is a mistake like any other, and no request."""
    assert mistakes_of(client, 3, project, {}, 7, 8, run_name=9) == (
        "run_name: 9 is no name, expected 250 printable characters at most",
        "entry_point: 8 is no name of an entry point, expected e.g. main",
        "backend_config: 7 is neither a file nor what one would hold",
    )
    assert service.asked == []


def test_the_home_of_somebody_who_is_not_there(client: ComputeBackendClient, project: Path) -> None:
    """A tilde with a name that nobody has stays in the path, and the path is not there."""
    (mistake,) = mistakes_of(client, 3, "~no-such-user/project", {}, {"Resources": {"Queue": "a"}})
    assert mistake.startswith("~no-such-user/project: it cannot be read (No such file or directory), expected a folder")
    (mistake,) = mistakes_of(client, 3, project, {}, "~no-such-user/config.yaml")
    assert mistake.startswith("~no-such-user/config.yaml: there is no such file, ")


def test_two_names_for_one_argument(client: ComputeBackendClient, project: Path) -> None:
    """The old and the new name of the configuration may not contradict each other."""
    with pytest.raises(ConfigurationError, match="backend_config and backend_config_path are the same"):
        client.submit_run(3, project, {}, "a.yaml", backend_config_path="b.yaml")
    assert client.submit_run(3, project, {}, "backend-config.yaml", backend_config_path="backend-config.yaml").job_id


def test_a_mapping_that_is_no_json(client: ComputeBackendClient, project: Path) -> None:
    """What cannot be written down cannot be sent."""
    circle: dict[str, Any] = {}
    circle["Resources"] = circle
    (mistake,) = mistakes_of(client, 3, project, {}, circle)
    assert mistake.startswith("backend_config: it cannot be written as JSON (Circular reference")


def test_an_archive_over_the_limit_is_not_uploaded(
    service: StandIn, client: ComputeBackendClient, project: Path
) -> None:
    """The service says what it takes; what is larger is refused here, with the largest files."""
    service.limit = 2000
    (project / "large.bin").write_bytes(b"x" * 3000)
    (mistake,) = mistakes_of(client, 3, project, {}, "backend-config.yaml")
    assert mistake.startswith("the project is too large: 4.0 kB, and the service takes 2.0 kB.")
    assert "Largest: large.bin (3.0 kB), " in mistake
    assert service.asked_for("/compute-backend/submit/") == []


def test_the_limit_of_the_contract_holds_where_the_service_names_none(
    client: ComputeBackendClient, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project over 100 MiB is not uploaded to a service that says nothing of its limit."""
    monkeypatch.setattr(Archive, "size", 100 * 2**20 + 1)
    (mistake,) = mistakes_of(client, 3, project, {}, "backend-config.yaml")
    assert mistake.startswith("the project is too large: 105 MB, and the service takes 105 MB.")


def test_the_argument_order_of_other_releases(client: ComputeBackendClient, project: Path) -> None:
    """Who calls by position as some releases of the public client want it is told the order here."""
    with pytest.raises(ProjectError, match="run_name="):
        client.submit_run("a name", 1, str(project), {}, {"Resources": {"Queue": "batch"}})  # type: ignore[arg-type]
