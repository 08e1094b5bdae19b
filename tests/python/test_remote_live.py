"""Live maps at a real server."""

from __future__ import annotations

import datetime as dt
import pickle
import threading
from collections.abc import Iterator, MutableMapping
from decimal import Decimal

import pytest
from flight_server import FlightServer

import pheon


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlightServer]:
    path = tmp_path_factory.mktemp("served") / "store"
    pheon.open(path).close()
    with FlightServer(path) as running:
        running.path = path  # type: ignore[attr-defined]
        yield running


@pytest.fixture
def remote(server: FlightServer) -> Iterator[pheon.RemoteStore]:
    with pheon.connect(server.location) as connected:
        yield connected


@pytest.fixture
def live(remote: pheon.RemoteStore) -> Iterator[pheon.RemoteLiveMap]:
    made = remote.live("counters", create=True)
    yield made
    if "counters" in remote.live_names():
        made.unlink()


def test_it_is_a_mutable_mapping(live: pheon.RemoteLiveMap) -> None:
    assert isinstance(live, MutableMapping)
    assert not live
    live["a"] = 1
    live.update({"b": [1, 2], "c": {"n": 0}}, d=None)
    assert len(live) == 4
    assert live["a"] == 1
    assert "a" in live
    assert "none" not in live
    assert live.get("none", 5) == 5
    assert list(live) == ["a", "b", "c", "d"]
    assert list(reversed(live)) == ["d", "c", "b", "a"]
    assert dict(live.items()) == {"a": 1, "b": [1, 2], "c": {"n": 0}, "d": None}
    assert list(live.values()) == [1, [1, 2], {"n": 0}, None]
    assert live == {"a": 1, "b": [1, 2], "c": {"n": 0}, "d": None}
    assert live.get_many(["a", "none", "d"], default=7) == [1, 7, None]
    with pytest.raises(KeyError):
        live["none"]
    with pytest.raises(KeyError):
        del live["none"]
    del live["a"]
    assert live.pop("b") == [1, 2]
    assert live.pop("b", "gone") == "gone"
    with pytest.raises(KeyError):
        live.pop("b")
    assert live.setdefault("e", 5) == 5
    assert live.setdefault("e", 6) == 5
    assert live.popitem() == ("e", 5)
    live |= {"f": 1}
    assert live | {"g": 2} == {"c": {"n": 0}, "d": None, "f": 1, "g": 2}
    live.clear()
    assert len(live) == 0
    with pytest.raises(KeyError):
        live.popitem()


def test_keys_and_values_are_those_of_a_live_map(live: pheon.RemoteLiveMap, server: FlightServer) -> None:
    values = [
        None,
        True,
        1.5,
        2**70,
        "ü",
        b"\0",
        dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        Decimal("1.50"),
        (1, [2]),
        {3},
    ]
    for number, value in enumerate(values):
        live[number] = value
    live[True] = "one"  # the same key as 1
    live[("a", 1.0)] = "tuple"
    local = pheon.open(server.path).live("counters")  # type: ignore[attr-defined]
    assert dict(local.items()) == dict(live.items())
    assert live[1.0] == "one"
    assert live[1] == "one"
    assert live[("a", 1)] == "tuple"
    assert list(live)[-1] == ("a", 1.0)
    local["from here"] = [1]
    assert live["from here"] == [1]
    with pytest.raises(TypeError, match="unhashable"):
        live[[]] = 1
    with pytest.raises(pheon.SchemaError):
        live["x"] = object()


def test_nested(live: pheon.RemoteLiveMap) -> None:
    live["n"] = {"list": [1], "count": 0}
    live["n"]["list"].append(2)
    live["n"]["count"] += 1
    nested = live["n"]
    live["n"] = {"list": [7], "count": 5}
    assert nested["count"] == 5  # what is there now
    nested["list"] += [8]
    assert live["n"] == {"list": [7, 8], "count": 5}
    assert isinstance(nested, dict)
    del live["n"]
    with pytest.raises(KeyError):
        nested["count"] = 1


def test_many_change_at_once(remote: pheon.RemoteStore, live: pheon.RemoteLiveMap) -> None:
    live["n"] = {"count": 0}

    def work() -> None:
        for _ in range(20):
            live.increment("hits")
            nested = live["n"]
            while True:
                before = live["n"].plain()
                if live.compare_and_set("n", before, {"count": before["count"] + 1}):
                    break
            assert nested is not None
            live["list"].append(1)

    live["list"] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert live["hits"] == 80
    assert live["n"] == {"count": 80}
    assert len(live["list"]) == 80


def test_increment_and_compare(live: pheon.RemoteLiveMap) -> None:
    assert live.increment("i") == 1
    assert live.increment("i", 5) == 6
    assert live.increment("j", 1, default=10) == 11
    assert live.increment("f", 0.5) == 0.5
    assert live.increment("d", Decimal("0.1"), default=Decimal(0)) == Decimal("0.1")
    assert live.increment("d", Decimal("0.1")) == Decimal("0.2")
    live["big"] = 2**64 - 1
    assert live.increment("big") == 2**64
    live["s"] = "text"
    with pytest.raises(TypeError):
        live.increment("s")
    assert live.compare_and_set("new", pheon.MISSING, 1)
    assert not live.compare_and_set("new", pheon.MISSING, 2)
    assert live.compare_and_set("new", 1.0, 2)  # equal, though stored differently
    assert not live.compare_and_set("new", 1, 3)
    assert live.compare_and_set("new", 2, pheon.MISSING)
    assert "new" not in live


def test_batches(live: pheon.RemoteLiveMap) -> None:
    live.update({"a": 1, "b": 2})
    with live.batch() as batch:
        batch["a"] += 1
        del batch["b"]
        batch["c"] = 3
        assert live["a"] == 1
        assert dict(batch) == {"a": 2, "c": 3}
        assert len(batch) == 2
    assert live == {"a": 2, "c": 3}
    with pytest.raises(RuntimeError), live.batch() as batch:
        batch["a"] = 9
        raise RuntimeError
    with pytest.raises(pheon.RemoteError, match="somebody else"), live.batch() as batch:
        batch["a"] += 1
        batch["z"] = 1
        live["a"] = 50
    assert live == {"a": 50, "c": 3}
    with pytest.raises(RuntimeError, match="with block"):
        batch["a"] = 1


def test_opening(remote: pheon.RemoteStore, live: pheon.RemoteLiveMap) -> None:
    with pytest.raises(FileExistsError):
        remote.live("counters", create=True)
    with pytest.raises(pheon.NotFoundError):
        remote.live("none", create=False)
    assert remote.live("counters").name == "counters"
    assert "counters" in remote.live_names()
    small = remote.live("small", max_entries=2)
    small.update({1: 1, 2: 2, 3: 3})
    assert len(small) == 2
    remote.drop_live("small")
    assert "small" not in remote.live_names()
    with pytest.raises(pheon.NotFoundError):
        len(small)
    again = pickle.loads(pickle.dumps(live))
    again["x"] = 1
    assert live["x"] == 1
    snapshot = live.snapshot()
    live["x"] = 2
    assert snapshot["x"] == 1
    assert dict(live.freeze("frozen")) == {"x": 2}
    assert remote.map("frozen")["x"] == 2
    live.close()
    with pytest.raises(pheon.ClosedError):
        live["x"]


def test_what_there_is_not(live: pheon.RemoteLiveMap) -> None:
    for use in (lambda: live.lock, lambda: live.lock_key("a"), lambda: live.wait(0)):
        with pytest.raises(NotImplementedError, match="server"):
            use()
