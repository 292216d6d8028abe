"""The whole way in one command: a platform, a login, a training, and the run in the browser.

Starts a platform on a free port of this machine with a throw-away user, runs ``quickstart.py`` against it through the
real login, and shows what was tracked. In a terminal the platform stays up until Ctrl-C, so that the link opens;
otherwise the demo ends by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mantik.exceptions import MantikError
from mantik.testing import Platform

QUICKSTART = Path(__file__).with_name("quickstart.py")
USERNAME = "demo"


def main() -> int:
    """Run the demo and return the exit code."""
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="mantik-demo-") as folder:
        platform = Platform(Path(folder) / "platform", username=USERNAME)
        try:
            with console.status("Starting a platform on this machine ..."):
                platform.start()
            with console.status("Training and tracking examples/quickstart.py ..."):
                training = _train(platform, Path(folder))
            if training.returncode != 0:
                console.print(f"[red]The training failed:[/red]\n{training.stdout}", markup=True)
                return 1
            _show(console, platform)
            _show_receipt(console, training.stdout)
            if sys.stdout.isatty():
                _wait(console, platform)
            else:
                console.print("The platform ends with the demo. Run it in a terminal to keep it up and open the link.")
        except MantikError as error:
            console.print(Text(f"The demo failed: {error}", style="red"))
            return 1
        except KeyboardInterrupt:
            console.print("\nStopped. The demo's data is removed.")
        finally:
            platform.stop()
    return 0


def _train(platform: Platform, folder: Path) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MANTIK_", "MLFLOW_"))}
    environment = {
        **clean,
        **platform.environment(),
        "MANTIK_HOME": str(folder / "home"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "NO_PROXY": "127.0.0.1",
        "PYTHONWARNINGS": "ignore",
    }
    return subprocess.run(
        [sys.executable, str(QUICKSTART)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _show(console: Console, platform: Platform) -> None:
    """Print what the platform holds: read back from it, not from the training."""
    held = platform.read_back
    run = held.runs("quickstart")[0]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("run", f"{run.name} ({run.status.lower()})")
    table.add_row("params", f"{len(run.params)} recorded")
    for name, value in sorted(run.metrics.items()):
        table.add_row(name, f"{value:.4f}")
    experiment = held.experiment("quickstart")
    for model in held.logged_models(experiment.experiment_id):
        table.add_row("model", str(model.name))
    for path in held.artifacts(run.run_id):
        table.add_row("artifact", path)
    table.add_row("data", f"{platform.data} (removed when the demo ends)")
    console.print(Panel(table, title="Tracked by mantik", title_align="left", expand=False))
    link = f"{platform.url}/#/experiments/{experiment.experiment_id}/runs/{run.run_id}"
    console.print("Open", Text(link, style="cyan"), soft_wrap=True)


def _show_receipt(console: Console, printed: str) -> None:
    """Print what the training itself said at its end: what was sent, and that nothing waits."""
    console.print("The training's receipt:", style="dim")
    receipt = printed[printed.find("mantik: ") :].strip()
    console.print(Text(receipt), soft_wrap=True)


def _wait(console: Console, platform: Platform) -> None:
    # The throw-away user exists until the demo ends, and the browser asks for it.
    console.print(f"Sign in as [bold]{platform.username}[/bold] with the password [bold]{platform.password}[/bold]")
    console.print("Press Ctrl-C to end the demo.")
    threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
