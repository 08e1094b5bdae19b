"""Keys are sorted, so ranges and prefixes are slices of the file: nothing is copied, whatever their size."""

import tempfile

import pheon

FILES = {
    "usr/bin/awk": "mawk",
    "usr/bin/grep": "grep",
    "usr/bin/sed": "sed",
    "usr/lib/libz.so": "zlib1g",
    "usr/share/doc/sed/README": "sed",
}

with tempfile.TemporaryDirectory() as folder, pheon.open(f"{folder}/store") as store:
    files = store.put_map("files", FILES)

    programs = files.prefix("usr/bin/")
    assert len(programs) == 3
    assert len(files.range("usr/bin/b", "usr/bin/t")) == 2  # from the first, up to but without the second
    assert len(files.prefix("opt/")) == 0

    print(programs.schema)
    assert [path for path in files if path.startswith("usr/bin/")] == ["usr/bin/awk", "usr/bin/grep", "usr/bin/sed"]
