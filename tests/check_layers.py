"""Rules about the source tree that no compiler checks: run as a script, or through test_layers.py.

* `unsafe` stands only in the modules that docs/safety.md names, and each of those exists.
* A layer does not depend on what docs/architecture.md says it must never know.
* Files are touched through `pheon_os::fs::FileSystem` only: what clippy.toml forbids is allowed in files that are named
  here with a reason, no crate depends on another way to files, and the Python package writes none.
* `import pheon` must not need an optional library: only `python/pheon/_adapters` imports one at its top.
* No source file is longer than 800 lines.
* Text names only well-known public hosts, and Cargo.lock only the public index.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

LINES_MAX = 800
SOURCE_SUFFIXES = {".rs", ".py", ".pyi", ".sh", ".toml"}
OPTIONAL_LIBRARIES = {"pyarrow", "pandas", "polars", "numpy", "duckdb"}
HOSTS = {
    "127.0.0.1",
    "localhost",
    "arrow.apache.org",
    "doc.rust-lang.org",
    "docs.python.org",
    "docs.rs",
    "github.com",
    "www.apache.org",
}

# What a crate must never depend on: names of packages, `*` at the end stands for any ending.
FORBIDDEN = {
    "pheon-os": ["arrow*", "parquet", "pheon", "pyo3*", "serde*", "tokio*", "async*", "futures*"],
    "pheon": ["tokio*", "async*", "datafusion*", "futures*", "hyper*", "reqwest*", "tonic*", "pyo3*", "rayon*"],
    "pheon-live": ["arrow*", "tokio*", "async*", "pyo3*", "serde*"],
    "pheon-sql": ["arrow-flight", "hyper*", "pheon-flight", "prost*", "pyo3*", "tonic*"],
    "pheon-flight": ["clap*", "datafusion*", "pyo3*"],
    "pheon-cli": ["arrow-data", "arrow-flight", "datafusion*", "flatbuffers", "pyo3*", "tokio*", "tonic*"],
    "pheon-python": ["arrow-flight", "datafusion*", "flatbuffers", "tokio*", "tonic*"],
}
# Where the standard library's file functions are allowed, and why.
SEAM_EXCEPTIONS = {
    "crates/pheon-flight/src/files.rs": "small files of the server's administrator, read; facts about this process",
    "crates/pheon-os/src/fs/real.rs": "the file system that the seam leads to",
    "crates/pheon-os/src/fs/record.rs": "for tests: makes folders as a power cut may leave them",
    "crates/pheon-os/src/lib.rs": "its tests only",
    "crates/pheon-os/src/memory.rs": "/proc, read",
    "crates/pheon-os/src/process.rs": "/proc and control groups, read",
    "crates/pheon/src/build/mod.rs": "a test module",
    "crates/pheon/src/build/run.rs": "a test module",
    "crates/pheon/src/build/spill_dir.rs": "a test module",
    "crates/pheon/src/build/stream.rs": "a test module",
    "crates/pheon/src/index/mod.rs": "a test module",
    "crates/pheon/src/input/mod.rs": "the user's own input files, read",
    "crates/pheon/src/polars.rs": "a test module",
    "crates/pheon/src/probe.rs": "a test",
}
# Other ways to files.
FILE_CRATES = ["async-fs", "fs*", "libc", "memmap*", "nix", "rustix", "tempfile"]
# Words that must not occur in a crate's code, beside its dependencies.
FORBIDDEN_WORDS = {
    "pheon": [r"\basync\b", r"\.await\b"],
    "pheon-live": [r"\basync\b", r"\.await\b"],
    "pheon-os": [r"\basync\b", r"\barrow_\w+"],
}

_RUST_NOISE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(?P<hashes>\#*)".*?"(?P=hashes)|b?"(?:\\.|[^"\\])*"|b?'(?:\\.|[^'\\])'""", re.DOTALL
)


def tracked(root: Path) -> list[Path]:
    """The files that are, or are about to be, under version control."""
    command = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return sorted(path for name in listed.split("\0") if name and (path := root / name).is_file())


def rust_code(text: str) -> str:
    """Rust source without comments, strings and characters; lines keep their numbers."""
    return _RUST_NOISE.sub(lambda match: "\n" * match[0].count("\n"), text)


def unsafe_modules(safety_page: str) -> list[str]:
    """What the table of docs/safety.md names: files and folders below crates/."""
    section = safety_page.split("## Unsafe code", 1)[1]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def check_unsafe(root: Path, files: list[Path]) -> Iterator[str]:
    named = unsafe_modules((root / "docs/safety.md").read_text())
    used = set()
    for path in files:
        if path.suffix != ".rs":
            continue
        relative = path.relative_to(root).as_posix()
        code = rust_code(path.read_text())
        for match in re.finditer(r"\bunsafe\b|\ballow\s*\(\s*unsafe_code\s*\)", code):
            inside = relative.removeprefix("crates/")
            owners = [name for name in named if inside in (name, f"{name}.rs") or inside.startswith(f"{name}/")]
            used.update(owners)
            if not owners:
                line = code.count("\n", 0, match.start()) + 1
                yield f"{relative}:{line}: `{match[0]}`, but docs/safety.md does not name this module"
    for name in named:
        if name not in used:
            yield f"docs/safety.md names {name}, which has no `unsafe`"


def check_layers(root: Path, files: list[Path]) -> Iterator[str]:
    for crate, patterns in FORBIDDEN.items():
        manifest = root / "crates" / crate / "Cargo.toml"
        for dependency in tomllib.loads(manifest.read_text()).get("dependencies", {}):
            for pattern in patterns:
                exact = dependency == pattern
                if exact or (pattern.endswith("*") and dependency.startswith(pattern[:-1])):
                    yield f"crates/{crate}/Cargo.toml: {crate} must not depend on {dependency}"
    for crate, words in FORBIDDEN_WORDS.items():
        folder = root / "crates" / crate
        for path in files:
            if path.suffix == ".rs" and folder in path.parents:
                code = rust_code(path.read_text())
                for match in (m for word in words for m in re.finditer(word, code)):
                    line = code.count("\n", 0, match.start()) + 1
                    yield f"{path.relative_to(root)}:{line}: `{match[0]}` does not belong in {crate}"


def check_seam(root: Path, files: list[Path]) -> Iterator[str]:
    for path in files:
        relative = path.relative_to(root).as_posix()
        in_source = re.match(r"crates/([^/]+)/src/", relative)
        if path.suffix != ".rs" or not in_source:
            continue
        code = rust_code(path.read_text())
        if re.search(r"\bdisallowed_methods\b", code):
            if relative not in SEAM_EXCEPTIONS:
                yield f"{relative}: allows file functions beside the seam, but check_layers.py does not say why"
        elif relative in SEAM_EXCEPTIONS:
            yield f"{relative}: keeps to the seam; check_layers.py lists it as an exception"
        if match := re.search(r"\btokio::fs\b", code):
            yield f"{relative}: `{match[0]}` is a way to files beside the seam"
    for manifest in sorted((root / "crates").glob("*/Cargo.toml")):
        for dependency in tomllib.loads(manifest.read_text()).get("dependencies", {}):
            others = [p for p in FILE_CRATES if dependency == p or (p[-1] == "*" and dependency.startswith(p[:-1]))]
            if others and manifest.parent.name != "pheon-os":
                yield f"{manifest.relative_to(root)}: {dependency} is a way to files beside the seam"
    for path in files:
        if path.suffix == ".py" and root / "python" / "pheon" in path.parents:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and _writes_files(node):
                    yield f"{path.relative_to(root)}:{node.lineno}: changes files beside the seam"


_OS_CHANGES = {
    "link",
    "makedirs",
    "mkdir",
    "open",
    "remove",
    "rename",
    "replace",
    "rmdir",
    "symlink",
    "truncate",
    "unlink",
}
_PATH_CHANGES = {"hardlink_to", "mkdir", "rmdir", "symlink_to", "touch", "write_bytes", "write_text"}


def _writes_files(call: ast.Call) -> bool:
    function = call.func
    if isinstance(function, ast.Attribute):
        module = function.value.id if isinstance(function.value, ast.Name) else ""
        return (
            module in {"shutil", "tempfile"}
            or (module == "os" and function.attr in _OS_CHANGES)
            or function.attr in _PATH_CHANGES
        )
    modes = [*call.args[1:2], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    return (
        isinstance(function, ast.Name)
        and function.id == "open"
        and any(isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax+") for mode in modes)
    )


def check_imports(root: Path, files: list[Path]) -> Iterator[str]:
    package = root / "python" / "pheon"
    adapters = package / "_adapters"
    for path in files:
        if path.suffix != ".py" or package not in path.parents or adapters in path.parents:
            continue
        for node in _imports_at_import_time(ast.parse(path.read_text()).body):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                if name.split(".")[0] in OPTIONAL_LIBRARIES:
                    yield f"{path.relative_to(root)}:{node.lineno}: imports {name} when pheon is imported"


def _imports_at_import_time(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If):
            if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
                yield from _imports_at_import_time(node.body)
            yield from _imports_at_import_time(node.orelse)
        elif isinstance(node, ast.Try):
            yield from _imports_at_import_time(node.body + node.orelse + node.finalbody)
        elif isinstance(node, ast.With | ast.ClassDef):
            yield from _imports_at_import_time(node.body)


def check_length(root: Path, files: list[Path]) -> Iterator[str]:
    for path in files:
        if path.suffix in SOURCE_SUFFIXES:
            lines = len(path.read_text().splitlines())
            if lines > LINES_MAX:
                yield f"{path.relative_to(root)}: {lines} lines, at most {LINES_MAX}: split it"


def check_hosts(root: Path, files: list[Path]) -> Iterator[str]:
    for path in files:
        relative = path.relative_to(root).as_posix()
        if relative == "Cargo.lock":
            for source in sorted(set(re.findall(r'^source = "([^"]*)"', path.read_text(), re.MULTILINE))):
                if not source.startswith("registry+https://github.com/"):
                    yield f"Cargo.lock: source {source} is not the public index"
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for match in re.finditer(r"(?<![+\w])\w+://([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)", text):
            if match[1] not in HOSTS:
                line = text.count("\n", 0, match.start()) + 1
                yield f"{relative}:{line}: names the host {match[1]}"


RULES = (check_unsafe, check_layers, check_seam, check_imports, check_length, check_hosts)


def problems(root: Path) -> list[str]:
    files = tracked(root)
    return [problem for rule in RULES for problem in rule(root, files)]


def main() -> int:
    found = problems(Path(__file__).parents[1])
    print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
