"""Stores that released format versions wrote open, verify and read, for ever. golden/make.py wrote them."""

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from format import reader, samples

import pheon
from pheon._native import FORMAT_VERSION

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.glob("v*"))
BYTES_MAX = 250_000


@pytest.fixture(params=VERSIONS)
def golden(request: pytest.FixtureRequest) -> tuple[Path, dict[str, Any]]:
    folder = GOLDEN / request.param
    return folder / "store", json.loads((folder / "expected.json").read_text())


def test_there_is_one_for_each_format_version() -> None:
    assert [f"v{number}" for number in range(1, FORMAT_VERSION + 1)] == VERSIONS
    for version in VERSIONS:
        assert sum(path.stat().st_size for path in (GOLDEN / version).rglob("*") if path.is_file()) < BYTES_MAX


def test_they_open_verify_and_read(golden: tuple[Path, dict[str, Any]]) -> None:
    path, expected = golden
    store = pheon.open(path, read_only=True)
    assert list(store) == sorted(expected)
    assert len(expected) > 20
    for name, versions in expected.items():
        report = store.verify(name)
        assert report.ok, (name, report.problems)
        assert [(str(v.version), v.origin) for v in store.versions(name)] == [
            (n, v["origin"]) for n, v in versions.items()
        ]
        for number, content in versions.items():
            table = store.table(name, version=int(number))
            exported = pa.table(table)
            exported.validate(full=True)
            assert table.key == content["key"]
            assert {field.name: str(field.type) for field in exported.schema} == content["schema"], name
            for column, values in content["columns"].items():
                assert samples.canonical(exported[column]) == values, (name, column)


def test_every_key_is_found(golden: tuple[Path, dict[str, Any]]) -> None:
    path, expected = golden
    store = pheon.open(path, read_only=True)
    tried = 0
    for name in expected:
        if not store.table(name).info().unique or len(store.table(name).key) > 1:
            continue
            continue
        m = store.map(name)
        keys = pa.table(m.table())[0].combine_chunks()
        rows = pa.table(m.table()).drop_columns(["key"])
        found = m.get_many(keys)
        found = pa.table({rows.column_names[0]: found}) if rows.num_columns == 1 else found
        for column in rows.column_names:
            assert samples.canonical(found[column]) == samples.canonical(rows[column]), (name, column)
        tried += len(keys)
    assert tried > 400
    assert store.map("many")["key 299"] == "value 89401"
    assert "key 300" not in store.map("many")
    assert store.map("packed")["list"] == [1, "two", None]
    assert store.map("packed")["dict"] == {"a": [True]}
    assert store.map("versions")["a"] == "first"
    assert store.map("versions", version=2)["b"] is None
    assert [row["n"] for row in store.table("repeated").range(1, 3)] == [1, 4, 3]


def test_keys_of_several_columns_are_found(golden: tuple[Path, dict[str, Any]]) -> None:
    path, expected = golden
    if path.parent.name == "v1":
        assert "several_keys" not in expected
        return
    store = pheon.open(path, read_only=True)
    t = store.table("several_keys")
    assert [row["n"] for row in t.rows((-1, "b"))] == [0, 3]
    assert [row["n"] for row in t.rows((2,))] == [4, 1]
    assert [row["n"] for row in t.range((-3, "b"), (2, "a\0"))] == [0, 3, 4]
    assert dict(store.map("several_unique")) == {
        ("a\0", False, 2): 1,
        ("a", True, -3): 2,
        ("b", False, -1): 3,
        ("a", True, 2): 4,
    }


def test_changed_datasets_show_what_they_should(golden: tuple[Path, dict[str, Any]]) -> None:
    path, expected = golden
    if path.parent.name == "v1":
        assert "changed" not in expected
        return
    store = pheon.open(path, read_only=True)
    changed = {f"key {i:02}": i for i in range(1, 20)} | {"key 03": -3, "key 15b": -100, "new": -1}
    assert dict(store.map("changed")) == changed
    assert store.map("changed").info().segments == 2
    assert store.map("changed").info().hidden_rows == 2
    assert [row["n"] for row in store.table("series")] == [1, 2, 3, 4]
    assert [v.origin for v in store.versions("series")] == ["put", "append", "delete", "compact"]
    assert store.table("log")["n"].to_pylist() == [2, 1, 0, 3]


def test_the_independent_reader_agrees(golden: tuple[Path, dict[str, Any]]) -> None:
    path, expected = golden
    store = reader.Store(path)
    assert store.datasets() == sorted(expected)
    for name, versions in expected.items():
        assert store.versions(name) == [int(number) for number in versions]
        for number, content in versions.items():
            version = store.open(name, int(number))
            for column, values in content["columns"].items():
                assert samples.canonical(version.table()[column]) == values, (name, column)
            if version.key_names:
                version.check_order_and_index()


def test_a_copy_can_be_written_to(golden: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path, _ = golden
    shutil.copytree(path, tmp_path / "store")
    store = pheon.open(tmp_path / "store")
    newest = store.versions("many")[-1].version
    store.put_map("many", {"new": "entry"})
    assert store.map("many").version == newest + 1
    assert dict(store.map("many")) == {"new": "entry"}
    store.rollback("many", newest)
    store.gc("many", keep=1)
    assert len(store.map("many")) == 300
    assert store.verify("many").ok
    written = list((tmp_path / "store" / "many").glob("manifest-*.json"))
    assert [stat.S_IMODE(p.stat().st_mode) for p in written] == [0o440]
