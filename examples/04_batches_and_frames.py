"""Many keys at once: the same kind out as in, aligned with the keys. Needs pyarrow, polars and pandas."""

import tempfile

import pandas as pd
import polars as pl
import pyarrow as pa

import pheon

with tempfile.TemporaryDirectory() as folder, pheon.open(f"{folder}/store") as store:
    people = pl.DataFrame({"name": ["Ada", "Alan", "Grace"], "born": [1815, 1912, 1906], "died": [1852, 1954, 1992]})
    born = store.put_map("born", people, key="name", value="born")

    assert born.get_many(["Grace", "Nobody"]) == [1906, None]
    assert born.get_many(pa.array(["Grace", "Nobody"])).to_pylist() == [1906, None]
    assert born.get_many(pl.Series(["Nobody", "Ada"])).to_list() == [None, 1815]
    assert born.get_many(pd.Series(["Ada", "Alan"])).tolist() == [1815, 1912]
    assert list(born.contains_many(["Ada", "Nobody"])) == [True, False]

    # Several value columns: a value is a dict, a batch a table.
    lives = store.put_map("lives", people, key="name", value=["born", "died"])
    assert lives["Ada"] == {"born": 1815, "died": 1852}
    print(lives.get_many(pa.array(["Alan", "Nobody", "Ada"])))

    # The whole map is a table, sorted by key, without a copy.
    print(lives.table().to_polars())
