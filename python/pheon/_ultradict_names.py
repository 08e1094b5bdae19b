"""Names of dicts nested in a map of `pheon.ultradict`: the map's name and the keys that lead there."""

from __future__ import annotations

import ast
from typing import Any


def join_name(name: str, path: tuple[Any, ...]) -> str:
    """A name for the dict at `path` in the map `name`: ``counters['today'][7]``."""
    return name + "".join(f"[{key!r}]" for key in path)


def split_name(name: str) -> tuple[str, tuple[Any, ...]]:
    """What `join_name` was given; `ValueError` when the keys are not written as Python literals."""
    base, bracket, rest = name.partition("[")
    if not bracket:
        return name, ()
    path: list[Any] = []
    try:
        node = ast.parse(f"_[{rest}", mode="eval").body
        while isinstance(node, ast.Subscript):
            path.append(ast.literal_eval(node.slice))
            node = node.value
    except (SyntaxError, ValueError):
        raise ValueError(f"{name!r} does not name a dict in an UltraDict: its keys must be Python literals") from None
    return base, tuple(reversed(path))
