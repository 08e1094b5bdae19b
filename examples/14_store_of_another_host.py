"""A store of another host: the same interface over the network. Here the other host is this one, without its files."""

import re
import signal
import subprocess
import sys
import tempfile

import pheon


def serve(path: str) -> tuple[subprocess.Popen[str], str]:
    """Start a server on a free port, as an operator would start one elsewhere; the process and its URI."""
    command = [sys.executable, "-m", "pheon", "serve", path, "--listen", "127.0.0.1:0", "--log", "error"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    found = re.search(r"grpc://\S+", process.stderr.readline())
    assert found
    return process, found[0]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pheon.open(folder).put_map("squares", {number: number * number for number in range(100_000)})
        process, uri = serve(folder)
        try:
            # With local=True, which is the default, this host's own files would be read.
            with pheon.connect(uri, local=False) as c:
                squares = c.map("squares")
                assert squares[12] == 144
                assert squares.get_many(range(0, 100_000, 1000))[-1] == 99_000**2
                few = squares.range(10, 13)  # where they are; the rows come when they are used
                assert [row["value"] for row in few] == [100, 121, 144]

                c.put_map("cubes", {number: number**3 for number in range(1000)})
                assert sorted(c) == ["cubes", "squares"]

                hits = c.live("hits")
                hits.increment("cubes")
                print(f"{uri}: {len(squares):,} squares, {len(c.map('cubes')):,} cubes, hits {hits.copy()}")

            with pheon.connect(uri) as c:  # on the same host: mapped, zero-copy
                assert c.is_local
                assert isinstance(c.map("squares"), pheon.Map)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            process.stderr.close()  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
