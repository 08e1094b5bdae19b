"""The rules of check_layers.py hold, and each of them notices a breach."""

import subprocess
import sys
import textwrap
from pathlib import Path

import check_layers
import pytest

ROOT = Path(__file__).parents[1]
HOST = "packages.example.org"
SAFETY = "## Unsafe code\n\n| module | why |\n| --- | --- |\n| `pheon-os/src/map.rs` | mmap |\n"
LINTS = "\n[lints]\nworkspace = true\n"
ALLOW = "#[allow(clippy::disallowed_methods)]"
MEMORY = "use rustix::fs::{Access, accessat, major, minor as lower};\n"


def test_the_tree_keeps_the_rules() -> None:
    assert check_layers.problems(ROOT) == []


def test_the_exceptions_are_files() -> None:
    for name in [*check_layers.SEAM_EXCEPTIONS, *check_layers.SEAM_TESTS, *check_layers.SYSTEM_CALLS]:
        assert (ROOT / name).is_file(), name


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small source tree that breaks no rule."""
    files = {
        "docs/safety.md": SAFETY,
        "Cargo.toml": "[workspace.dependencies]\nsync = { version = '1', package = 'tokio' }\n"
        "[workspace.lints.clippy]\nall = { level = 'warn', priority = -1 }\n",
        "clippy.toml": "disallowed-methods = []\n",
        "crates/pheon-os/Cargo.toml": "[dependencies]\nlibc = '0.2'\n[dev-dependencies]\ntempfile = '3'\n" + LINTS,
        "crates/pheon-os/src/map.rs": "#![allow(unsafe_code)]\nfn f() { unsafe { libc::madvise(libc::EINVAL) } }\n"
        "use libc::sync_file_range;\nuse rustix::{fs::{Advice, fadvise}, io::Errno, mm};\n",
        "crates/pheon-os/src/memory.rs": f"#!{ALLOW[1:]}\n#[cfg(test)]\nmod tests;\nmod region;\n{MEMORY}",
        "crates/pheon-os/src/memory/region.rs": "fn f() { File::open(x) }\n",
        "crates/pheon-os/src/memory/tests.rs": "",
        "crates/pheon-os/src/futex.rs": "",
        "crates/pheon-os/src/lib.rs": "#![cfg_attr(test, allow(clippy::disallowed_methods))]\n"
        'const A: &str = "unsafe \\" unsafe"; // unsafe\nconst B: char = \'"\';\n',
        "crates/pheon/Cargo.toml": "[dependencies]\narrow-array = '59'\n" + LINTS,
        "crates/pheon/src/lib.rs": "//! Nothing here is async.\n",
        "crates/pheon/src/probe.rs": f"#[cfg(test)]\n{ALLOW}\nmod tests {{}}\n",
        "crates/pheon-live/Cargo.toml": "[dependencies]\narc-swap = '1'\n" + LINTS,
        "crates/pheon-sql/Cargo.toml": "[dependencies]\ndatafusion = '55'\n" + LINTS,
        "crates/pheon-flight/Cargo.toml": "[dependencies]\ntonic = '0.14'\n" + LINTS,
        "crates/pheon-cli/Cargo.toml": LINTS,
        "crates/pheon-python/Cargo.toml": LINTS,
        "python/pheon/__init__.py": textwrap.dedent("""\
            import os
            from typing import TYPE_CHECKING

            if TYPE_CHECKING:
                import pyarrow

            def f():
                import pandas
                text.replace("a", "b"), time.replace(tzinfo=None), handle.unlink(), self._core.unlink(x)
                os.path.join("a"), os.getpid(), open("w"), open(x, "rb"), pheon.open("words"), Path(x).open()
            """),
        "python/pheon/_adapters/arrow.py": "import pyarrow\n",
        "Cargo.lock": 'source = "registry+https://github.com/somewhere"\n',
        "README.md": "https://github.com/x and shm://name and grpc://127.0.0.1:1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert check_layers.problems(tmp_path) == []
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("crates/pheon/src/lib.rs", "fn f() {\n    unsafe { g() } }\n", "crates/pheon/src/lib.rs:2: `unsafe`"),
        ("crates/pheon/src/lib.rs", "#![allow(unsafe_code)]\n", "crates/pheon/src/lib.rs:1: `allow(unsafe_code)`"),
        ("docs/safety.md", f"{SAFETY}| `pheon/src/key.rs` | |\n", "docs/safety.md names pheon/src/key.rs"),
        ("crates/pheon/src/lib.rs", "async fn f() {}\n", "`async` does not belong in pheon"),
        ("crates/pheon/Cargo.toml", "[dependencies]\ntokio = '1'\n" + LINTS, "pheon must not depend on tokio"),
        (
            "crates/pheon-live/Cargo.toml",
            "[dependencies]\nserde = '1'\n" + LINTS,
            "pheon-live must not depend on serde",
        ),
        (
            "crates/pheon-sql/Cargo.toml",
            "[dependencies]\ntonic = '0.14'\n" + LINTS,
            "pheon-sql must not depend on tonic",
        ),
        (
            "crates/pheon-flight/Cargo.toml",
            "[dependencies]\ndatafusion = '55'\n" + LINTS,
            "must not depend on datafusion",
        ),
        (
            "crates/pheon-cli/Cargo.toml",
            "[dependencies]\ntonic = '0.14'\n" + LINTS,
            "pheon-cli must not depend on tonic",
        ),
        (
            "crates/pheon-os/Cargo.toml",
            "[dependencies]\narrow-schema = '59'\n" + LINTS,
            "must not depend on arrow-schema",
        ),
        (
            "crates/pheon-os/src/lib.rs",
            f"#![cfg_attr(test, {ALLOW[2:-1]})]\nuse arrow_schema::Schema;\n",
            "`arrow_schema` does not belong in pheon-os",
        ),
        (
            "crates/pheon/src/lib.rs",
            f"{ALLOW}\nfn f() {{ std::fs::remove_file(x) }}\n",
            "allows file functions beside the seam",
        ),
        ("crates/pheon/build.rs", f"{ALLOW}\nfn main() {{}}\n", "build.rs: allows file functions beside the seam"),
        ("crates/pheon/src/probe.rs", f"#!{ALLOW[1:]}\n", "probe.rs:1: allows file functions outside tests"),
        ("crates/pheon/src/probe.rs", f"\n{ALLOW}\nmod a {{}}\n", "probe.rs:2: allows file functions outside tests"),
        (
            "crates/pheon/src/probe.rs",
            f"#[cfg_attr(test, derive(Debug))]\n#[cfg(any(test, x))]\n{ALLOW}\nstruct A;\n",
            "probe.rs:3: allows file functions outside tests",
        ),
        (
            "crates/pheon-os/src/memory.rs",
            f"#!{ALLOW[1:]}\n#[cfg(unix)]\npub(crate) mod tests;\nmod region;\n{MEMORY}",
            "memory/tests.rs: may use file functions as its parent crates/pheon-os/src/memory.rs does",
        ),
        (
            "crates/pheon-os/src/memory.rs",
            f"{ALLOW}\nmod tests;\n{ALLOW}\nmod region;\n{MEMORY}",
            "memory/tests.rs: may use file functions as its parent",
        ),
        (
            "crates/pheon-os/src/memory.rs",
            f"#!{ALLOW[1:]}\nmod region;\nmod nowhere;\n{MEMORY}",
            "its module nowhere, but in which file",
        ),
        (
            "crates/pheon-os/src/memory.rs",
            f"#!{ALLOW[1:]}\n{MEMORY}",
            "memory/region.rs: keeps to the seam",
        ),
        ("crates/pheon-os/src/futex.rs", "fn f() { rustix::fs::unlink(x) }\n", "futex.rs:1: `rustix::fs::unlink` may"),
        ("crates/pheon-os/src/futex.rs", "use rustix::{mm, fs::{self, Mode}};\n", "futex.rs:1: `rustix::fs` may"),
        ("crates/pheon-os/src/futex.rs", "use libc::{\n    c_int, open as o};\n", "futex.rs:1: `libc::open` may"),
        ("crates/pheon-os/src/futex.rs", "use libc::*;\n", "futex.rs:1: `libc::*` may"),
        ("crates/pheon-os/src/futex.rs", "use libc as c;\n", "futex.rs:1: `libc` may"),
        (
            "crates/pheon-os/src/memory.rs",
            f"#!{ALLOW[1:]}\nmod region;\n{MEMORY}fn f() {{ libc::unlink(x) }}\n",
            "memory.rs:4: `libc::unlink` may",
        ),
        (
            "crates/pheon-os/src/memory.rs",
            f"#!{ALLOW[1:]}\nmod region;\nuse rustix::fs::{{accessat, major}};\n",
            "memory.rs: does not use rustix::fs::minor",
        ),
        ("crates/pheon/src/lib.rs", 'extern "C" { fn open(); }\n', "lib.rs:1: `extern  {` hides"),
        ("crates/pheon/src/lib.rs", '#[path = "x"]\nmod x;\n', "lib.rs:1: `#[path` hides"),
        ("crates/pheon/src/lib.rs", "#![allow(clippy::style)]\n", "lib.rs:1: allows clippy::style, a whole group"),
        ("crates/pheon/tests/a.rs", "\n#[expect( warnings )]\nfn f() {}\n", "a.rs:2: allows warnings, a whole group"),
        ("crates/pheon/src/lib.rs", "#![cfg_attr(a, allow(x, clippy::all,))]\n", "lib.rs:1: allows clippy::all"),
        ("crates/pheon/clippy.toml", "", "crates/pheon/clippy.toml: hides the clippy.toml of the whole tree"),
        ("crates/pheon-cli/Cargo.toml", "", "pheon-cli/Cargo.toml: does not take the lints of the workspace"),
        ("Cargo.toml", "[workspace.lints.clippy]\nstyle = 'allow'\n", "Cargo.toml: allows clippy::style everywhere"),
        ("Cargo.toml", "[workspace.lints.rust]\nunsafe_code = { level = 'allow' }\n", "Cargo.toml: allows unsafe_code"),
        ("crates/pheon/src/probe.rs", "fn f() {}\n", "probe.rs: keeps to the seam"),
        ("crates/pheon/Cargo.toml", "[build-dependencies]\ntokio = '1'\n" + LINTS, "pheon must not depend on tokio"),
        ("crates/pheon/Cargo.toml", "[target.x.dependencies]\nnix = '1'\n" + LINTS, "nix is a way to files"),
        (
            "crates/pheon/Cargo.toml",
            "[target.'cfg(unix)'.build-dependencies]\na = { version = '1', package = 'libc' }\n" + LINTS,
            "libc is a way to files",
        ),
        ("crates/pheon/Cargo.toml", "[dependencies]\nsync.workspace = true\n" + LINTS, "must not depend on tokio"),
        ("crates/pheon-os/Cargo.toml", "[dependencies]\nmemmap2 = '0.9'\n" + LINTS, "memmap2 is a way to files"),
        ("crates/pheon/src/lib.rs", "use tokio::{fs::File, net};\n", "`tokio::fs::File` is a way to files"),
        ("crates/pheon/src/lib.rs", "use tokio::fs::File;\n", "`tokio::fs::File` is a way to files"),
        ("crates/pheon-cli/Cargo.toml", "[dependencies]\nmemmap2 = '0.9'\n" + LINTS, "memmap2 is a way to files"),
        ("python/pheon/__init__.py", "import os\ndef f(): os.replace(a, b)\n", "__init__.py:2: changes files"),
        ("python/pheon/__init__.py", "def f(): open(a, 'r+b')\n", "__init__.py:1: changes files"),
        *(
            ("python/pheon/__init__.py", f"{code}\n", f"__init__.py:1: changes files beside the seam: {what}")
            for code, what in [
                ("Path(a).open('w')", "Path(a).open('w')"),
                ("path.open(mode='ab')", "path.open(mode='ab')"),
                ("io.open(a, 'x')", "io.open(a, 'x')"),
                ("open(a, mode)", "open(a, mode)"),
                ("from codecs import open as o; o(a, 'w')", "o(a, 'w')"),
                ("path.unlink()", "path.unlink"),
                ("map(Path.unlink, paths)", "Path.unlink"),
                ("(folder / name).rename(a)", "(folder / name).rename"),
                ("path.replace(a)", "path.replace(a)"),
                ("Path.replace(a, b)", "Path.replace(a, b)"),
                ("path.chmod(0o600)", "path.chmod"),
                ("import os as o; o.chmod(a, 0)", "o.chmod"),
                ("from os import getpid, unlink as u", "os.unlink"),
                ("from os import *", "os.*"),
                ("import shutil as s", "shutil"),
                ("from shutil import rmtree", "shutil.rmtree"),
                ("def f(): import tempfile", "tempfile"),
                ("io.FileIO(a, 'w')", "io.FileIO"),
            ]
        ),
        ("python/pheon/__init__.py", "try:\n    import numpy as np\nexcept ImportError: ...\n", "imports numpy"),
        ("python/pheon/__init__.py", "from pyarrow.lib import Table\n", "imports pyarrow.lib"),
        ("crates/pheon/src/lib.rs", "\n" * 801, "801 lines, at most 800"),
        (
            "README.md",
            f"pip install --index-url https://{HOST}/simple\n",
            f"names the host {HOST}",
        ),
        ("Cargo.lock", f'source = "registry+https://{HOST}/index"\n', "Cargo.lock: source"),
    ],
)
def test_a_breach_is_found(tree: Path, name: str, text: str, expected: str) -> None:
    (tree / name).parent.mkdir(exist_ok=True)
    (tree / name).write_text(text)
    found = check_layers.problems(tree)
    assert len(found) == 1, found
    assert expected in found[0], found


def test_import_pheon_loads_no_optional_library() -> None:
    """In a fresh interpreter in which none of them could be imported either."""
    code = textwrap.dedent(f"""\
        import sys
        optional = {sorted(check_layers.OPTIONAL_LIBRARIES)!r}
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in optional:
                    raise ImportError(name)
        sys.meta_path.insert(0, Refuse())
        import pheon, tempfile
        with tempfile.TemporaryDirectory() as folder:
            store = pheon.open(folder + "/store")
            m = store.put_map("words", {{"quick": "fast", "lazy": "idle"}})
            assert m["lazy"] == "idle" and m.get_many(["quick", "?"]) == ["fast", None] and dict(m) == dict(m.items())
        """)
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
