"""The rules of check_layers.py hold, and each of them notices a breach."""

import subprocess
import sys
import textwrap
from pathlib import Path

import check_layers
import pytest

ROOT = Path(__file__).parents[1]
HOST = "packages.example.org"


def test_the_tree_keeps_the_rules() -> None:
    assert check_layers.problems(ROOT) == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small source tree that breaks no rule."""
    files = {
        "docs/safety.md": "## Unsafe code\n\n| module | why |\n| --- | --- |\n| `pheon-os/src/map.rs` | mmap |\n",
        "crates/pheon-os/Cargo.toml": "[dependencies]\nlibc = '0.2'\n",
        "crates/pheon-os/src/map.rs": "#![allow(unsafe_code)]\nfn f() { unsafe { g() } }\n",
        "crates/pheon-os/src/lib.rs": "#![cfg_attr(test, allow(clippy::disallowed_methods))]\n"
        'const A: &str = "unsafe \\" unsafe"; // unsafe\nconst B: char = \'"\';\n',
        "crates/pheon/Cargo.toml": "[dependencies]\narrow-array = '59'\n",
        "crates/pheon/src/lib.rs": "//! Nothing here is async.\n",
        "crates/pheon-live/Cargo.toml": "[dependencies]\narc-swap = '1'\n",
        "crates/pheon-sql/Cargo.toml": "[dependencies]\ndatafusion = '55'\n",
        "crates/pheon-flight/Cargo.toml": "[dependencies]\ntonic = '0.14'\n",
        "crates/pheon-cli/Cargo.toml": "[dependencies]\n",
        "crates/pheon-python/Cargo.toml": "[dependencies]\n",
        "python/pheon/__init__.py": textwrap.dedent("""\
            from typing import TYPE_CHECKING

            if TYPE_CHECKING:
                import pyarrow

            def f():
                import pandas
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
        ("crates/pheon-os/src/map.rs", "// unsafe\n", "docs/safety.md names pheon-os/src/map.rs"),
        ("crates/pheon/src/lib.rs", "async fn f() {}\n", "`async` does not belong in pheon"),
        ("crates/pheon/Cargo.toml", "[dependencies]\ntokio = '1'\n", "pheon must not depend on tokio"),
        ("crates/pheon-live/Cargo.toml", "[dependencies]\nserde = '1'\n", "pheon-live must not depend on serde"),
        ("crates/pheon-sql/Cargo.toml", "[dependencies]\ntonic = '0.14'\n", "pheon-sql must not depend on tonic"),
        ("crates/pheon-flight/Cargo.toml", "[dependencies]\ndatafusion = '55'\n", "must not depend on datafusion"),
        ("crates/pheon-cli/Cargo.toml", "[dependencies]\ntonic = '0.14'\n", "pheon-cli must not depend on tonic"),
        ("crates/pheon-os/Cargo.toml", "[dependencies]\narrow-schema = '59'\n", "must not depend on arrow-schema"),
        (
            "crates/pheon-os/src/lib.rs",
            "#![allow(clippy::disallowed_methods)]\nuse arrow_schema::Schema;\n",
            "`arrow_schema` does not belong in pheon-os",
        ),
        (
            "crates/pheon/src/lib.rs",
            "#[allow(clippy::disallowed_methods)]\nfn f() { std::fs::remove_file(x) }\n",
            "allows file functions beside the seam",
        ),
        ("crates/pheon/src/probe.rs", "fn f() {}\n", "probe.rs: keeps to the seam"),
        ("crates/pheon/src/lib.rs", "use tokio::fs::File;\n", "`tokio::fs` is a way to files"),
        ("crates/pheon-cli/Cargo.toml", "[dependencies]\nmemmap2 = '0.9'\n", "memmap2 is a way to files"),
        ("python/pheon/__init__.py", "import os\ndef f(): os.replace(a, b)\n", "__init__.py:2: changes files"),
        ("python/pheon/__init__.py", "def f(): open(a, 'r+b')\n", "__init__.py:1: changes files"),
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
