"""The documentation's tables: of what is tested, and of options."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "lightning.md"
HOW_TO = ROOT / "docs" / "how-to" / "track-lightning.md"
REFERENCE = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_the_tests_named_for_the_lightning_logger_exist() -> None:
    """Each file and function that the page names is there."""
    named = REFERENCE.findall(PAGE.read_text(encoding="utf-8"))
    missing = [f"{file}::{function}" for file, function in named if function not in functions_in(file)]
    assert missing == []


def test_each_row_for_the_lightning_logger_names_a_test() -> None:
    """Each row of a table has one, but for those that say none because there is nothing to test."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    claims = [row for row in rows if not row.endswith(("| Test |", "| none |"))]
    assert claims
    assert [row for row in claims if not REFERENCE.search(row)] == []


def test_all_options_of_the_lightning_logger_are_listed() -> None:
    """The table has the arguments of the constructor, in their order, and their defaults where it names them."""
    from mantik import MantikLogger

    table = HOW_TO.read_text(encoding="utf-8").partition("## Options")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \| (.+?) \|", table, re.MULTILINE)
    arguments = inspect.signature(MantikLogger).parameters
    assert [name for name, _ in listed] == list(arguments)
    named = {name: default for name, default in listed if re.fullmatch(r"`[^`]+`", default)}
    assert {name: ast.literal_eval(default.strip("`")) for name, default in named.items()} == {
        name: arguments[name].default for name in named
    }


def functions_in(file: str) -> set[str]:
    """Return the names of the functions of a test file; of none if it is not there."""
    path = ROOT / "tests" / (file if "/" in file else f"integrations/lightning/{file}")
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
