"""A map larger than memory: a writer takes entries as they come, sorts them in runs and publishes them at once."""

import tempfile

import pheon

with tempfile.TemporaryDirectory() as folder, pheon.open(f"{folder}/store") as store:
    with store.map_writer("squares", on_duplicate="last", memory_limit="100MB") as writer:
        writer.put(3, 10)
        writer.update({1: 1, 2: 4})
        writer.update((n, n * n) for n in range(3, 200_000))  # 3 again: the last one counts
        assert "squares" not in store  # nothing is visible until the block ends
    squares = store.map("squares")
    assert squares[3] == 9
    assert len(squares) == 199_999

    # An error inside the block publishes nothing.
    try:
        with store.map_writer("squares") as writer:
            writer.put(1, -1)
            raise RuntimeError("the source broke")
    except RuntimeError:
        pass
    assert store.map("squares")[1] == 1

    # By default a key that comes twice is an error that names both places.
    try:
        store.put_map("twice", [("a", 1), ("b", 2), ("a", 3)])
    except pheon.DuplicateKeyError as error:
        print(error)
    assert "twice" not in store
