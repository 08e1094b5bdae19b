"""Puts this checkout, with the extension module that cargo has just built, into the running virtual environment.

`maturin develop` would compile every dependency a second time, with other features than the Rust tests use.
"""

import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

SCRIPT = """#!{python}
import sys

from {module} import {function}

sys.exit({function}())
"""


def main() -> int:
    built = Path(sys.argv[1])
    # An installed wheel, of `make demo` say, would be found first.
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", "pheon"], check=True)
    target = ROOT / "python" / "pheon" / "_native.abi3.so"
    # A new file in place of the old one: a process that has the old one mapped keeps it.
    temporary = target.with_suffix(".new")
    shutil.copy2(built, temporary)
    temporary.replace(target)
    site = Path(sysconfig.get_path("purelib"))
    (site / "pheon-checkout.pth").write_text(f"{ROOT / 'python'}\n")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name, entry in scripts.items():
        module, function = entry.split(":")
        path = Path(sysconfig.get_path("scripts")) / name
        path.write_text(SCRIPT.format(python=sys.executable, module=module, function=function))
        path.chmod(0o755)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
