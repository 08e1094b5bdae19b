"""Installs the packages of one of pyproject.toml's extras, without building Pheon itself."""

import subprocess
import sys
import tomllib
from pathlib import Path


def main() -> int:
    extra = sys.argv[1]
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    packages = project["optional-dependencies"][extra]
    return subprocess.call([sys.executable, "-m", "pip", "install", "--quiet", *packages])


if __name__ == "__main__":
    raise SystemExit(main())
