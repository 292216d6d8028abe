"""A platform as its user starts it: the real command in a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import requests

from mantik.server.config import ServerConfig

COMMAND = [sys.executable, "-m", "mantik", "server"]
PASSWORD = "correct-horse-battery"
DEADLINE = 120.0


def run_command(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``mantik server`` with these arguments to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        env={**os.environ, **environment},
    )


class RunningPlatform:
    """``mantik server`` in a process, ready to answer."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.config = ServerConfig(data)
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", "--data", str(data), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.ready_line = self.process.stdout.readline()
        self.url = self.ready_line.removeprefix("ready ").strip()

    def add_user(self, name: str, password: str = PASSWORD) -> None:
        """Add a user through the command line."""
        done = run_command("users", "add", name, "--password-stdin", "--data", str(self.config.data), stdin=password)
        assert done.returncode == 0, done.stderr

    def create_tokens(self, name: str, password: str = PASSWORD) -> requests.Response:
        """Ask for tokens as a client does."""
        return requests.post(
            f"{self.url}/api/mantik/tokens/create", json={"username": name, "password": password}, timeout=DEADLINE
        )

    def access_token(self, name: str) -> str:
        """Return a fresh access token."""
        return str(self.create_tokens(name).json()["AccessToken"])

    def get(self, path: str, token: str) -> requests.Response:
        """Send a GET request with a token."""
        return requests.get(self.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=DEADLINE)

    def server_processes(self) -> list[int]:
        """Return the ids of the live processes that serve this platform, wherever they hang in the process tree."""
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and int(entry.name) != self.process.pid and self._serves(entry)
        ]

    def _serves(self, entry: Path) -> bool:
        try:
            variables = (entry / "environ").read_bytes()
            is_zombie = b"\nState:\tZ" in (entry / "status").read_bytes()
        except OSError:
            return False
        return not is_zombie and f"MANTIK_SERVER_DATA={self.config.data}\0".encode() in variables

    def stop(self) -> str:
        """Stop the platform as Ctrl-C's little sister does, and return what else it wrote to its standard output."""
        self.process.send_signal(signal.SIGTERM)
        rest, _ = self.process.communicate(timeout=DEADLINE)
        return rest
