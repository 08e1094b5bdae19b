"""The files in deploy/: that systemd and the server take them."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not there to look at the unit")
    text = (DEPLOY / "pheon.service").read_text()
    assert "/usr/local/bin/pheon serve --config /etc/pheon/pheon.toml" in text
    unit = tmp_path / "pheon.service"
    unit.write_text(text.replace("/usr/local/bin/pheon", "/bin/true"))
    looked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    # Units of the machine itself may have problems of their own.
    assert [line for line in looked.stderr.splitlines() if "pheon" in line] == []


def test_time_to_stop_is_longer_than_the_drain() -> None:
    unit = (DEPLOY / "pheon.service").read_text()
    operations = (DEPLOY.parent / "docs" / "operations.md").read_text()
    drain = re.search(r"`drain_timeout` \| (\d+) s", operations)
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert drain
    assert stop
    assert int(stop[1]) > int(drain[1])
    assert f"--stop-timeout {stop[1]}" in (DEPLOY / "Dockerfile").read_text()


def test_every_member_of_the_configuration_is_documented() -> None:
    # Members that are commented out count too.
    text = re.sub(r"(?m)^#(?=\w+ = )", "", (DEPLOY / "pheon.toml").read_text())
    members = tomllib.loads(text)
    operations = (DEPLOY.parent / "docs" / "operations.md").read_text()
    for name in [*members.pop("limits"), *members]:
        assert f"`{name}`" in operations, name
