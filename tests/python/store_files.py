"""Looking at a store's files from outside."""

from __future__ import annotations

from pathlib import Path


def leftovers(store_path: Path) -> list[Path]:
    """Temporary files that a finished or failed writer should have removed."""
    return [p for p in store_path.rglob("*") if p.name.startswith(".")]
