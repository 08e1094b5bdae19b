"""What the tests of unlinking run in other processes: see `live_children`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from children import _until_orphaned, reporting
from live_children import open_map

import pheon

VALUE_LENGTH = 3000


def value_in(live: pheon.LiveMap) -> str:
    """A value that only this map may have."""
    uuid = live.info()["uuid"]
    return (uuid * (VALUE_LENGTH // len(uuid) + 1))[:VALUE_LENGTH]


def write_to_whatever_has_the_name(place: tuple[str, str | None], number: int, state: Any, failures: Path) -> None:
    """Writes through a handle until its map is unlinked, then through one of the next map, until the parent says 2."""
    with reporting(failures):
        for _ in _until_orphaned():
            if state.value == 2:
                return
            try:
                live = open_map(place, create=False)
                value = value_in(live)
                with live.lock_key(number):
                    live["children"] = 1
                for i in range(1_000_000):
                    live[number, i % 7] = value
                    assert live[number, i % 7] == value
                    if i % 50 == 0:
                        del live[number, i % 7]
                        assert set(live.snapshot().values()) <= {value, 1, "parent's " + value}
            except (pheon.NotFoundError, pheon.ClosedError):
                # Only the parent changes the state here: a change of ours could undo its.
                pass


def write_after_removal(place: tuple[str, str | None], state: Any, failures: Path) -> None:
    """Has a map open (1) which somebody removes who cannot open it (2)."""
    with reporting(failures):
        live = open_map(place, create=False)
        live["a"] = 1
        state.value = 1
        for _ in _until_orphaned():
            if state.value == 2:
                break
        assert live["a"] == 1
        with pytest.raises(pheon.ClosedError):
            live["a"] = 2
        state.value = 3


def read_after_unlinking(place: tuple[str, str | None], reads: list[str], state: Any, failures: Path) -> None:
    """Opens a map (1), and reads it when the parent has changed and unlinked it (2). What is gone is said to be so."""
    with reporting(failures):
        live = open_map(place, create=False)
        assert live["a"] == 1
        state.value = 1
        for _ in _until_orphaned():
            if state.value == 2:
                break
        ways = {
            "get": lambda: live["a"],
            "get missing": lambda: live.get("missing"),
            "contains": lambda: "b" in live,
            "snapshot": lambda: dict(live.snapshot()),
            "iterate": lambda: list(live),
            "wait": lambda: live.wait(timeout=0.1),
            "set": lambda: live.update(a=2),
            "lock key": lambda: live.lock_key("k").acquire(),
        }
        for read in reads:
            said = ""
            try:
                found = ways[read]()
            except pheon.ClosedError as error:
                said = str(error)
            else:
                said = f"{read} found {str(found)[:100]}"
            assert "unlinked" in said, said
        assert live.info()["unlinked"]
        live.close()
        state.value = 3


def write_until_closed(place: tuple[str, str | None], state: Any, failures: Path) -> None:
    """Holds the lock (1) until the parent says so (2), then may not write any more."""
    with reporting(failures):
        live = open_map(place, create=False)
        with live.lock:
            state.value = 1
            for _ in _until_orphaned():
                if state.value == 2:
                    break
            try:
                for i in range(200):
                    live[i] = "x" * VALUE_LENGTH
            except pheon.ClosedError:
                state.value = 3


def unlink_as_member(name: str, group: int, state: Any, failures: Path) -> None:
    """A member of the group may use the map, not remove it: /dev/shm is sticky."""
    with reporting(failures):
        os.chmod(failures, 0o777)
        live_map = pheon.LiveMap  # loaded while this process may still read Python's own files
        os.setgroups([group])
        os.setgid(65534)
        os.setuid(65534)
        live = live_map(name=name, group=group, create=False)
        live["b"] = 2
        for unlink in (live.unlink, lambda: pheon.LiveMap.unlink_by_name(name, group=group)):
            try:
                unlink()
            except PermissionError:
                state.value += 1
        live["c"] = 3
