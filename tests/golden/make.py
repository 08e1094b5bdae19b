"""Writes the golden stores of the current format version and what they hold: `python tests/golden/make.py`.

Run once for a format version. The files of a released version never change again: they must open for ever.
"""

import importlib
import json
import shutil
import sys
from pathlib import Path

import pyarrow as pa

import pheon
from pheon._native import FORMAT_VERSION

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

samples = importlib.import_module("format.samples")

KEY_ROWS = 6
# One of each way to be hashed and of each way to be ordered; the others differ from one of these by their label only.
KEY_TYPES = [
    "string", "binary", "bool", "int8", "int16", "int32", "int64", "uint8", "uint64", "date32", "date64", "time32_s",
    "time64_ns", "timestamp_us", "timestamp_zone", "duration_ms", "decimal32(9, 2)", "decimal128(38, 10)",
    "decimal256(76, 5)", "fixed_binary_16",
]  # fmt: skip


def main() -> None:
    folder = HERE / f"v{FORMAT_VERSION}"
    shutil.rmtree(folder, ignore_errors=True)
    store = pheon.open(folder / "store")
    expected = {}

    columns = samples.key_columns()
    for name in KEY_TYPES:
        keys = columns[name][:KEY_ROWS]
        dataset = "key." + name.split("(")[0]
        store.put_map(dataset, pa.table({"key": keys, "value": pa.array(range(len(keys)))}), key="key", value="value")
    values = samples.value_columns(8)
    order = pa.array([5, 3, 7, 1, 0, 2, 6, 4], pa.int32())
    store.put_map("values", pa.table({"key": order, **values}), key="key", value=list(values))
    store.put("no_key", pa.table({"n": [2, 1, None], "t": ["b", "a", "c"]}))
    store.put("repeated", pa.table({"ts": [3, 1, 3, 2, 1], "n": range(5)}), key="ts")
    store.put_map("empty", pa.table({"key": pa.array([], pa.string()), "value": pa.array([], pa.int64())}), key="key")
    store.put_map("packed", {"list": [1, "two", None], "dict": {"a": [True]}, "number": 1.5, "text": "ü"})
    store.put_map("many", {f"key {i}": f"value {i * i}" for i in range(300)})
    columns = {
        "t": ["b", "a\0", "a", "b", "a"],
        "i": pa.array([-1, 2, -3, -1, 2], pa.int16()),
        "b": [True, False] * 2 + [True],
    }
    several = pa.table({"n": range(5), **columns})
    store.put("several_keys", several, key=["i", "t"])
    store.put("several_unique", several.slice(1), key=["t", "b", "i"], unique=True)
    store.put_map("versions", {"a": "first"})
    store.put_map("versions", {"a": "second", "b": None})
    store.rollback("versions", 1)

    store.put("categories", pa.table({"key": pa.array(["y", "x"]).dictionary_encode(), "n": [1, 2]}), key="key")
    store.put_map("changed", {f"key {i:02}": i for i in range(20)})
    store.append("changed", {"key 15b": 100, "key 99": 101}, compact=False)
    store.upsert("changed", {"key 03": -3, "key 15b": -100, "new": -1}, compact=False)
    store.delete("changed", ["key 00", "key 99"], compact=False)
    store.put("series", pa.table({"ts": [1, 2, 2], "n": range(3)}), key="ts")
    store.append("series", pa.table({"ts": [2, 5], "n": [3, 4]}), compact=False)
    store.delete("series", [1], compact=False)
    store.compact("series")
    store.put("log", pa.table({"n": [2, 1]}))
    store.append("log", pa.table({"n": [0, 3]}), compact=False)

    for name in store:
        expected[name] = {
            str(version.version): {
                "origin": version.origin,
                "key": table.key,
                "schema": {field.name: str(field.type) for field in pa.schema(table)},
                "columns": {column: samples.canonical(pa.table(table)[column]) for column in table.column_names},
            }
            for version in store.versions(name)
            for table in [store.table(name, version=version.version)]
        }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")
    print(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()), "bytes in", folder)


if __name__ == "__main__":
    main()
