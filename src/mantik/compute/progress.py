"""Shows how far an upload is, where somebody looks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["upload_bar"]


@contextlib.contextmanager
def upload_bar() -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error while an upload goes on, if that is a terminal.

    Yields:
        What is to be told how many bytes were handed over, and of how many.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Uploading")
        yield lambda sent, total: progress.update(task, completed=sent, total=total)
