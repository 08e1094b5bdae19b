"""A store at a real server: writes, care, local handles, pickles, forks, closing."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from flight_server import FlightServer
from pyarrow import flight

import pheon


@pytest.fixture
def served(server: FlightServer) -> Iterator[pheon.Store]:
    """The same store, by its files."""
    with pheon.open(server.path) as opened:
        yield opened


def test_datasets(remote: pheon.RemoteStore, served: pheon.Store) -> None:
    served.put("t", pa.table({"v": [1]}))
    assert set(remote) == set(served)
    assert len(remote) == len(served)
    assert "t" in remote
    assert "none" not in remote
    assert 5 not in remote
    assert remote
    remote.drop("t")
    assert "t" not in served
    with pytest.raises(pheon.NotFoundError):
        remote.table("t")
    with pytest.raises(pheon.NotFoundError):
        remote.map("words", 99)
    with pytest.raises(ValueError, match="name"):
        remote.put("../x", pa.table({"v": [1]}))
    assert remote.uuid == served.uuid
    assert remote.path == str(served._handle.path)


def test_a_map_is_a_mapping(remote: pheon.RemoteStore) -> None:
    words = remote.map("words")
    assert isinstance(words, Mapping)
    assert not isinstance(words, pheon.Map)
    assert dict(words) == {"lazy": "idle", "quick": "fast"}
    assert words == {"quick": "fast", "lazy": "idle"}
    assert words.items() >= {("lazy", "idle")}
    with pytest.raises(KeyError) as raised:
        words["brown"]
    assert raised.value.args == ("brown",)
    with pytest.raises(TypeError):
        words[5]
    with pytest.raises(TypeError):
        words[None]
    assert "words" in repr(words)


def test_many_keys_at_once(remote: pheon.RemoteStore) -> None:
    data = {f"key {i}": i for i in range(100_000)}
    numbers = remote.put_map("numbers", data)
    asked = [*data, "none"]
    assert numbers.get_many(asked) == [*data.values(), None]
    assert numbers.get_many(asked, default=-1)[-1] == -1
    assert numbers.contains_many(asked) == [True] * len(data) + [False]
    assert list(numbers) == sorted(data)
    assert list(reversed(numbers)) == sorted(data, reverse=True)
    assert list(numbers.values()) == [data[key] for key in sorted(data)]
    assert len(list(numbers.items())) == len(data)
    assert numbers.get_many(pa.array(asked))[-2:].to_pylist() == [99_999, None]


def test_writes_and_versions(remote: pheon.RemoteStore, served: pheon.Store, tmp_path: Path) -> None:
    frame = pd.DataFrame({"k": range(1000), "v": [i / 3 for i in range(1000)]})
    table = remote.put("w", frame, key="k")
    assert isinstance(table, pheon.RemoteTable)
    assert table.version == 1
    pd.testing.assert_frame_equal(table.to_pandas(), served.table("w").to_pandas())
    assert remote.append("w", pa.table({"k": [2000], "v": [0.5]})).num_rows == 1001
    assert remote.upsert("w", pa.table({"k": [2000], "v": [1.5]})).rows(2000)[0] == {"k": 2000, "v": 1.5}
    assert remote.delete("w", [2000, 3000]) == 1
    assert remote.delete("w", pa.array([0, 1])) == 2
    versions = remote.versions("w")
    assert versions == served.versions("w")
    assert remote.rollback("w", 1) == len(versions) + 1
    assert remote.table("w").num_rows == 1000
    assert table.refresh()
    assert not table.refresh()
    assert remote.compact("w") >= len(versions) + 1
    assert remote.verify("w").ok
    assert remote.gc("w").versions_removed
    assert len(remote.versions("w")) == 1
    assert set(remote.gc()) == set(remote)
    assert remote.warm("w").file_bytes > 0
    memory = remote.memory()["w"]
    assert memory.file_bytes == served.memory()["w"].file_bytes
    assert "w version" in str(memory)
    (tmp_path / "rows.csv").write_text("k,v\n5,a\n6,b\n")
    assert [row["v"] for row in remote.put("files", tmp_path / "rows.csv", key="k")] == ["a", "b"]
    copied = remote.put("copied", served.table("w"), key="k")
    assert copied.num_rows == 1000
    assert served.put("back", copied, key="k").num_rows == 1000
    remote.append("w", pa.table({"k": [2000], "v": [0.5]}), keep=1)
    assert len(remote.versions("w")) == 1


def test_map_writer(remote: pheon.RemoteStore) -> None:
    with remote.map_writer("written", on_duplicate="last") as writer:
        writer.update({"a": 1, "b": 2})
        writer.put("a", 3)
        writer.write(pa.table({"key": ["c"], "value": [4]}))
    assert dict(remote.map("written")) == {"a": 3, "b": 2, "c": 4}
    with pytest.raises(RuntimeError), remote.map_writer("unwritten") as writer:
        writer.put("a", 1)
        raise RuntimeError
    assert "unwritten" not in remote
    with pytest.raises(pheon.DuplicateKeyError, match="'a'|\"a\""):
        remote.put_map("doubled", [("a", 1), ("a", 2)])
    assert "doubled" not in remote
    with pytest.raises(pheon.SchemaError):
        remote.put_map("null", [(None, 1)])


def test_progress_and_options(remote: pheon.RemoteStore) -> None:
    reports: list[pheon.Progress] = []
    remote.put_map("p", {i: i for i in range(200_000)}, progress=reports.append)
    assert reports[-1].rows_done == 200_000
    for option in ({"threads": 2}, {"memory_limit": "1GB"}, {"lock_timeout": 5}, {"spill_dir": "/tmp"}):
        with pytest.raises(ValueError, match=next(iter(option))):
            remote.put_map("p", {1: 1}, **option)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        remote.put_map("p", {i: i for i in range(200_000)}, progress=lambda report: 1 / 0)
    assert remote.map("p").version == 1


def test_errors_are_those_of_a_store(remote: pheon.RemoteStore, served: pheon.Store) -> None:
    def told(store: pheon.Store, call: Any) -> tuple[type, str]:
        with pytest.raises(Exception, match=".") as raised:
            call(store)
        return type(raised.value), str(raised.value)

    served.put("e", pa.table({"k": [1, 1], "v": ["a", "b"]}), key="k")
    served.put_map("em", {"a": 1})
    calls = [
        lambda s: s.table("none"),
        lambda s: s.table("e", 99),
        lambda s: s.map("e"),
        lambda s: s.append("e", pa.table({"k": ["x"], "v": ["a"]})),
        lambda s: s.append("em", {"a": 2}),
        lambda s: s.append("none", pa.table({"k": [1]})),
        lambda s: s.map("em").get_many([1]),
        lambda s: s.map("em").get_many(pa.array([1.5])),
        lambda s: s.table("e").range("a", "b"),
        lambda s: s.table("e").prefix("a"),
        lambda s: s.table("e").lookup(pa.array(["a"])),
        lambda s: s.rollback("e", 99),
        lambda s: s.put("e2", pa.table({"k": [None]}, schema=pa.schema([("k", pa.int64())])), key="k"),
    ]
    for number, call in enumerate(calls):
        assert told(remote, call)[0] == told(served, call)[0], number


def test_tables_are_fetched_in_parts(remote: pheon.RemoteStore) -> None:
    rows = 50_000
    frame = pl.DataFrame({"k": range(rows), "v": [i * 2 for i in range(rows)], "s": [f"name {i}" for i in range(rows)]})
    table = remote.put("parts", frame, key="k")
    assert table.to_polars().equals(frame)
    assert table.to_pyarrow().num_rows == rows
    assert pa.table(table.range(10, 20)).column("v").to_pylist() == [i * 2 for i in range(10, 20)]
    assert table[100:110][["v"]].to_pyarrow().to_pydict() == {"v": [i * 2 for i in range(100, 110)]}
    assert table["v"][5] == 10
    assert table[7] == {"k": 7, "v": 14, "s": "name 7"}
    assert table[-1]["k"] == rows - 1
    assert sum(len(batch) for batch in table.batches()) == rows
    assert sum(row["v"] for row in table) == sum(frame["v"])
    assert table.range(100, 200).range(150, 300).num_rows == 50
    assert table.range(100, 200).lookup([99, 100])["position"].to_pylist() == [1]
    found = table.lazy().filter(pl.col("k").is_in([3, 40_000])).select("s").collect()
    assert found["s"].to_list() == ["name 3", "name 40000"]
    with pytest.raises(pheon.CopyRequiredError, match="network"):
        table.to_pandas(require_zero_copy=True)
    assert not any(verdict.zero_copy for verdict in table.zero_copy_report())
    assert "50,000 rows" in repr(table)
    assert "name 49999" in repr(table)
    assert table._repr_html_().count("<tr>") > 5
    assert table.nbytes > 0
    assert table.num_chunks >= 1
    assert table.info().rows == rows


def test_sql(remote: pheon.RemoteStore) -> None:
    remote.put_map("numbers2", {"a": 1, "b": 2})
    if not served_has_sql(remote):
        with pytest.raises(pheon.RemoteError, match="without"):
            remote.sql("select 1")
        pytest.skip("the server was built without SQL")
    rows = remote.sql("select value from numbers2 where key = ?", ["b"])
    assert isinstance(rows, pheon.Batch)
    assert rows.to_pylist() == [{"value": 2}]
    assert remote.sql("insert into numbers2 values ('c', 3)") == 1
    assert remote.map("numbers2")["c"] == 3
    assert remote.sql("delete from numbers2 where key = ?", ["c"]) == 1
    with pytest.raises(ValueError, match="."):
        remote.sql("selec 1")
    with pytest.raises(pheon.NotFoundError):
        remote.sql("select * from nothing")


NESTED = {
    "list": pa.array([[1, None], None, []], pa.list_(pa.int64())),
    "large": pa.array([["a"], None, ["b", "c"]], pa.large_list(pa.string())),
    "inner": pa.array([{"x": [["a"]]}, None, {"x": []}], pa.struct([("x", pa.large_list(pa.list_(pa.string())))])),
    "map": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    "dictionary": pa.array(["x", None, "x"]).dictionary_encode(),
    "view": pa.array(["x" * 20, None, "y"], pa.string_view()),
}


@pytest.mark.parametrize("kind", NESTED)
def test_nested_columns(remote: pheon.RemoteStore, served: pheon.Store, kind: str) -> None:
    data = pa.table({"k": [1, 2, 3], "v": NESTED[kind]})
    expected = NESTED[kind].to_pylist()
    remote.put("nested", data, key="k")
    assert pa.table(served.table("nested"))["v"].to_pylist() == expected
    assert pa.table(remote.table("nested"))["v"].to_pylist() == expected
    assert remote.map("nested").get_many(pa.array([3, 1])).to_pylist() == [expected[2], expected[0]]
    if served_has_sql(remote):
        rows = remote.sql("select v from nested order by k")
        assert isinstance(rows, pheon.Batch)
        assert pa.table(rows)["v"].to_pylist() == expected


def served_has_sql(remote: pheon.RemoteStore) -> bool:
    return remote._handle.store()["sql"]


def test_a_dataset_that_has_its_name_from_another(remote: pheon.RemoteStore) -> None:
    assert remote.put_map("again", {"a": 1})["a"] == 1
    remote.drop("again")
    assert remote.put_map("again", {"a": 2})["a"] == 2
    assert remote.map("again").version == 1
    assert "again@1" not in remote
    with pytest.raises(pheon.NotFoundError):
        remote.table("again@1")


def test_a_dataset_that_was_replaced(server: FlightServer, remote: pheon.RemoteStore, served: pheon.Store) -> None:
    """Its versions begin with 1 again: nothing of it is taken for what was opened."""
    remote.put_map("replaced", {"a": 1, "b": 2})
    with pheon.connect(server.location, local=False) as other:
        words, table, unasked = remote.map("replaced"), remote.table("replaced"), other.map("replaced")
        chosen = other.table("replaced").select(["value"])
        assert words["a"] == 1
        served.drop("replaced")
        time.sleep(0.01)
        served.put_map("replaced", {"a": 10, "c": 30})
        for use in (
            lambda: list(words.items()),
            table.to_pyarrow,
            lambda: words.range("a", "b"),
            lambda: table.rows("a"),
            lambda: table.lookup(["a"]),
            lambda: chosen[0],
            lambda: chosen.to_pyarrow(),
        ):
            with pytest.raises(pheon.NotFoundError, match="was replaced"):
                use()
        # A lookup that is open goes on with what it began with, as a mapping of the files would; a new one is refused.
        for use, before in ((lambda: words["a"], 1), (lambda: unasked.get_many(["a", "c"]), [1, None])):
            with contextlib.suppress(pheon.NotFoundError):
                assert use() == before
        for opened in (words, unasked):
            assert opened.refresh()
            assert opened.version == 1
            assert dict(opened.items()) == {"a": 10, "c": 30}
            assert opened["c"] == 30
            assert not opened.refresh()
        assert table.refresh()
        assert table.to_pyarrow()["value"].to_pylist() == [10, 30]
        assert not table.refresh()
        assert chosen.refresh()
        assert chosen.to_pyarrow().column_names == ["value"]
        # Of as many versions as the one that was opened, and of fewer.
        remote.upsert("replaced", pa.table({"key": ["d"], "value": [40]}))
        assert words.refresh()
        assert words.version == 2
        served.drop("replaced")
        served.put_map("replaced", {"e": 50})
        assert words.refresh()
        assert (words.version, dict(words.items())) == (1, {"e": 50})


def test_a_scan_that_was_announced_of_a_dataset_that_was_replaced(server: FlightServer, served: pheon.Store) -> None:
    served.put_map("announced", {"a": 1})
    with flight.connect(server.location) as client:
        ticket = client.get_flight_info(flight.FlightDescriptor.for_path("announced")).endpoints[0].ticket
        served.drop("announced")
        time.sleep(0.01)
        served.put_map("announced", {"a": 2})
        with pytest.raises(pa.ArrowKeyError, match="was replaced"):
            client.do_get(ticket).read_all()


def test_changes_leave_segments_alone_where_asked(remote: pheon.RemoteStore) -> None:
    remote.put("segments", pa.table({"k": [0]}), key="k")
    for k in range(1, 40):
        remote.append("segments", pa.table({"k": [k]}), compact=False)
    assert remote.delete("segments", [3], compact=False) == 1
    assert remote.table("segments").info().segments >= 39
    assert remote.delete("segments", [4]) == 1
    assert remote.table("segments").info().segments < 20


def test_local_handles(server: FlightServer, served: pheon.Store) -> None:
    with pheon.connect(server.location) as local:
        assert local.is_local
        words = local.map("words")
        assert type(words) is pheon.Map
        assert words["lazy"] == "idle"
        table = local.put("zero", pa.table({"k": [1, 2, 3]}), key="k")
        assert type(table) is pheon.Table
        table.to_pyarrow(require_zero_copy=True)
        assert type(pickle.loads(pickle.dumps(words))) is pheon.Map
        with pytest.raises(pheon.NotFoundError):
            local.map("none")
    assert words["lazy"] == "idle"  # a mapping of files needs no connection
    with pheon.connect(server.location, local=False) as far:
        assert not far.is_local


def test_only_the_servers_own_files_are_local(remote: pheon.RemoteStore, tmp_path: Path) -> None:
    from pheon._remote import _local_store

    facts = remote._handle.store()
    opened = _local_store(facts)
    assert opened is not None
    assert opened.uuid == facts["uuid"]
    pheon.open(tmp_path / "other").close()
    elsewhere = [{"path": str(tmp_path / name)} for name in ("none", "other")]
    for other in ({"host": "0" * 32}, {"path": ""}, *elsewhere):
        assert _local_store(facts | other) is None


def test_pickles(remote: pheon.RemoteStore) -> None:
    words = pickle.loads(pickle.dumps(remote.map("words")))
    assert isinstance(words, pheon.RemoteMap)
    assert words["lazy"] == "idle"
    table = remote.put("pickled", pa.table({"k": range(10), "v": range(10)}), key="k")
    again = pickle.loads(pickle.dumps(table[2:5][["v"]]))
    assert again.to_pyarrow().to_pydict() == {"v": [2, 3, 4]}
    store = pickle.loads(pickle.dumps(remote))
    assert set(store) == set(remote)
    store.close()
    assert not remote.closed


def _read(words: pheon.RemoteMap, queue: Any) -> None:
    queue.put([words["lazy"], words.get_many(["quick", "none"]), os.getpid()])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_other_processes(remote: pheon.RemoteStore, method: str) -> None:
    words = remote.map("words")
    assert words["lazy"] == "idle"
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=_read, args=(words, queue)) for _ in range(3)]
    for child in children:
        child.start()
    answers = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert [answer[:2] for answer in answers] == [["idle", ["fast", None]]] * 3
    assert len({answer[2] for answer in answers}) == 3
    assert words["quick"] == "fast"  # the parent's connection is as it was


def test_threads(remote: pheon.RemoteStore) -> None:
    words = remote.map("words")
    wrong: list[object] = []

    def look() -> None:
        for _ in range(50):
            if words.get_many(["lazy", "quick"]) != ["idle", "fast"]:
                wrong.append(None)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert wrong == []


def test_closing(server: FlightServer) -> None:
    store = pheon.connect(server.location, local=False)
    words, table = store.map("words"), store.table("words")
    store.close()
    store.close()
    assert store.closed
    assert "closed" in repr(store)
    for use in (
        lambda: words["lazy"],
        lambda: list(words),
        table.to_pyarrow,
        lambda: store.map("words"),
        lambda: list(store),
    ):
        with pytest.raises(pheon.ClosedError):
            use()


def test_actions_are_json(remote: pheon.RemoteStore) -> None:
    [found] = remote._handle.action("info", json.dumps({"dataset": "words"}).encode())
    facts = json.loads(found)
    assert facts["distinct_keys"] is True
    assert remote.map("words").info().rows == facts["rows"] == 2
