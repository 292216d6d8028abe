"""``mantik init``: the environment for a shell."""

from __future__ import annotations

import click

from mantik.settings import Settings
from mantik.tracking import prepare

__all__ = ["init"]


_EXAMPLES = """
\b
For this shell and what it starts:
  eval "$(mantik init)"

\b
For one command:
  env $(mantik init --no-export) mlflow experiments search
"""


@click.command(epilog=_EXAMPLES)
@click.option("--no-export", is_flag=True, help="Leave out 'export', for: env $(mantik init --no-export) command")
def init(*, no_export: bool) -> None:
    """Print the environment for a shell.

    One line per variable, quoted for a POSIX shell. When it fails, nothing is printed and the exit code is 1; to stop a
    script then: vars=$(mantik init) && eval "$vars"
    """
    click.echo(prepare(Settings.from_environment()).to_bash_statement(no_export))
