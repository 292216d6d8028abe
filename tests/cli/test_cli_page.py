"""The page on the command line says what click knows: every command, every option, and nothing else."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from mantik.cli.commands import mantik

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
SECTIONS = re.split(r"^#{2,3} (mantik .+)$", PAGE, flags=re.MULTILINE)
HELP = {"-h", "--help"}
GROUP = ("COMMAND [ARGS]...", "[COMMAND] [ARGS]...")


def commands(command: click.Command = mantik, path: str = "mantik") -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all below it, each with what a user types."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, f"{path} {name}")


COMMANDS = dict(commands())


def options_of(command: click.Command) -> set[str]:
    """Return all spellings of a command's options, but for that of help, which each has."""
    return {name for parameter in command.params for name in parameter.opts if name.startswith("-")}


def usage_of(path: str) -> str:
    """Return a command as it is typed, with its arguments and without its options."""
    pieces = COMMANDS[path].collect_usage_pieces(click.Context(COMMANDS[path]))
    return " ".join([path, *(piece for piece in pieces if piece not in {"[OPTIONS]", *GROUP})])


def rows() -> Iterator[tuple[str, set[str]]]:
    """Yield a command and the options that a row of a table names of it."""
    for heading, text in zip(SECTIONS[1::2], SECTIONS[2::2], strict=True):
        below = [path for path in COMMANDS if path.startswith(f"{heading} ")]
        named: list[str] | None = None
        for line in text.splitlines():
            first = line.removeprefix("| ").partition(" |")[0]
            options = set(re.findall(r"`(-[^ `]+)", first))
            of = re.findall(r"`(\w+)`", first.partition(" of ")[2])
            if not line.startswith("|"):
                named = None
            elif first.startswith("Option"):
                named = of
            elif named is not None and options:
                everything = below if first.endswith(" of all") else [heading]
                yield from ((path, options) for path in [f"{heading} {name}" for name in of or named] or everything)


def typed() -> set[str]:
    """Return what the page shows of the command line: headings, code in a text, lines of code."""
    code = re.findall(r"`(mantik [^`]*)`", PAGE) + re.findall(r"^(?:\$ )?(mantik .*)$", PAGE, re.MULTILINE)
    return {line.replace(" [OPTIONS]", "") for line in [*SECTIONS[1::2], *code]}


def test_every_option_has_a_row() -> None:
    """The tables have exactly the options that there are, in all their spellings, each once for each command."""
    found: dict[str, list[str]] = {}
    for path, options in rows():
        found.setdefault(path, []).extend(options)
    known = {path: options_of(command) for path, command in COMMANDS.items() if path != "mantik"}
    assert {path: sorted(options) for path, options in found.items()} == {
        path: sorted(options) for path, options in known.items() if options
    }
    usage = SECTIONS[0].partition("```text\n")[2].partition("```")[0]
    assert set(re.findall(r"--?[a-z]+", usage)) == options_of(mantik) | HELP


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_is_shown(path: str) -> None:
    """Each command is on the page with its arguments."""
    assert path == "mantik" or usage_of(path) in typed()


@pytest.mark.parametrize("line", sorted(typed()))
def test_nothing_else_is_shown(line: str) -> None:
    """What the page shows is a command, with options that it has."""
    if line.startswith("mantik ["):
        return
    words, path = shlex.split(line), "mantik"
    while len(words) > 1 and f"{path} {words[1]}" in COMMANDS:
        path = f"{path} {words.pop(1)}"
    assert path != "mantik"
    assert not isinstance(COMMANDS[path], click.Group) or words[1:] == []
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= options_of(COMMANDS[path]) | HELP
