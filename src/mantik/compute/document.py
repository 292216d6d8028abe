"""Reads YAML and JSON that somebody else may have written: bounded, and without taking silence for an answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mantik.compute.mistakes import Mistakes

__all__ = ["mapping_in", "read_mapping"]

_MOST_BYTES = 1024 * 1024
_MOST_ALIASES = 100


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """A safe loader that refuses what makes a small file large, and a key that is there twice.

    Aliases of aliases let a few lines stand for gigabytes, and merge keys unfold them while the file is read.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._aliases = 0
        self._anchored = 0

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401  # yaml's signature
        event = self.peek_event()
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._anchored or self._aliases > _MOST_ALIASES:
                raise yaml.composer.ComposerError(None, None, "aliases of aliases, or too many", event.start_mark)
            return super().compose_node(parent, index)
        anchored = event.anchor is not None
        self._anchored += anchored
        node = super().compose_node(parent, index)
        self._anchored -= anchored
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_mapping(path: Path, place: str, mistakes: Mistakes) -> Mapping[Any, Any] | None:
    """Read a file that has to hold one mapping.

    Args:
        path: The file. ``.json`` is read as JSON, any other name as YAML, of which JSON is a part.
        place: What to call the file in a mistake.
        mistakes: Where to say what is wrong.

    Returns:
        The mapping; None if there is none, which is a mistake then.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        mistakes.add(place, f"it cannot be read ({error.strerror})")
        return None
    if len(content) > _MOST_BYTES:
        mistakes.add(place, "it is larger than 1 MiB; is that the right file?")
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        mistakes.add(place, f"it is no text in UTF-8 (byte {error.start + 1})")
        return None
    return mapping_in(text, place, mistakes, is_json=path.suffix.lower() == ".json")


def mapping_in(text: str, place: str, mistakes: Mistakes, *, is_json: bool) -> Mapping[Any, Any] | None:
    """Read a text that has to hold one mapping; None if it does not, which is a mistake then.

    Args:
        text: YAML or JSON.
        place: What to call the file in a mistake.
        mistakes: Where to say what is wrong.
        is_json: Whether it has to be JSON.
    """
    try:
        content = json.loads(text, object_pairs_hook=_once) if is_json else yaml.load(text, Loader=_Loader)  # noqa: S506  # the loader is a safe one
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        mistakes.add(place, f"it is no valid YAML ({where}: {error.problem or error.context})")
        return None
    except yaml.YAMLError as error:
        mistakes.add(place, f"it is no valid YAML ({' '.join(str(error).split())})")
        return None
    except RecursionError:
        mistakes.add(place, "it is nested too deeply")
        return None
    except ValueError as error:
        # What is written like a number or a date, and is none.
        mistakes.add(place, f"it is no valid {'JSON' if is_json else 'YAML'} ({error})")
        return None
    if isinstance(content, dict):
        return content
    mistakes.add(place, f"it holds {_kind(content)}, expected a mapping of keys to values")
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} twice")
    return content


def _kind(content: object) -> str:
    if content is None:
        return "nothing"
    return "a list" if isinstance(content, list) else f"a single value ({type(content).__name__})"
