from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from mantik.compute.exclude import DEFAULTS, Exclusion
from mantik.compute.mistakes import Mistakes
from mantik.compute.tree import survey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def fill(folder: Path, *names: str) -> Path:
    """Make empty files."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return folder


def sent_from(folder: Path, exclude: Sequence[str] = (), always: Sequence[str] = ()) -> list[str]:
    """Return the names of what is sent."""
    mistakes = Mistakes()
    tree = survey(folder, Exclusion.of(folder, exclude, mistakes), always, mistakes)
    assert mistakes.found == []
    return [member.name for member in tree.members]


FILES = ("a.sif", "data.csv", "sub/b.sif", "sub/data.csv", "sub/deep/c.png", "sub/d.png", "other/sub/e.png", "train.py")


@pytest.mark.parametrize(
    ("pattern", "left_out"),
    [
        ("*.sif", {"a.sif", "sub/b.sif"}),
        ("data.csv", {"data.csv", "sub/data.csv"}),
        ("**/*.png", {"sub/deep/c.png", "sub/d.png", "other/sub/e.png"}),
        ("sub/", {"sub/b.sif", "sub/data.csv", "sub/deep/c.png", "sub/d.png", "other/sub/e.png"}),
    ],
)
def test_the_patterns_of_the_contract(pattern: str, left_out: set[str], tmp_path: Path) -> None:
    """What early releases excluded is excluded: a name or glob at any depth, `name/` any folder of that name."""
    assert set(sent_from(fill(tmp_path, *FILES), [pattern])) == set(FILES) - left_out


@pytest.mark.parametrize(
    ("pattern", "left_out"),
    [
        ("sub", {"sub/b.sif", "sub/data.csv", "sub/deep/c.png", "sub/d.png", "other/sub/e.png"}),
        ("sub/deep/", {"sub/deep/c.png"}),
        ("sub/*.png", {"sub/d.png"}),
        ("/data.csv", {"data.csv"}),
    ],
)
def test_patterns_that_had_no_effect_have_one(pattern: str, left_out: set[str], tmp_path: Path) -> None:
    """Anchored patterns and names without a slash mean what they mean in .gitignore."""
    assert set(sent_from(fill(tmp_path, *FILES), [pattern])) == set(FILES) - left_out


def test_later_patterns_win(tmp_path: Path) -> None:
    """Exclude comes after .mantikignore, which comes after the defaults; each can take files back in."""
    fill(tmp_path, ".env", "a.csv", "b.csv", "c.csv")
    (tmp_path / ".mantikignore").write_text("# data\n\n*.csv\n!b.csv\n!.env\n", encoding="utf-8")
    assert sent_from(tmp_path, ["!c.csv", "b.csv"]) == [".env", ".mantikignore", "c.csv"]


def test_what_is_left_out_by_default(tmp_path: Path) -> None:
    """Repositories, secrets, caches and local runs stay here; environments are known by what is in them."""
    names = [
        pattern.replace("*", "local").rstrip("/") + ("/x" if pattern.endswith("/") else "") for pattern in DEFAULTS
    ]
    fill(tmp_path, *names, "sub/.git/HEAD", "my-env/pyvenv.cfg", "conda/conda-meta/history", "pyvenv.py", ".gitignore")
    mistakes = Mistakes()
    tree = survey(tmp_path, Exclusion.of(tmp_path, [], mistakes), [], mistakes)
    assert [member.name for member in tree.members] == [".gitignore", "pyvenv.py"]
    reasons = {left.name: left.reason for left in tree.left_out}
    assert (reasons["my-env/"], reasons["conda/"]) == ("a Python environment", "a Python environment")
    assert (reasons["sub/.git/"], reasons[".env"]) == ("by default", "by default")


def test_an_environment_can_be_taken_back_in(tmp_path: Path) -> None:
    """A pattern that names it wins over what is in it."""
    fill(tmp_path, "env/pyvenv.cfg")
    assert sent_from(tmp_path, ["!env/"]) == ["env/pyvenv.cfg"]


def test_wildcards_take_nothing_back_that_is_left_out_by_default(tmp_path: Path) -> None:
    """`!*/` and `!*` are about the project's own files: a secret is taken back in by its name only."""
    fill(tmp_path, ".env", ".git/config", "venv/pyvenv.cfg", "x.py")
    assert sent_from(tmp_path, ["!*", "!*/", "!.e*"]) == ["x.py"]


def test_a_hash_in_a_list_is_no_comment(tmp_path: Path) -> None:
    """An item of Exclude that begins with a hash is a name, as items are no lines of a file."""
    assert sent_from(fill(tmp_path, "#recycle/x", "y"), ["#recycle/"]) == ["y"]


def test_a_line_that_is_no_pattern_is_named(tmp_path: Path) -> None:
    """A mistake in .mantikignore is said with its line."""
    (tmp_path / ".mantikignore").write_text("*.sif\n!\n[z-a]\n", encoding="utf-8")
    mistakes = Mistakes()
    Exclusion.of(tmp_path, [], mistakes)
    assert [mistake.partition(":")[0] for mistake in mistakes.found] == [
        ".mantikignore, line 2",
        ".mantikignore, line 3",
    ]


def test_what_is_always_sent_is_sent_once(tmp_path: Path) -> None:
    """A file that the job cannot do without is sent whatever excludes it, and is not called left out."""
    fill(tmp_path, "image.sif", "sub/config.yaml", "x.py")
    mistakes = Mistakes()
    exclusion = Exclusion.of(tmp_path, ["*.sif", "sub/"], mistakes)
    tree = survey(tmp_path, exclusion, ["image.sif", "sub/config.yaml", "x.py"], mistakes)
    assert [member.name for member in tree.members] == ["image.sif", "sub/config.yaml", "x.py"]
    assert [left.name for left in tree.left_out] == ["sub/"]


PATTERNS = [
    *(
        "*.a",
        "b",
        "b/",
        "/b",
        "c/*",
        "!c/d.a",
        "**/d.a",
        "c/**",
        "!*.a",
        "?",
        "[bc]",
        "c/b/",
        "b/**/d.a",
        "!b/",
        "*",
        "!*/",
    ),
    *("**/c/", "!**/b", "[!a]*", "d.?", "!c/", "!x/y/e", "/*", "**/b/**", "a/**/b", "c/**/", "!/*/", "x/*/"),
]


@given(some.lists(some.sampled_from(PATTERNS), max_size=5))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_patterns_mean_what_git_takes_them_for(tmp_path: Path, patterns: list[str]) -> None:
    """What is sent of a project is what git would track of it under the same patterns."""
    names = [f"{above}{name}" for above in ("", "c/", "x/", "x/c/", "x/y/") for name in ("d.a", "e")]
    fill(tmp_path, *names, "x/b/d.a", "x/b/z/d.a", "c/b/e", "y/b")
    (tmp_path / ".gitignore").write_text("\n".join(patterns), encoding="utf-8")
    if not (tmp_path / ".git").exists():
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)  # noqa: S607
    listing = ["git", "ls-files", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert sent_from(tmp_path, patterns) == sorted(done.stdout.splitlines())
