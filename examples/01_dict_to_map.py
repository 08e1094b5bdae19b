"""A Python dict becomes a map on disk; a map is read like a dict."""

import tempfile
from collections.abc import Mapping

import pheon

with tempfile.TemporaryDirectory() as folder, pheon.open(f"{folder}/store") as store:
    capitals = store.put_map("capitals", {"France": "Paris", "Peru": "Lima", "Kenya": "Nairobi"})

    assert isinstance(capitals, Mapping)
    assert capitals["Peru"] == "Lima"
    assert capitals.get("Atlantis", "?") == "?"
    assert "Kenya" in capitals
    assert len(capitals) == 3
    assert list(capitals) == ["France", "Kenya", "Peru"]  # in key order

    try:
        capitals["Atlantis"]
    except KeyError as missing:
        print("no such key:", missing)

    # The same from iterables of pairs. Nested values are kept as msgpack.
    settings = store.put_map("settings", [("theme", {"dark": True}), ("sizes", {"font": [9, 11]})])
    assert settings["sizes"] == {"font": [9, 11]}

    print("datasets in the store:", list(store))
