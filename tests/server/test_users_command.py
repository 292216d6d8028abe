from __future__ import annotations

import os
import pty
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from mantik.cli.commands import mantik
from mantik.server import command
from mantik.server.passwords import is_good_name, is_good_password
from mantik.server.store import Store

from .running import COMMAND, DEADLINE, PASSWORD, run_command

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from .running import RunningPlatform


def users(data: Path, *arguments: str, stdin: str = PASSWORD) -> Result:
    """Run ``mantik server users`` in this process."""
    return CliRunner().invoke(mantik, ["server", "users", *arguments, "--data", str(data)], input=stdin)


def test_users_come_and_go(tmp_path: Path) -> None:
    """The real command adds, lists and removes users; the list is one line each on standard output."""
    data = ("--data", str(tmp_path / "new" / "data"))
    assert run_command("users", "add", "alice", "--password-stdin", *data, stdin=PASSWORD).stdout == ""
    listed = run_command("users", "list", *data)
    assert [line.split("\t")[0] for line in listed.stdout.splitlines()] == ["alice"]
    assert run_command("users", "remove", "alice", *data).returncode == 0
    emptied = run_command("users", "list", *data)
    assert (emptied.returncode, emptied.stdout) == (0, "")
    assert "No users yet" in emptied.stderr


def test_files_are_private_and_passwords_hashed(tmp_path: Path) -> None:
    """Directories 0700, the database 0600, whatever the umask; of the password only an argon2id hash is kept."""
    umask = os.umask(0)
    try:
        users(tmp_path / "outer" / "data", "add", "alice", "--password-stdin")
    finally:
        os.umask(umask)
    data = tmp_path / "outer" / "data"
    assert stat.S_IMODE(data.stat().st_mode) == stat.S_IMODE(data.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in data.iterdir()} == {0o600}
    user = Store(data / "platform.db").user_named("alice")
    assert user
    assert user.password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert not any(PASSWORD.encode() in path.read_bytes() for path in data.iterdir())


def test_existing_and_unknown_users_are_told(tmp_path: Path) -> None:
    """Each error is one line that says what to do, and the exit code is 1."""
    users(tmp_path, "add", "alice", "--password-stdin")
    again = users(tmp_path, "add", "alice", "--password-stdin")
    assert again.exit_code == 1
    assert again.stderr == (
        "Error: There is a user 'alice' already. To change the password: mantik server users passwd alice\n"
    )
    for arguments in (("remove", "bob"), ("passwd", "bob", "--password-stdin")):
        unknown = users(tmp_path, *arguments)
        assert unknown.exit_code == 1
        assert unknown.stderr == "Error: There is no user 'bob'. To see the users: mantik server users list\n"


@pytest.mark.parametrize("arguments", [("list",), ("remove", "alice"), ("passwd", "alice", "--password-stdin")])
def test_wrong_directory_is_not_made(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Only adding a user makes a platform; a misspelled directory is an error."""
    result = users(tmp_path / "typo", *arguments)
    assert result.exit_code == 1
    assert "There is no platform in" in result.stderr
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize(
    "name", ["", "a b", "a:b", "a\tb", "a\u00a0b", "a\nb", "a\x00b", "a\u200bb", "\ud800", "a" * 129]
)
def test_bad_names(tmp_path: Path, name: str) -> None:
    """White space, control characters, colons and long names are refused with the rule."""
    assert not is_good_name(name)
    result = users(tmp_path, "add", "--password-stdin", "--", name) if name.isprintable() else None
    assert result is None or result.exit_code != 0


def test_bad_name_is_told_the_rule(tmp_path: Path) -> None:
    """The rule is in the error."""
    result = users(tmp_path, "add", "a b", "--password-stdin")
    assert "A user name has 1 to 128 printable characters and contains no white space and no colon." in result.stderr


@pytest.mark.parametrize("name", ["a", "alice", "alice@example.org", "DOMAIN\\alice", "réné", "李", "a" * 128])
def test_good_names(name: str) -> None:
    """Whatever else people are called is a name."""
    assert is_good_name(name)


@pytest.mark.parametrize("password", ["", "short-7", "my-Alice-1234", "x" * 257])
def test_weak_passwords(tmp_path: Path, password: str) -> None:
    """Short, endless and guessable passwords are refused with the rule, and no user is added."""
    assert not is_good_password(password, "alice")
    result = users(tmp_path, "add", "alice", "--password-stdin", stdin=password)
    assert "A password has 8 to 256 characters and does not contain the user name." in result.stderr
    assert result.exit_code == 1
    assert password == "" or password not in result.stderr
    assert Store(tmp_path / "platform.db").users() == []


def test_short_names_do_not_spoil_passwords() -> None:
    """A user called "a" may have an "a" in the password."""
    assert is_good_password("a-long-password", "a")


def test_password_is_never_an_argument() -> None:
    """There is no option that takes a password."""
    options = {option for name in ("add", "passwd") for option in command.users.commands[name].params}
    assert {option.name for option in options} == {"name", "data", "password_stdin"}


def test_password_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    """On a terminal the password is typed blind, and again."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "users", "add", "alice", "--data", str(tmp_path)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    for question in (b"New password for alice: ", b"Repeat for confirmation: "):
        while not shown.endswith(question):
            shown += os.read(ours, 1)
        os.write(ours, f"{PASSWORD}\n".encode())
    assert process.wait(DEADLINE) == 0
    shown += os.read(ours, 4096)
    os.close(ours)
    assert PASSWORD.encode() not in shown
    assert Store(tmp_path / "platform.db").user_named("alice")


def test_data_may_stand_further_left(tmp_path: Path) -> None:
    """``mantik server --data DIR users list`` means the same directory."""
    users(tmp_path, "add", "alice", "--password-stdin")
    for arguments in (["--data", str(tmp_path), "users", "list"], ["users", "--data", str(tmp_path), "list"]):
        assert CliRunner().invoke(mantik, ["server", *arguments]).stdout.startswith("alice\t")


def test_directory_follows_mantik_home(tmp_path: Path) -> None:
    """Without ``--data`` the platform is in ``$MANTIK_HOME/server``."""
    done = run_command("users", "add", "alice", "--password-stdin", stdin=PASSWORD, MANTIK_HOME=str(tmp_path))
    assert done.returncode == 0
    assert (tmp_path / "server" / "platform.db").exists()


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the error says in one line how to install it."""
    monkeypatch.setattr(command, "find_spec", lambda module: None if module in {"argon2", "flask"} else object())
    result = users(tmp_path, "list")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: mantik server users needs the package 'argon2-cffi', which is not installed. "
        "Install it with: pip install 'mantik[server]'\n"
    )
    result = CliRunner().invoke(mantik, ["server", "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "mantik server needs the package 'mlflow'" in result.stderr


def test_command_is_light() -> None:
    """Looking at the help loads none of the packages of the extra."""
    code = (
        "import sys; from mantik.server.command import server; "
        "print([m for m in ('mlflow', 'starlette', 'argon2', 'joserfc', 'sqlite3') if m in sys.modules])"
    )
    done = subprocess.run([COMMAND[0], "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert done.stdout == "[]\n"


def test_changes_hold_at_once(platform: RunningPlatform) -> None:
    """A running platform knows a new user, a new password and a removal with the next request."""
    data = ("--data", str(platform.config.data))
    assert platform.create_tokens("carol").status_code == 401
    platform.add_user("carol")
    token = platform.access_token("carol")
    assert platform.get("/api/3.0/mlflow/server-info", token).status_code == 200

    run_command("users", "passwd", "carol", "--password-stdin", *data, stdin="another-password-1")
    ended = platform.get("/api/3.0/mlflow/server-info", token)
    assert (ended.status_code, ended.text) == (401, "Invalid token")
    assert platform.create_tokens("carol").status_code == 401
    token = platform.create_tokens("carol", "another-password-1").json()["AccessToken"]
    assert platform.get("/api/3.0/mlflow/server-info", token).status_code == 200

    run_command("users", "remove", "carol", *data)
    assert platform.get("/api/3.0/mlflow/server-info", token).status_code == 401
    assert platform.create_tokens("carol", "another-password-1").status_code == 401
