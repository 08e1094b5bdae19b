"""Runs a real `pheon serve` for tests of its clients."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

STOP_SECONDS_MAX = 40

# The command of the package under test, or another build of it.
COMMAND = [os.environ["PHEON_COMMAND"]] if "PHEON_COMMAND" in os.environ else [sys.executable, "-m", "pheon"]


class FlightServer:
    """A server on a free port, or on one that was free a moment ago, which ends with the block."""

    def __init__(self, store: Path, *options: str, port: int = 0) -> None:
        self.path = store
        command = [*COMMAND, "serve", str(store), "--listen", f"127.0.0.1:{port}", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.fullmatch(r"listening on (grpc(?:\+tls)?://127\.0\.0\.1:\d+)\n", line)
        assert found, line + self.process.stderr.read()
        self.location = found[1]
        # A log that nobody reads would stop the server once the pipe is full.
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _drain(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as log:
            for _ in log:
                pass

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.location.rpartition(":")[2])

    def pause(self) -> None:
        """Has it hang, with its connections open, until `resume`."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def resume(self) -> None:
        """Has it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends it as a crash of its host would."""
        self.process.kill()
        self.process.wait(STOP_SECONDS_MAX)
        self._reader.join(STOP_SECONDS_MAX)

    def stop(self) -> int:
        """Ends it as an operator would; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS_MAX)
        self._reader.join(STOP_SECONDS_MAX)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            assert self.stop() == 0
