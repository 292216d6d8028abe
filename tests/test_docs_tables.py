"""The documentation's tables: of what is tested, and of options."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import runpy
from pathlib import Path

import pytest

import mantik

ROOT = Path(__file__).parents[1]
REFERENCE = re.compile(r"`([\w/]+\.py)::(\w+)`")

adapters = pytest.mark.parametrize("adapter", ["lightning", "keras", "scikit-learn"])


@adapters
def test_the_tests_that_are_named_exist(adapter: str) -> None:
    """Each file and function that an adapter's page names is there."""
    named = REFERENCE.findall(page(adapter))
    missing = [f"{file}::{function}" for file, function in named if function not in functions_in(file, adapter)]
    assert missing == []


@adapters
def test_each_row_names_a_test(adapter: str) -> None:
    """Each row of a table has one, but for those that say none because there is nothing to test."""
    rows = [line for line in page(adapter).splitlines() if line.startswith("| ") and "](../images/" not in line]
    claims = [row for row in rows if not row.endswith(("| Test |", "| none |", "| | |"))]
    assert claims
    assert [row for row in claims if not REFERENCE.search(row)] == []


@pytest.mark.parametrize(
    ("adapter", "name"),
    [("lightning", "MantikLogger"), ("keras", "MantikCallback"), ("scikit-learn", "sklearn_autolog")],
)
def test_all_options_are_listed(adapter: str, name: str) -> None:
    """The table has the arguments of what is called, in their order, and their defaults where it names them."""
    how_to = (ROOT / "docs" / "how-to" / f"track-{adapter}.md").read_text(encoding="utf-8")
    table = how_to.partition("## Options")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \| (.+?) \|", table, re.MULTILINE)
    arguments = inspect.signature(getattr(mantik, name)).parameters
    assert [name for name, _ in listed] == list(arguments)
    named = {name: default for name, default in listed if re.fullmatch(r"`[^`]+`", default)}
    assert {name: ast.literal_eval(default.strip("`")) for name, default in named.items()} == {
        name: arguments[name].default for name in named
    }


def test_the_gallery_is_whole() -> None:
    """The page shows each picture that is there, each of them is drawn by the tool, and none is large."""
    pictures = {path.stem: path for path in (ROOT / "docs" / "images" / "sklearn").glob("*.png")}
    assert set(re.findall(r"images/sklearn/(\w+)\.png", page("scikit-learn-pictures"))) == set(pictures)
    assert set(runpy.run_path(str(ROOT / "tools" / "draw_gallery.py"))["GALLERY"]) == set(pictures)
    assert {name: size for name, path in pictures.items() if (size := path.stat().st_size) > 60_000} == {}


def page(adapter: str) -> str:
    """Return an adapter's page of the reference."""
    return (ROOT / "docs" / "reference" / f"{adapter}.md").read_text(encoding="utf-8")


@functools.cache
def functions_in(file: str, adapter: str) -> set[str]:
    """Return the names of the functions of a test file; of none if it is not there."""
    folder = {"scikit-learn": "sklearn"}.get(adapter, adapter)
    path = ROOT / "tests" / (file if "/" in file else f"integrations/{folder}/{file}")
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
