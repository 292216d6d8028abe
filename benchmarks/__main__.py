"""``make bench``: measure and print. A ratio compares within its own table; seconds of another machine mean little."""

from __future__ import annotations

import os
import platform as machine
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks import calls, delivery, footprint, keras, lightning, sklearn, start, training
from benchmarks.peers import peers
from mantik.delivery.ending import close_all
from mantik.testing import Platform

if TYPE_CHECKING:
    from benchmarks.figures import Figure

ROUNDS = 15
SOME_ROUNDS = 9
FEW_ROUNDS = 3
PEERS = Path(os.environ.get("PEERS_PYTHON", ".venv-peers/bin/python"))


def main() -> None:
    """Run all benchmarks and print one page."""
    # Where it is no terminal, rich would take it for one of 80 columns and cut the figures off.
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(
        f"mantik {version('mantik')} · MLflow {version('mlflow')} · Python {machine.python_version()} · "
        f"{machine.system()} {machine.machine()} · {os.cpu_count()} CPUs · {ROUNDS} interleaved rounds"
    )
    for name in [name for name in os.environ if name.startswith(("MANTIK_", "MLFLOW_"))]:
        del os.environ[name]
    show(console, "Import (whole process)", start.imports(ROUNDS))
    with Platform() as platform, tempfile.TemporaryDirectory() as home:
        show(console, "Login (whole process)", start.login(platform, home, ROUNDS))
        os.environ.update(platform.environment(), MANTIK_HOME=home)
        show(console, "Login again (per call, in a running process)", calls.repeated_init(ROUNDS))
        show(console, "Authenticated call (per request, sqlite platform on this machine)", calls.log_metric(ROUNDS))
        show(console, "Store call (per call)", delivery.calls(home, ROUNDS), group=2)
        show(console, "Store call while the shipper is at work (single calls)", delivery.tails(FEW_ROUNDS))
        show(console, "Call of MLflow (per call, same platform)", delivery.fluent(ROUNDS))
        show(console, "Call of other trackers (per call)", peers(PEERS, ROUNDS), group=2)
        show(console, "Visible on the server", delivery.visible(ROUNDS))
        show(
            console,
            "Training (per step of a convolutional network)",
            training.slowdown(platform, home, ROUNDS),
            group=2,
        )
        show(
            console,
            "Training with Lightning, 8 metrics logged at every step (per step)",
            lightning.loggers(platform, home, PEERS, FEW_ROUNDS),
            group=3,
        )
        show(
            console,
            "Training with Lightning and a checkpoint every ten steps (per step)",
            lightning.outage(platform, home, SOME_ROUNDS),
            group=3,
        )
        for title, figures in keras.callbacks(platform, home, PEERS, FEW_ROUNDS).items():
            show(console, title, figures, group=None if "Begin" in title else 3)
        show(
            console,
            "Fit of a pipeline of scikit-learn, 569 x 30 (per call)",
            sklearn.fits(platform, home, SOME_ROUNDS, FEW_ROUNDS),
            group=3,
        )
        show(
            console,
            f"Grid search of scikit-learn, {sklearn.CANDIDATES} candidates (per call)",
            sklearn.searches(platform, home, FEW_ROUNDS),
            group=3,
        )
        show(console, f"Delivery of {delivery.POINTS:,} points (per 1000)", delivery.throughput(FEW_ROUNDS))
        facts(console, "A million points waiting", footprint.waiting(platform, home))
        # While the platform is still there: otherwise the end of this process waits for it.
        close_all()


def show(console: Console, title: str, figures: list[Figure], *, group: int | None = None) -> None:
    """Print one table; the first figure is what the others are compared with, or the first of each group of so many."""
    table = Table(title=title, title_justify="left")
    table.add_column("what", min_width=44)
    for heading in ("median", "min", "max", "ratio"):
        table.add_column(heading, justify="right")
    for number, figure in enumerate(figures):
        low, high = figure.spread
        base = 0 if group is None else number - number % group
        ratio = "" if number == base else f"{figure.ratio(figures[base]):.3f}"
        table.add_row(figure.name, _text(figure.median), _text(low), _text(high), ratio)
    console.print(table)


def facts(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    """Print one table of facts that are no times."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("what", min_width=44)
    table.add_column("value", justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _text(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.1f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


if __name__ == "__main__":
    main()
