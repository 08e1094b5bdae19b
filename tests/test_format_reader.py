"""docs/format.md is complete and true: a reader written from it alone reads every dataset, and notices damage."""

import json
import random
import re
import stat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from format import reader, samples
from format.xxh3 import xxh3_64, xxh3_128

import pheon

KEYS = samples.key_columns()
VALUES = samples.value_columns()
SEED = 0x9E3779B185EBCA87


@pytest.mark.parametrize(
    ("length", "seed", "expected_64", "expected_128"),
    # From the reference implementation, version 0.8.3, one on each side of every case of the algorithm.
    [
        (0, 0, 0x2D06800538D394C2, 0x99AA06D3014798D86001C324468D497F),
        (0, SEED, 0x07F70F819703314D, 0x45EF6DDC7AFB225AF9ECE1036ECBB2ED),
        (1, 0, 0x4C5CCA45D0F4811F, 0x495B62073EF70CA44C5CCA45D0F4811F),
        (3, SEED, 0x82EE0D8C3A491C38, 0xBCBF4BDFF464F81E82EE0D8C3A491C38),
        (4, 0, 0x5C4C63133443D03F, 0xAA6E2F274640A3F43D668AF6F2A44D77),
        (8, SEED, 0x3B4C70CBE3EBC00D, 0x07E80027444D0D7648E77B403A836797),
        (9, 0, 0x7C20DF9712C26EDF, 0x664C7CA18AFD62558C7B67FD458A936B),
        (16, SEED, 0xFDE04540EAE27B52, 0x80224CF530FB9FA4B2FA7C53879D9CC5),
        (17, 0, 0xB58BF5DC5022D071, 0x66FC23F6439DBD778D96EF110FCDEBB4),
        (128, SEED, 0xD6B287B434C3EAC1, 0x0A40D412ABBF3F3D09AE600CC22338B4),
        (129, 0, 0x1648BDC3DB49D1A2, 0x98CD36CCBB5579264545B3A09738E31A),
        (240, SEED, 0xC587312C2EC9D377, 0xEECC8FD9675ED8F7F3302D90F1B69291),
        (241, 0, 0x956CAE592C67279E, 0xB53840FE3FEDF161956CAE592C67279E),
        (1024, SEED, 0xEE8F8CCB108ECC9D, 0x446FFBFB1C0A240AEE8F8CCB108ECC9D),
        (1025, 0, 0x66C4487C41E127A7, 0x621AF7B8277EFFA466C4487C41E127A7),
        (2112, SEED, 0xEABB69A3E4204F49, 0x605F4E2BC66279C2EABB69A3E4204F49),
    ],
)
def test_xxh3_gives_the_published_values(length: int, seed: int, expected_64: int, expected_128: int) -> None:
    data = bytes((i * 131 + 7) % 256 for i in range(length))
    assert xxh3_64(data, seed) == expected_64
    assert xxh3_128(data, seed) == expected_128


def test_xxh3_is_the_xxhash_packages() -> None:
    xxhash = pytest.importorskip("xxhash")
    rng = random.Random(1)
    for length in [*range(300), 1023, 1024, 1025, 2048, 4099]:
        data = rng.randbytes(length)
        for seed in (0, 1, rng.getrandbits(64)):
            assert xxh3_64(data, seed) == xxhash.xxh3_64_intdigest(data, seed), (length, seed)
            assert xxh3_128(data, seed) == xxhash.xxh3_128_intdigest(data, seed), (length, seed)


@pytest.fixture
def store(tmp_path: Path) -> pheon.Store:
    return pheon.open(tmp_path / "store")


def read(store: pheon.Store, name: str, version: int | None = None) -> reader.Version:
    return reader.Store(Path(store.path)).open(name, version)


@pytest.mark.parametrize("name", KEYS)
def test_a_map_with_any_key_type(store: pheon.Store, name: str) -> None:
    keys = KEYS[name]
    numbers = pa.array(range(len(keys)), pa.int32())
    store.put_map("m", pa.table({"key": keys, "value": numbers}), key="key", value="value")

    version = read(store, "m")
    version.check_order_and_index()
    assert version.unique
    assert version.key_names == ["key"]
    assert version.rows == len(keys)
    stored = dict(zip(samples.plain(version.keys), version.data.table["value"].to_pylist(), strict=True))
    assert stored == dict(zip(samples.plain(keys), range(len(keys)), strict=True))
    assert version.index is not None
    for i in range(len(keys)):
        wanted = reader.key_bytes(keys.cast(version.keys.type), i)
        row = version.index.find(wanted, lambda r: reader.key_bytes(version.keys, r))
        assert row is not None
        assert version.data.table["value"][row].as_py() == i


def test_absent_keys_are_absent(store: pheon.Store) -> None:
    store.put_map("m", {f"key {i}": i for i in range(2000)})
    version = read(store, "m")
    version.check_order_and_index()
    assert [version.get(f"key {i}") for i in (0, 1999)] == [{"value": 0}, {"value": 1999}]
    assert all(version.find(f"key {i}") is None for i in range(2000, 3000))


@pytest.mark.parametrize("rows", [0, 1, 2, samples.ROWS])
def test_values_of_any_type(store: pheon.Store, rows: int) -> None:
    keys = pa.array([f"{i * 7919 % 1000:03}" for i in range(rows)], pa.string())
    values = samples.value_columns(rows)
    store.put_map("m", pa.table({"key": keys, **values}), key="key", value=list(values))
    version = read(store, "m")
    version.check_order_and_index()
    order = sorted(range(rows), key=lambda i: keys[i].as_py())
    for name, given in values.items():
        expected = samples.plain(given)
        assert samples.plain(version.data.table[name]) == [expected[i] for i in order], name


def test_types_are_stored_as_the_page_says(store: pheon.Store) -> None:
    values = VALUES
    metadata = {b"origin": b"somewhere"}
    keys = pa.array(range(samples.ROWS), pa.int64())
    table = pa.table({"key": keys, **values}).replace_schema_metadata(metadata)
    store.put_map("m", table, key="key", value=list(values))
    schema = read(store, "m").data.table.schema
    assert schema.names == ["key", *values]
    assert (schema.metadata or {})[b"origin"] == b"somewhere"

    def expected(kind: Any) -> pa.DataType:  # noqa: PLR0911
        if pa.types.is_string(kind) or pa.types.is_string_view(kind):
            return pa.large_string()
        if pa.types.is_binary(kind) or pa.types.is_binary_view(kind):
            return pa.large_binary()
        if pa.types.is_list(kind) or pa.types.is_list_view(kind):
            return pa.list_(expected(kind.value_type))
        if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind):
            return pa.large_list(expected(kind.value_type))
        if pa.types.is_run_end_encoded(kind):
            return expected(kind.value_type)
        if pa.types.is_dictionary(kind):
            return pa.dictionary(kind.index_type, expected(kind.value_type), kind.ordered)
        if pa.types.is_struct(kind):
            return pa.struct([pa.field(f.name, expected(f.type), f.nullable) for f in kind])
        if pa.types.is_map(kind):
            return pa.map_(expected(kind.key_type), expected(kind.item_type))
        if pa.types.is_union(kind):
            fields = [
                pa.field(f.name, expected(f.type), f.nullable) for f in (kind.field(i) for i in range(kind.num_fields))
            ]
            return pa.union(fields, mode=kind.mode, type_codes=kind.type_codes)
        return kind

    for name, given in values.items():
        assert schema.field(name).type == expected(given.type), name


def test_a_table_with_repeated_keys_and_one_without_a_key(store: pheon.Store) -> None:
    rng = random.Random(3)
    keys = [rng.randrange(50) for _ in range(400)]
    table = pa.table({"n": pa.array(range(400)), "ts": pa.array(keys, pa.int64())})
    store.put("keyed", table, key="ts")
    version = read(store, "keyed")
    version.check_order_and_index()
    assert not version.unique
    assert version.index is not None
    assert version.index.keys == len(set(keys))
    assert version.data.table.column_names == ["n", "ts"]
    assert sorted(zip(keys, range(400), strict=True)) == sorted(
        zip(version.data.table["ts"].to_pylist(), version.data.table["n"].to_pylist(), strict=True)
    )
    store.put("plain", table)
    version = read(store, "plain")
    assert version.key_names == []
    assert version.index is None
    assert not version.unique
    assert version.data.table["n"].to_pylist() == list(range(400))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> reader.Version:
    """So many keys that the index has several blocks, and buffers on both sides of 2 MiB."""
    rows = 300_000
    numbers = pa.array(range(rows), pa.int64())
    keys = pa.array([f"{i * 0x9E3779B1 & 0xFFFFFFFF:08x}" for i in range(rows)])
    store = pheon.open(tmp_path_factory.mktemp("large") / "store")
    store.put_map("m", pa.table({"key": keys, "value": numbers}), key="key", value="value")
    return read(store, "m")


def test_several_blocks_and_huge_buffers(large: reader.Version) -> None:
    index = large.index
    assert index is not None
    assert index.blocks > 1
    assert index.buckets == index.blocks * index.buckets_per_block
    lengths = [buffer["length"] for segment in large.manifest["segments"] for buffer in segment["data"]["buffers"]]
    assert any(length >= 2 << 20 for length in lengths), "the rule for large buffers was not put to the test"
    # Each key is listed once; a sample of them is looked up, since this reader is slow.
    index.check_slots(large.rows)
    rng = random.Random(4)
    for i in rng.sample(range(large.rows), 3000):
        assert large.get(f"{i * 0x9E3779B1 & 0xFFFFFFFF:08x}") == {"value": i}
    assert all(large.find(f"{rng.getrandbits(64):016x}") is None for _ in range(3000))
    overflowed = sum(bool(index.bucket(number)[1]) for number in range(index.buckets))
    assert 0 < overflowed < index.buckets, "secondary buckets were not put to the test"


def test_the_index_has_the_size_that_the_page_gives(large: reader.Version) -> None:
    index = large.index
    assert index is not None
    assert index.seed == 0
    buckets = -(-large.rows // 9)
    blocks = -(-buckets // 32768)
    assert (index.blocks, index.buckets_per_block) == (blocks, -(-buckets // blocks))


ALL_KEYS = sorted(KEYS)


@pytest.mark.parametrize("at", range(len(ALL_KEYS)))
def test_keys_of_several_columns(store: pheon.Store, at: int) -> None:
    """Every key type beside two others, first, in the middle and last."""
    rng = random.Random(at)
    names = [ALL_KEYS[(at + step) % len(ALL_KEYS)] for step in (0, 5, 11)]
    rng.shuffle(names)
    few = [[KEYS[name].slice(rng.randrange(4) % len(KEYS[name]), 1) for _ in range(60)] for name in names]
    columns = {f"k{i}": pa.concat_arrays(slices) for i, slices in enumerate(few)}
    table = pa.table({**columns, "n": pa.array(range(60))}).select(["n", "k2", "k0", "k1"])
    store.put("t", table, key=["k0", "k1", "k2"])
    version = read(store, "t")
    assert version.manifest["format_version"] == 2
    version.check_order_and_index()
    assert version.index is not None
    given = list(zip(*(samples.plain(columns[f"k{i}"]) for i in range(3)), strict=True))
    wanted = [columns[f"k{i}"].cast(version.key_columns[i].type) for i in range(3)]
    numbers = version.data.table["n"].to_pylist()
    for n, key in enumerate(given):
        first = version.index.find(
            reader.hashed_bytes(wanted, n), lambda row: reader.hashed_bytes(version.key_columns, row)
        )
        same = [i for i, other in enumerate(given) if other == key]
        assert first is not None
        assert numbers[first : first + len(same)] == same, names
        for length in (1, 2, 3):
            found = [numbers[row] for row in version.rows_of(wanted[:length], n)]
            assert sorted(found) == [i for i, other in enumerate(given) if other[:length] == key[:length]], names


def test_the_key_bytes_of_the_page(store: pheon.Store) -> None:
    store.put("t", pa.table({"n": pa.array([-2], pa.int16()), "t": ["a\0b"]}), key=["t", "n"])
    version = read(store, "t")
    assert reader.hashed_bytes(version.key_columns, 0) == bytes.fromhex("61 00 FF 62 00 00 7F FE")
    assert (version.find(("a\0b", -2)), version.find(("a\0b", -1))) == (0, None)
    assert store.table("t").rows(("a\0b", -2)).num_rows == 1


def test_categorical_keys_are_plain_values(store: pheon.Store) -> None:
    names = pa.array(["z", "a", "m", "a"]).dictionary_encode()
    store.put("t", pa.table({"k": names, "v": names}), key="k")
    version = read(store, "t")
    assert version.manifest["format_version"] == 1
    assert version.data.table.schema.field("k").type == pa.large_string()
    assert version.data.table.schema.field("v").type == pa.dictionary(pa.int32(), pa.large_string())
    assert version.data.table["k"].to_pylist() == ["a", "a", "m", "z"]
    version.check_order_and_index()


def test_names_modes_and_manifests(store: pheon.Store) -> None:
    store.put_map("m", {"a": 1})
    store.put_map("m", {"a": 2, "b": 3})
    store.rollback("m", 1)
    root = Path(store.path)
    allowed = re.compile(r"pheon\.json|m/LOCK|m/manifest-00000[123]\.json|m/seg-[0-9a-f]{32}/(data|index)\.arrow")
    published = []
    for path in (p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        assert allowed.fullmatch(name), f"docs/format.md does not know {name}"
        if not name.endswith("LOCK"):
            published.append(name)
            assert stat.S_IMODE(path.stat().st_mode) == 0o440, name
    assert len(published) == 1 + 3 + 2 * 2

    assert reader.Store(root).versions("m") == [1, 2, 3]
    first, second, third = (read(store, "m", number).manifest for number in (1, 2, 3))
    assert [m["origin"] for m in (first, second, third)] == ["put", "put", "rollback:1"]
    assert first["segments"] == third["segments"] != second["segments"]
    assert first["created_unix_ms"] <= second["created_unix_ms"] <= third["created_unix_ms"]
    members = "pheon format_version version created_unix_ms rows key unique origin segments checksum"
    assert list(first) == members.split()
    assert read(store, "m").get("a") == {"value": 1}
    assert read(store, "m", 2).get("b") == {"value": 3}


def test_codecs_are_named_in_the_field(store: pheon.Store) -> None:
    store.put_map("packed", {"a": [1, 2], "b": {"c": None}})
    field = read(store, "packed").data.table.schema.field("value")
    assert field.type == pa.large_binary()
    assert field.metadata == {b"pheon.codec": b"msgpack"}
    # fixarray of two fixints: the first bytes that msgpack's own specification gives for [1, 2].
    assert read(store, "packed").get("a") == {"value": b"\x92\x01\x02"}
    store.put_map("pickled", {"a": 1 + 2j}, codec="pickle")
    assert read(store, "pickled").data.table.schema.field("value").metadata == {b"pheon.codec": b"pickle"}


def _damaged(path: Path, at: int, xor: int = 1) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[at] ^= xor
    path.write_bytes(data)


@pytest.mark.parametrize("target", ["pheon.json", "m/manifest-*.json", "m/seg-*/data.arrow", "m/seg-*/index.arrow"])
def test_this_reader_notices_damage(store: pheon.Store, target: str) -> None:
    """Otherwise the tests above would prove nothing."""
    store.put_map("m", {"a": "x", "b": "y" * 100})
    root = Path(store.path)
    [path] = root.glob(target)
    good = path.read_bytes()
    for at in range(0, len(good), 5):
        _damaged(path, at)
        with pytest.raises(reader.FormatError):
            read(store, "m")
        path.write_bytes(good)
    read(store, "m").check_order_and_index()


def test_this_reader_notices_a_wrong_index(store: pheon.Store) -> None:
    store.put_map("m", {f"{i}": i for i in range(100)})
    version = read(store, "m")
    index = version.index
    assert index is not None
    good = bytearray(index._lines)
    first_row_of_bucket_0 = 24
    index._lines = bytes(good[:first_row_of_bucket_0] + b"\x63\0\0\0" + good[first_row_of_bucket_0 + 4 :])
    with pytest.raises(reader.FormatError):
        version.check_order_and_index()


def test_the_marker_is_the_one_of_the_page(store: pheon.Store) -> None:
    marker = json.loads((Path(store.path) / "pheon.json").read_text())
    assert list(marker) == ["pheon", "format_version", "uuid", "checksum"]
    assert marker["uuid"] == store.uuid


def test_several_segments_and_hidden_rows(store: pheon.Store) -> None:
    rng = random.Random(5)
    model: dict[str, int] = {f"key {i}": i for i in range(50)}
    store.put_map("m", model)
    for step in range(14):
        changed = {f"key {rng.randrange(80)}": rng.randrange(1000) for _ in range(6)}
        store.upsert("m", changed, compact=False)
        model |= changed
        gone = [f"key {rng.randrange(80)}" for _ in range(3)]
        store.delete("m", gone, compact=step % 5 == 0)
        model = {k: v for k, v in model.items() if k not in gone}
    version = read(store, "m")
    assert len(version.segments) >= 3
    assert any(segment.hidden for segment in version.segments)
    version.check_order_and_index()
    table = version.table()
    assert dict(zip(table["key"].to_pylist(), table["value"].to_pylist(), strict=True)) == model
    assert table["key"].to_pylist() == sorted(model)
    for key in [*model, "key 81", ""]:
        row = version.get(key)
        assert (row and row["value"]) == model.get(key)


def test_appended_rows_of_one_key_stay_in_order(store: pheon.Store) -> None:
    store.put("t", pa.table({"k": [2, 1, 2], "n": [0, 1, 2]}), key="k")
    store.append("t", pa.table({"k": [1, 2, 0], "n": [3, 4, 5]}), compact=False)
    version = read(store, "t")
    assert version.manifest["format_version"] == 2
    assert version.table()["n"].to_pylist() == [5, 1, 3, 0, 2, 4] == store.table("t")["n"].to_pylist()
    store.compact("t")
    version = read(store, "t")
    assert version.manifest["format_version"] == 1
    assert version.data.table["n"].to_pylist() == [5, 1, 3, 0, 2, 4]
    identifier = version.manifest["segments"][0]["id"]
    assert int(identifier[:16], 16) == version.manifest["version"]
