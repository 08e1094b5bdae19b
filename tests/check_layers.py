"""Rules about the source tree that no compiler checks: run as a script, or through test_layers.py.

* `unsafe` stands only in the modules that docs/safety.md names, and each of those exists.
* A layer does not depend on what docs/architecture.md says it must never know.
* Files are touched through `pheon_os::fs::FileSystem` only: what clippy.toml forbids is allowed in files that are named
  here with a reason, and so are system calls on files; no crate depends on another way to files, and the Python package
  changes none.
* No lint is allowed by its group, or for a whole crate: the rules above rest on some of them.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def words(text: str) -> list[str]:
    return text.split()


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
# Where the standard library's file functions are allowed, and why. A module's `#![allow]` reaches its child modules.
SEAM_EXCEPTIONS = {
    "crates/pheon-flight/src/files.rs": "small files of the server's administrator, read; facts about this process",
    "crates/pheon-os/src/fs/real.rs": "the file system that the seam leads to",
    "crates/pheon-os/src/fs/record.rs": "for tests: makes folders as a power cut may leave them",
    "crates/pheon-os/src/memory.rs": "/proc, read; files of a store that are measured: `stat` and the canonical path",
    "crates/pheon-os/src/memory/region.rs": "/proc/<pid>/pagemap, read",
    "crates/pheon-os/src/process.rs": "/proc and control groups, read",
    "crates/pheon/src/input/mod.rs": "the user's own input files: read, `stat` and the canonical path",
    **dict.fromkeys(
        (
            f"crates/pheon/src/input/{name}.rs"
            for name in words("chain csv csv_fault csv_infer ipc json json_infer options parquet schema text types")
        ),
        "reached by the `#![allow]` of input/mod.rs, which opens files for them",
    ),
}
# Where they are allowed in tests only: at an item with `#[cfg(test)]`, or by `cfg_attr(test, ...)`.
SEAM_TESTS = {
    "crates/pheon-os/src/lib.rs",
    "crates/pheon/src/build/mod.rs",
    "crates/pheon/src/build/run.rs",
    "crates/pheon/src/build/spill_dir.rs",
    "crates/pheon/src/build/stream.rs",
    "crates/pheon/src/index/mod.rs",
    "crates/pheon/src/polars.rs",
    "crates/pheon/src/probe.rs",
}
# What pheon-os calls in libc and rustix beside HARMLESS_CALLS, where, and why.
SYSTEM_CALLS = {
    "crates/pheon-os/src/bus_error.rs": ("libc::dup2 libc::write", "a signal handler's words to the standard error"),
    "crates/pheon-os/src/forked_child.rs": ("libc::close libc::pipe libc::read libc::write", "tests only: a pipe"),
    "crates/pheon-os/src/fs/real.rs": ("rustix::fs::fadvise rustix::fs::fallocate", "the seam leads to it"),
    "crates/pheon-os/src/lock.rs": (
        "libc::fcntl libc::flock rustix::fs::fcntl_lock",
        "locks on files that are open already, and who holds them",
    ),
    "crates/pheon-os/src/map.rs": (
        "libc::sync_file_range rustix::fs::fadvise",
        "write-back of a file that the seam has open; a test empties the page cache",
    ),
    "crates/pheon-os/src/memory.rs": (
        "rustix::fs::accessat rustix::fs::major rustix::fs::minor",
        "whether the kernel tells us about a file's pages; a device's number as /proc shows it",
    ),
    "crates/pheon-os/src/shm.rs": ("rustix::fs::statfs", "whether a folder is in memory"),
}
# They reach no file that is not open.
HARMLESS_CALLS = re.compile(
    r"""(?:libc|rustix)::(?:\w+::)?[A-Z]\w*(?:::\w+)* # constants and types, by their capitals
    |libc::(?:c_\w+|\w+_t|timespec|rusage|rlimit)(?:::\w+)? # types
    |libc::(?:pthread_\w+|sigaction|raise|kill|pause|fork|_exit|waitpid|getrusage|setrlimit) # processes and threads
    |libc::(?:madvise|mincore) # memory that is mapped
    |rustix::(?:mm|param|process|thread)(?:::\w+)*""",
    re.VERBOSE,
)
# Other ways to files.
FILE_CRATES = ["async-fs", "fs*", "libc", "memmap*", "nix", "rustix", "tempfile"]
# Whole groups of lints: one of them allowed hides breaches of what the rules rest on.
LINT_GROUPS = {
    *words("bad_style future_incompatible keyword_idents let_underscore nonstandard_style refining_impl_trait"),
    *words("rust_2018_compatibility rust_2018_idioms rust_2021_compatibility rust_2024_compatibility rustdoc::all"),
    *words("unknown_or_malformed_diagnostic_attributes unused warnings"),
    *(f"clippy::{name}" for name in words("all cargo complexity correctness nursery pedantic perf restriction")),
    *(f"clippy::{name}" for name in words("style suspicious")),
}
# Lints that only the places named above and in docs/safety.md may allow.
GUARDED_LINTS = {"clippy::disallowed_methods", "unsafe_code"}
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


def rust_sources(root: Path, files: list[Path]) -> Iterator[tuple[str, str]]:
    """The crates' modules and build scripts, but not the targets beside them such as `tests/`: path and code."""
    for path in files:
        relative = path.relative_to(root).as_posix()
        if re.fullmatch(r"crates/[^/]+/(?!(?:benches|examples|tests)/).*\.rs", relative):
            yield relative, rust_code(path.read_text())


def line_of(code: str, at: int) -> int:
    return code.count("\n", 0, at) + 1


def closing(code: str, at: int) -> int:
    """Where what the bracket at `at` opens has ended."""
    pair = {"[": "]", "{": "}"}[code[at]]
    depth = 0
    for match in re.compile(re.escape(code[at]) + "|" + re.escape(pair)).finditer(code, at):
        depth += 1 if match[0] != pair else -1
        if depth == 0:
            return match.end()
    return len(code)


@dataclass(frozen=True)
class Attribute:
    """`#[text]` or `#![text]`, without white space."""

    text: str
    at: int
    end: int
    is_inner: bool
    item_at: int  # what an outer one stands at
    is_item_for_tests: bool  # `#[cfg(test)]` stands at the same item

    @property
    def is_for_tests(self) -> bool:
        return self.is_item_for_tests or re.match(r"cfg_attr\((test|all\(test,[^()]*\)),", self.text) is not None

    def allowed_lints(self) -> set[str]:
        lists = re.findall(r"\b(?:allow|expect)\(([^()]*)\)", self.text)
        return {name for names in lists for name in names.split(",")}


def attributes(code: str) -> list[Attribute]:
    runs: list[list[re.Match[str]]] = []
    end = 0
    for match in re.finditer(r"#\s*(!?)\s*\[", code):
        if match.start() < end:
            continue
        if runs and not match[1] and not runs[-1][-1][1] and not code[end : match.start()].strip():
            runs[-1].append(match)
        else:
            runs.append([match])
        end = closing(code, match.end() - 1)
    found = []
    for run in runs:
        ends = [closing(code, match.end() - 1) for match in run]
        texts = [re.sub(r"\s", "", code[match.end() : end - 1]) for match, end in zip(run, ends, strict=True)]
        is_for_tests = any(re.fullmatch(r"test|cfg\(test\)|cfg\(all\(test,[^()]*\)\)", text) for text in texts)
        item_at = len(code) - len(code[ends[-1] :].lstrip())
        for match, end, text in zip(run, ends, texts, strict=True):
            found.append(Attribute(text, match.start(), end, bool(match[1]), item_at, is_for_tests and not match[1]))
    return found


def child_modules(relative: str, code: str) -> Iterator[tuple[int, str, list[str]]]:
    """`mod name;` but for tests: where it stands, the name, and the files that may hold the module."""
    path = Path(relative)
    folder = path.parent if path.stem in {"lib", "main", "mod"} else path.with_suffix("")
    for_tests = {attribute.item_at for attribute in attributes(code) if attribute.is_item_for_tests}
    for match in re.finditer(r"\b(?:pub(?:\s*\([^)]*\))?\s+)?mod\s+(\w+)\s*;", code):
        if match.start() not in for_tests:
            yield match.start(), match[1], [f"{folder}/{match[1]}.rs", f"{folder}/{match[1]}/mod.rs"]


def used_paths(code: str, crate: str) -> Iterator[tuple[int, str]]:
    """What code names of another crate, braces of `use` resolved: `libc::open`, `libc::*`, or `libc` for all of it."""
    for match in re.finditer(rf"\b{crate}\b(?:\s*::\s*\w+)*(?:\s*::\s*(?:\*|(?P<brace>\{{)))?", code):
        end = closing(code, match.end() - 1) if match["brace"] else match.end()
        for path in _use_tree(code[match.start() : end]):
            yield match.start(), path


def _use_tree(tree: str) -> Iterator[str]:
    prefix, brace, rest = tree.partition("{")
    if not brace:
        yield re.sub(r"\s", "", re.sub(r"\s+as\s+\w+\s*$", "", tree)).removesuffix("::self")
        return
    rest = rest.rpartition("}")[0]
    while rest.strip():
        part = re.match(r"[^,{]*", rest)[0]
        if rest[len(part) :].startswith("{"):
            part = rest[: closing(rest, len(part))]
        yield from _use_tree(prefix + part.strip())
        rest = rest[len(part) :].strip().removeprefix(",")


def dependencies(root: Path, manifest: Path) -> list[str]:
    """The packages that a crate is built with on any target, by their own names; not those of its tests."""
    shared = _table(tomllib.loads((root / "Cargo.toml").read_text()), "workspace", "dependencies")
    content = tomllib.loads(manifest.read_text())
    found = set()
    for part in [content, *_table(content, "target").values()]:
        for section in ("dependencies", "build-dependencies", "build_dependencies"):
            for name, given in part.get(section, {}).items():
                details = given if isinstance(given, dict) else {}
                if details.get("workspace"):
                    details = shared.get(name) if isinstance(shared.get(name), dict) else {}
                found.add(details.get("package", name))
    return sorted(found)


def _table(content: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        content = content.get(name, {})
    return content


def among(name: str, patterns: list[str]) -> bool:
    return any(name == p or (p.endswith("*") and name.startswith(p[:-1])) for p in patterns)


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
                line = line_of(code, match.start())
                yield f"{relative}:{line}: `{match[0]}`, but docs/safety.md does not name this module"
    for name in named:
        if name not in used:
            yield f"docs/safety.md names {name}, which has no `unsafe`"


def check_layers(root: Path, files: list[Path]) -> Iterator[str]:
    for crate, patterns in FORBIDDEN.items():
        for dependency in dependencies(root, root / "crates" / crate / "Cargo.toml"):
            if among(dependency, patterns):
                yield f"crates/{crate}/Cargo.toml: {crate} must not depend on {dependency}"
    for crate, patterns in FORBIDDEN_WORDS.items():
        folder = root / "crates" / crate
        for path in files:
            if path.suffix == ".rs" and folder in path.parents:
                code = rust_code(path.read_text())
                for match in (m for pattern in patterns for m in re.finditer(pattern, code)):
                    line = line_of(code, match.start())
                    yield f"{path.relative_to(root)}:{line}: `{match[0]}` does not belong in {crate}"


def check_seam(root: Path, files: list[Path]) -> Iterator[str]:
    sources = dict(rust_sources(root, files))
    reached = {}
    for relative, code in sources.items():
        found = list(_seam_allowed(code))
        reached[relative] = bool(found)
        for at, attribute in found:
            if relative in SEAM_TESTS and not (attribute and attribute.is_for_tests):
                yield f"{relative}:{line_of(code, at)}: allows file functions outside tests"
        if found and relative not in SEAM_EXCEPTIONS and relative not in SEAM_TESTS:
            yield f"{relative}: allows file functions beside the seam, but check_layers.py does not say why"
    yield from _check_inheritance(sources, reached)
    for relative, is_reached in reached.items():
        if not is_reached and (relative in SEAM_EXCEPTIONS or relative in SEAM_TESTS):
            yield f"{relative}: keeps to the seam; check_layers.py lists it as an exception"
    for relative, code in sources.items():
        for at, path in used_paths(code, "tokio"):
            if re.match(r"tokio::(fs\b|\*)", path):
                yield f"{relative}:{line_of(code, at)}: `{path}` is a way to files beside the seam"
        if relative.startswith("crates/pheon-os/"):
            yield from _check_system_calls(relative, code)
        for match in re.finditer(r"\bextern\s*\{|\binclude\s*!|#\s*\[\s*path\b", code):
            yield f"{relative}:{line_of(code, match.start())}: `{match[0]}` hides from check_layers.py what is called"
    for manifest in sorted((root / "crates").glob("*/Cargo.toml")):
        for dependency in dependencies(root, manifest):
            is_ours = manifest.parent.name == "pheon-os" and dependency in {"libc", "rustix"}  # see SYSTEM_CALLS
            if among(dependency, FILE_CRATES) and not is_ours:
                yield f"{manifest.relative_to(root)}: {dependency} is a way to files beside the seam"


def _seam_allowed(code: str) -> Iterator[tuple[int, Attribute | None]]:
    """Where the lint is named, and the attribute that does so."""
    found = attributes(code)
    for match in re.finditer(r"\bdisallowed_methods\b", code):
        yield match.start(), next((a for a in found if a.at <= match.start() < a.end), None)


def _check_inheritance(sources: dict[str, str], reached: dict[str, bool]) -> Iterator[str]:
    """A module's `#![allow]`, or an `#[allow]` at `mod name;`, holds in child modules too. Notes those in `reached`."""
    children = {relative: list(child_modules(relative, code)) for relative, code in sources.items()}
    waiting = []  # parent, and a child that it reaches
    for relative, code in sources.items():
        outside_tests = [a for _, a in _seam_allowed(code) if a and not a.is_for_tests]
        is_inner = any(a.is_inner for a in outside_tests)
        items = {a.item_at for a in outside_tests}
        waiting += [(relative, child) for child in children[relative] if is_inner or child[0] in items]
    seen = set()
    while waiting:
        parent, (_, name, places) = waiting.pop()
        place = next((place for place in places if place in sources), None)
        if place is None:
            yield f"{parent}: allows file functions in its module {name}, but in which file is it?"
        elif place not in seen:
            seen.add(place)
            reached[place] = True
            waiting += [(place, child) for child in children[place]]
            if place not in SEAM_EXCEPTIONS:
                yield f"{place}: may use file functions as its parent {parent} does; check_layers.py does not say why"


def _check_system_calls(relative: str, code: str) -> Iterator[str]:
    listed = set(SYSTEM_CALLS.get(relative, ("", ""))[0].split())
    unused = set(listed)
    for at, path in (found for crate in ("libc", "rustix") for found in used_paths(code, crate)):
        unused.discard(path)
        if path not in listed and not HARMLESS_CALLS.fullmatch(path):
            yield f"{relative}:{line_of(code, at)}: `{path}` may reach files beside the seam; see SYSTEM_CALLS"
    for path in sorted(unused):
        yield f"{relative}: does not use {path}; check_layers.py lists it"


def check_lints(root: Path, files: list[Path]) -> Iterator[str]:
    for path in files:
        relative = path.relative_to(root).as_posix()
        if path.suffix == ".rs":
            code = rust_code(path.read_text())
            for attribute in attributes(code):
                for lint in sorted(attribute.allowed_lints() & LINT_GROUPS):
                    yield f"{relative}:{line_of(code, attribute.at)}: allows {lint}, a whole group of lints"
        if path.name in {"clippy.toml", ".clippy.toml"} and path.parent != root:
            yield f"{relative}: hides the clippy.toml of the whole tree"
    for manifest in [root / "Cargo.toml", *sorted((root / "crates").glob("*/Cargo.toml"))]:
        content = tomllib.loads(manifest.read_text())
        relative = manifest.relative_to(root)
        if manifest.parent != root and content.get("lints") != {"workspace": True}:
            yield f"{relative}: does not take the lints of the workspace"
        for tool, levels in _table(content, "workspace", "lints").items():
            for name, given in levels.items():
                lint = name if tool == "rust" else f"{tool}::{name}"
                level = given["level"] if isinstance(given, dict) else given
                if level == "allow" and lint in LINT_GROUPS | GUARDED_LINTS:
                    yield f"{relative}: allows {lint} everywhere"


# What changes files. Methods with names that others have, too, are told apart below.
_MODULES_THAT_CHANGE = {"fileinput", "mmap", "nt", "posix", "shutil", "tempfile"}
_OS_CHANGES = {
    *words("chmod chown copy_file_range fchmod fchown fdopen ftruncate lchmod lchown link makedirs mkdir mkfifo mknod"),
    *words("open pwrite remove removedirs removexattr rename renames replace rmdir sendfile setxattr symlink truncate"),
    *words("unlink utime"),
}
_PATH_CHANGES = set(words("chmod hardlink_to lchmod mkdir rmdir symlink_to touch write_bytes write_text"))
# Whose methods `unlink` and `rename` are no path's: live maps, and pandas' index.
_NOT_PATHS = {"unlink": {"_core", "core", "handle", "live", "super()"}, "rename": {"found"}}


def check_python_writes(root: Path, files: list[Path]) -> Iterator[str]:
    """The Python package changes files through its extension module only."""
    for path in files:
        if path.suffix == ".py" and root / "python" / "pheon" in path.parents:
            tree = ast.parse(path.read_text())
            for line, what in sorted(_changes(tree)):
                yield f"{path.relative_to(root)}:{line}: changes files beside the seam: {what}"


def _changes(tree: ast.Module) -> set[tuple[int, str]]:
    """Lines and what stands there."""
    nodes = list(ast.walk(tree))
    imports = [node for node in nodes if isinstance(node, ast.Import)]
    froms = [(node, alias) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names]
    found = {(node.lineno, a.name) for node in imports for a in node.names if a.name in _MODULES_THAT_CHANGE}
    for node, alias in froms:
        if node.level == 0 and (
            node.module in _MODULES_THAT_CHANGE
            or (node.module == "os" and alias.name in {*_OS_CHANGES, "*"})
            or (node.module == "io" and alias.name in {"FileIO", "*"})
        ):
            found.add((node.lineno, f"{node.module}.{alias.name}"))
    os_names = {a.asname or a.name for node in imports for a in node.names if a.name == "os"}
    openers = {"open"} | {alias.asname or alias.name for _, alias in froms if alias.name == "open"}
    for node in nodes:
        changes = (isinstance(node, ast.Attribute) and _is_changing_method(node, os_names)) or (
            isinstance(node, ast.Call) and (_opens_to_write(node, openers) or _replaces_a_path(node))
        )
        if changes:
            found.add((node.lineno, ast.unparse(node)))
    return found


def _is_changing_method(node: ast.Attribute, os_names: set[str]) -> bool:
    owner = ast.unparse(node.value)
    if owner in os_names:
        return node.attr in _OS_CHANGES
    if node.attr in _NOT_PATHS:
        return owner.rpartition(".")[2] not in _NOT_PATHS[node.attr]
    return node.attr in _PATH_CHANGES or (owner, node.attr) == ("io", "FileIO")


def _replaces_a_path(call: ast.Call) -> bool:
    """`path.replace(target)`: that of a text takes two arguments and more, that of a time takes them by name."""
    function = call.func
    if not (isinstance(function, ast.Attribute) and function.attr == "replace"):
        return False
    names = [keyword.arg for keyword in call.keywords]
    return (len(call.args) == 1 and not names) or "target" in names or ast.unparse(function.value).endswith("Path")


def _opens_to_write(call: ast.Call, openers: set[str]) -> bool:
    """`open(path, mode)`, `path.open(mode)` and `io.open(path, mode)`, with a mode that is unknown or writes."""
    function = call.func
    named = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    if isinstance(function, ast.Name) and function.id in openers:
        modes = [*call.args[1:2], *named]
    elif isinstance(function, ast.Attribute) and function.attr == "open":
        modes = [arg for arg in call.args[:2] if isinstance(arg, ast.Constant)] + named
    else:
        return False
    return any(not isinstance(mode, ast.Constant) or _writes(mode.value) for mode in modes)


def _writes(mode: object) -> bool:
    return isinstance(mode, str) and re.fullmatch(r"[abrtwx+]+", mode) is not None and bool(set(mode) & set("awx+"))


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


RULES = (
    check_unsafe,
    check_layers,
    check_seam,
    check_lints,
    check_python_writes,
    check_imports,
    check_length,
    check_hosts,
)


def problems(root: Path) -> list[str]:
    files = tracked(root)
    return [problem for rule in RULES for problem in rule(root, files)]


def main() -> int:
    found = problems(Path(__file__).parents[1])
    print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
