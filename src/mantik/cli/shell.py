"""``mantik init``: the environment for a shell."""

from __future__ import annotations

import click

from mantik.settings import Settings
from mantik.tracking import prepare

__all__ = ["init"]


@click.command()
@click.option("--no-export", is_flag=True, help="Leave out 'export', for: env $(mantik init --no-export) command")
def init(*, no_export: bool) -> None:
    r"""Print the environment for a shell.

    \b
    eval $(mantik init)                     # for this shell and what it starts
    env $(mantik init --no-export) mlflow experiments search

    Nothing is printed when it fails, and the exit code is 1. To stop a script then: vars=$(mantik init) && eval "$vars"
    """
    click.echo(prepare(Settings.from_environment()).to_bash_statement(no_export))
