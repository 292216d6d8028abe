"""The page on the backend configuration says what the parser knows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mantik.compute import BackendConfig
from mantik.compute.backend_config import CONFIG_KEYS, UNUSED_KEYS
from mantik.compute.environment import APPTAINER_KEYS, COMMAND_KEYS, ENVIRONMENT_KEYS, PYTHON_KEYS
from mantik.compute.exclude import DEFAULTS
from mantik.compute.resources import RESOURCES_KEYS

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "compute-config.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([\w.]+)` \| ([^|]+) \| ([^|]*) ?\| `([^`]+)` \| ([^|]+) \|$", PAGE, re.MULTILINE)
WITHOUT_ROWS = {"Resources", "Environment"}


def known() -> set[str]:
    """Return all paths of keys that the parser knows."""
    nested = {"Apptainer": APPTAINER_KEYS, "Python": PYTHON_KEYS}
    nested |= {"PreRunCommand": COMMAND_KEYS, "PostRunCommand": COMMAND_KEYS}
    paths = set(CONFIG_KEYS) - WITHOUT_ROWS
    paths |= {f"Resources.{key}" for key in RESOURCES_KEYS}
    paths |= {f"Environment.{key}" for key in ENVIRONMENT_KEYS}
    return paths | {f"Environment.{key}.{inner}" for key, keys in nested.items() for inner in keys}


def test_every_key_has_a_row() -> None:
    """The tables have exactly the keys that the parser knows, each once, with a type and a meaning."""
    paths = [path for path, *_ in ROWS]
    assert sorted(paths) == sorted(known())
    assert all(kind.strip() and meaning.strip() for _, kind, _, _, meaning in ROWS)


@pytest.mark.parametrize(("path", "example"), [(path, example) for path, _, _, example, _ in ROWS])
def test_every_example_is_accepted(path: str, example: str) -> None:
    """A configuration with the example of a row, and what it needs besides, is one."""
    content: dict[str, Any] = {"Resources": {"Queue": "batch"}}
    *above, key = path.split(".")
    place = content
    for name in above:
        place = place.setdefault(name, {})
    place[key] = yaml.safe_load(example)
    if above[-1:] == ["Apptainer"]:
        place.setdefault("Path", "image.sif")
    if key == "ExecuteOnLoginNode":
        place["Command"] = "echo hello"
    config = BackendConfig.from_mapping(content)
    # An example that has no effect would show nothing.
    assert config != BackendConfig.from_mapping({"Resources": {"Queue": "other"}})
    assert (path in UNUSED_KEYS) == bool(config.unused)


@pytest.mark.parametrize("block", re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
def test_every_block_is_a_configuration(block: str) -> None:
    """The files on the page can be used as they are."""
    assert BackendConfig.from_mapping(yaml.safe_load(block)).resources.queue


def test_what_is_left_out_by_default_is_listed() -> None:
    """Each default pattern is named."""
    listed = PAGE.partition("left out by default: ")[2].partition("\n\n")[0]
    assert [pattern for pattern in DEFAULTS if f"`{pattern.rstrip('/')}`" not in listed] == []
