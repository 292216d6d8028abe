"""The root of the command line: which commands there are, and how their errors look."""

from __future__ import annotations

import importlib
from typing import Any

import click

import mantik as package
from mantik.exceptions import MantikError

__all__ = ["mantik"]

_COMMANDS = {
    "init": "mantik.cli.shell:init",
    "login": "mantik.cli.login:login",
    "logout": "mantik.cli.login:logout",
    "runs": "mantik.cli.runs:runs",
    "server": "mantik.server.command:server",
    "spool": "mantik.cli.spool:spool",
    "status": "mantik.cli.status:status",
    "sync": "mantik.cli.sync:sync_command",
}


class LazyGroup(click.Group):
    """Commands that are imported when they are called, so that ``mantik init`` in a login script starts at once.

    Errors of mantik end the command with one sentence on stderr and exit code 1, never with a traceback.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the names of all commands."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command of a name."""
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command = getattr(importlib.import_module(module), name)
        return command if isinstance(command, click.Command) else None

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  # click's signature
        """Run the command and put its errors into one sentence."""
        try:
            return super().invoke(ctx)
        except MantikError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package.__version__, prog_name="mantik")
def mantik() -> None:
    """Track trainings on a mantik platform."""
