"""The documentation's tables of what is tested."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "lightning.md"
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


def functions_in(file: str) -> set[str]:
    """Return the names of the functions of a test file; of none if it is not there."""
    path = ROOT / "tests" / (file if "/" in file else f"integrations/lightning/{file}")
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
