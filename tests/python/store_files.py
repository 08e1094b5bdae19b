"""Looking at a store's files from outside."""

from __future__ import annotations

import time
from pathlib import Path

# A server removes what a broken stream has left a moment after its client was told of the error.
SETTLE_SECONDS_MAX = 60.0


def leftovers(store_path: Path) -> list[Path]:
    """Temporary files that a finished or failed writer should have removed."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while True:
        try:
            found = [p for p in store_path.rglob("*") if p.name.startswith(".")]
        except FileNotFoundError:  # a folder went away while it was looked at
            found = [store_path]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)
