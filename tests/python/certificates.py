"""A CA, and certificates that it has signed, by the command `openssl`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


class Certificates:
    """Files in a folder; skips the test where there is no openssl."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("the command openssl is not there to make certificates")
        self.folder = folder
        self._openssl("req", "-x509", *self._new_key("ca"), "-out", "ca.pem", "-subj", "/CN=a CA of this test")
        self.make("server", "localhost")

    def make(self, file: str, name: str) -> None:
        """Signs a certificate for a name, in the place of the one before it."""
        self._openssl("req", *self._new_key(file), "-out", f"{file}.csr", "-subj", f"/CN={name}")
        (self.folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        self._openssl("x509", "-req", "-in", f"{file}.csr", *signed, "-out", f"{file}.pem")
        (self.folder / f"{file}.key").chmod(0o600)

    def _new_key(self, file: str) -> tuple[str, ...]:
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        return (*curve, "-keyout", f"{file}.key")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    @property
    def options(self) -> tuple[str, ...]:
        """For `pheon serve`."""
        return ("--tls-cert", self.path("server.pem"), "--tls-key", self.path("server.key"))
