"""Runs a real `pheon serve` with everything that operators use: page, logs, tokens, TLS."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from flight_server import COMMAND, STOP_SECONDS_MAX
from pyarrow import flight

# Nothing here takes so long, on any machine: it guards against hanging.
WATCHDOG_SECONDS = 60


class Service:
    """A server on free ports, with its page, whose log is read along; ends with the block."""

    def __init__(self, store: Path, *options: str, token: str | None = None, **environment: str) -> None:
        command = [*COMMAND, "serve", str(store), "--log-format", "json"]
        for name in ("--listen", "--http"):
            if name not in options:
                command += [name, "127.0.0.1:0"]
        self.token = token
        self.process = subprocess.Popen(
            [*command, *options], stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        found = re.fullmatch(
            r"listening on (grpc(?:\+tls)?://.*)", self.line(lambda line: line.startswith("listening"))
        )
        assert found, self.lines
        self.location = found[1]
        page = next((line for line in self.lines if line.startswith("page and metrics on ")), "")
        self.page = page.removeprefix("page and metrics on ")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self.lines.append("(the server has ended)")
            self._news.notify_all()

    def line(self, is_it: Callable[[str], bool]) -> str:
        """The first line of the log that is it; waits for it."""
        found: list[str] = []

        def look() -> bool:
            found.extend(line for line in self.lines if is_it(line))
            return bool(found) or self.lines[-1:] == ["(the server has ended)"]

        with self._news:
            assert self._news.wait_for(look, WATCHDOG_SECONDS), self.lines
        assert found, self.lines
        return found[0]

    def event(self, target: str, **members: object) -> dict[str, Any]:
        """The first event of a target with these members; waits for it."""

        def is_it(line: str) -> bool:
            if not line.startswith("{"):
                return False
            event = json.loads(line)
            return event["target"] == target and members.items() <= event.items()

        return json.loads(self.line(is_it))

    @property
    def port(self) -> int:
        return int(self.location.rpartition(":")[2])

    def client(self, **options: Any) -> flight.FlightClient:
        return flight.connect(self.location, **options)

    def call(self, token: str | None = None, timeout: float = WATCHDOG_SECONDS) -> flight.FlightCallOptions:
        token = token or self.token
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        return flight.FlightCallOptions(timeout=timeout, headers=headers)

    def http(self, path: str, body: object = None, token: str | None = None) -> tuple[int, str]:
        """Status and text of what the page's listener answers."""
        headers = {"content-type": "application/json"} if body is not None else {}
        if token or self.token:
            headers["authorization"] = f"Bearer {token or self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.page + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=WATCHDOG_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def api(self, path: str, body: object = None, token: str | None = None) -> Any:
        status, text = self.http(f"/api/{path}", body, token)
        assert status == 200, (status, text)
        return json.loads(text)

    def metric(self, name: str) -> float:
        """The value of a line of /metrics, by its name and labels; 0 if there is none."""
        status, text = self.http("/metrics")
        assert status == 200
        return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + " ")), 0.0)

    def resident_bytes(self) -> int:
        """Memory of the server's own: without what it has mapped of files."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+) kB", text)
        assert found
        return int(found[1]) * 1024

    def serves(self, dataset: str = "t") -> None:
        """A new client gets an answer."""
        assert self.process.poll() is None, self.lines[-20:]
        with self.client() as client:
            client.get_flight_info(flight.FlightDescriptor.for_path(dataset), self.call())

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        try:
            code = self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            # A server that does not end must not outlive its test.
            self.process.kill()
            raise
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            assert self.stop() == 0, self.lines[-20:]


def make_token(path: Path, name: str, **rights: str) -> str:
    """Adds an entry to a token file, as `pheon token` makes it; its secret."""
    options = [part for right, pattern in rights.items() for part in (f"--{right}", pattern)]
    made = subprocess.run([*COMMAND, "token", name, *options, "--json"], capture_output=True, text=True, check=True)
    found = json.loads(made.stdout)
    path.touch(mode=0o600)
    with path.open("a") as file:
        file.write(found["entry"])
    return found["secret"]


def numbers(rows: int, first: int = 0) -> pa.Table:
    keys = [f"k{i:06}" for i in range(first, first + rows)]
    return pa.table({"k": pa.array(keys, pa.large_string()), "v": pa.array(range(first, first + rows), pa.int64())})


def path(*parts: str) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_path(*parts)


def command(**members: object) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_command(json.dumps(members))
