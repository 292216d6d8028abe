"""``mantik runs``: submit a project as a job, and see what becomes of it."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import TYPE_CHECKING

import click
import yaml  # type: ignore[import-untyped]

from mantik.cli.folders import plain, print_rows
from mantik.compute.client import ComputeBackendClient
from mantik.compute.submission import Submission
from mantik.exceptions import MantikError
from mantik.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mantik.compute.job import Job
    from mantik.compute.submitted_run import SubmittedRun

__all__ = ["runs"]

_INTERRUPTED = 130
"""What a shell reports of a command that Ctrl-C ended."""

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
_job_argument = click.argument("job_id", metavar="JOB_ID")


def _verbosity(
    context: click.Context,  # noqa: ARG001  # click's signature
    parameter: click.Parameter,  # noqa: ARG001
    value: bool,  # noqa: FBT001
) -> None:
    if value:
        logging.basicConfig(format="%(name)s: %(message)s")
        logging.getLogger("mantik").setLevel(logging.DEBUG)


_verbose_option = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=_verbosity, help="Say more of what is done."
)


@click.group()
def runs() -> None:
    """Submit projects as jobs to the platform's compute backend.

    A JOB_ID is what 'runs submit' and 'runs list' show; the id of the job's run is good as well.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal need not have all letters that jobs write.
        sys.stdout.reconfigure(errors="replace")


@runs.command()
@click.argument("project", metavar="PROJECT")
@click.option(
    "--experiment-id",
    envvar="MLFLOW_EXPERIMENT_ID",
    required=True,
    help="Experiment that the run is to be in.  [default: MLFLOW_EXPERIMENT_ID]",
)
@click.option("--backend-config", required=True, help="Backend configuration: a file in the project, or from here.")
@click.option("--entry-point", default="main", show_default=True, help="Entry point, or a script of the project.")
@click.option("-P", "--parameter", "pairs", metavar="NAME=VALUE", multiple=True, help="Parameter; can be repeated.")
@click.option("--run-name", help="Name of the run.  [default: the platform chooses one]")
@click.option("--follow", is_flag=True, help="Print the job's output until it ends, and exit with its exit code.")
@_json_option
@_verbose_option
def submit(  # noqa: PLR0913  # its options
    *,
    project: str,
    experiment_id: str,
    backend_config: str,
    entry_point: str,
    pairs: tuple[str, ...],
    run_name: str | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Submit the MLflow project in the folder PROJECT.

    Everything that can be known here is checked before anything is sent. The exit code is 0 only if the service took
    the job; with --follow it is the job's own. Ctrl-C then leaves the job running.
    """
    submission = Submission.of(
        experiment_id, project, _parameters(pairs), backend_config, entry_point=entry_point, run_name=run_name
    )
    try:
        submitted = _client().submit(submission, _say)
    except KeyboardInterrupt:
        _say("Interrupted before the service had answered: 'mantik runs list' shows whether the job was submitted.")
        sys.exit(_INTERRUPTED)
    if as_json:
        click.echo(json.dumps(submitted.json()))
    else:
        click.echo(_submitted(submitted), err=follow)
    if follow:
        try:
            ended = _followed(submitted.job_id, submitted.client, to_stderr=as_json)
        except MantikError:
            _say(f"Job {submitted.job_id} was submitted and is not affected by the error. {_again(submitted.job_id)}")
            raise
        if as_json:
            click.echo(json.dumps(ended.to_mapping()))
        sys.exit(ended.shell_code)


@runs.command("list")
@click.option("-o", "--offset", type=click.IntRange(min=0), default=0, help="How many of the newest to skip.")
@click.option("-t", "--total", type=click.IntRange(min=1), default=50, show_default=True, help="How many to show.")
@_json_option
@_verbose_option
def list_command(*, offset: int, total: int, as_json: bool) -> None:
    """Show your jobs, the newest first: id, when it was submitted, queue, status, run."""
    jobs = _client().list(offset, total)
    if as_json:
        for job in jobs:
            click.echo(json.dumps(job.to_mapping()))
        return
    print_rows(("Job ID", "Submitted At", "Queue", "Status", "Run"), [_row(job) for job in jobs])
    if not jobs:
        click.echo("There are no jobs.", err=True)


@runs.command()
@_job_argument
@_verbose_option
def status(*, job_id: str) -> None:
    """Print the status of a job: one word.

    QUEUED, STARTING, RUNNING, SUCCEEDED, FAILED, CANCELLED, TIMED_OUT or LOST. Why it is in it goes to standard error.
    """
    job = _client().status(job_id)
    click.echo(job.state)
    if job.reason:
        click.echo(plain(job.reason), err=True)


@runs.command()
@_job_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends, and exit with its exit code.")
@_verbose_option
def logs(*, job_id: str, follow: bool) -> None:
    """Print the output of a job."""
    client = _client()
    if follow:
        sys.exit(_followed(job_id, client).shell_code)
    _print_all(client.logs(job_id))


@runs.command()
@_job_argument
@_verbose_option
def cancel(*, job_id: str) -> None:
    """End a job; its run becomes KILLED."""
    job = _client().cancel(job_id)
    if job.has_ended and job.state != "CANCELLED":
        click.echo(f"Job {job.job_id} had ended already: {job.state}.")
    else:
        click.echo(f"Job {job.job_id} is being cancelled.")


@runs.command()
@_job_argument
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["JSON", "YAML"], case_sensitive=False),
    default="YAML",
    show_default=True,
    help="In which form.",
)
@_verbose_option
def info(*, job_id: str, form: str) -> None:
    """Print everything that is known of a job."""
    content = _client().status(job_id).to_mapping()
    if form.upper() == "JSON":
        click.echo(json.dumps(content, indent=2))
    else:
        click.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), nl=False)


@runs.command()
@_job_argument
@click.option("--remote-path", help="File or folder in the job's working folder.  [default: all of it]")
@click.option("--local-path", default=".", show_default=True, help="Folder to put it in.")
@_verbose_option
def download(*, job_id: str, remote_path: str | None, local_path: str) -> None:
    """Fetch files of a job's working folder; nothing that is here is overwritten."""
    click.echo(str(_client().download(job_id, remote_path, local_path)))


def _client() -> ComputeBackendClient:
    return ComputeBackendClient.from_settings(Settings.from_environment())


def _say(sentence: str) -> None:
    click.echo(plain(sentence), err=True)


def _parameters(pairs: tuple[str, ...]) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise click.UsageError(f"-P {pair!r} is no parameter, expected -P NAME=VALUE.")
        if name in parameters:
            raise click.UsageError(f"-P {name} is there twice; keep one of them.")
        parameters[name] = value
    return parameters


def _submitted(run: SubmittedRun) -> str:
    submitted = f"Job {run.job_id} was submitted: run {run.run_id} of experiment {run.experiment_id}."
    return f"{plain(submitted)}\n{plain(run.link)}"


def _followed(job_id: str, client: ComputeBackendClient, *, to_stderr: bool = False) -> Job:
    """Print a job's output until it ends, and return the job."""
    try:
        _print_all(client.logs(job_id, follow=True), to_stderr=to_stderr)
        job = client.wait(job_id)
    except KeyboardInterrupt:
        click.echo(err=True)
        _say(f"Job {job_id} goes on. {_again(job_id)}")
        _say(f"End it: mantik runs cancel {job_id}")
        sys.exit(_INTERRUPTED)
    _say(str(job))
    return job


def _again(job_id: str) -> str:
    return f"Follow it again: mantik runs logs {job_id} --follow"


def _print_all(lines: Iterable[str], *, to_stderr: bool = False) -> None:
    for line in lines:
        click.echo(line, nl=False, err=to_stderr)


def _row(job: Job) -> tuple[str, ...]:
    moment = job.submitted_at.isoformat(timespec="seconds") if job.submitted_at is not None else ""
    return job.job_id, moment, job.queue or "", job.state, job.run_id
