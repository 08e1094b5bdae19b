"""The stub of the native module says what the module holds; the package type-checks; its style is checked."""

from __future__ import annotations

import ast
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pheon
from pheon import _native

PACKAGE = Path(pheon.__file__).parent
STUB = ast.parse((PACKAGE / "_native.pyi").read_text())
# What Python gives every class, and what pyo3 adds to every module.
GIVEN = set(dir(object)) | {"__module__", "__doc__", "__dict__", "__weakref__", "__all__", "__hash__"}


def stub_classes() -> dict[str, ast.ClassDef]:
    return {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


def members(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}


def is_property(function: ast.FunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "property" for d in function.decorator_list)


def test_the_module_holds_what_the_stub_says() -> None:
    in_stub = set(stub_classes())
    for node in STUB.body:
        if isinstance(node, ast.FunctionDef):
            in_stub.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            in_stub.add(node.target.id)
    in_module = {name for name in dir(_native) if not name.startswith("__") or name == "__version__"}
    # An iterator that nobody names.
    assert in_module - {"ColumnIter"} == in_stub


@pytest.mark.parametrize("name", stub_classes())
def test_classes_hold_what_the_stub_says(name: str) -> None:
    native = getattr(_native, name)
    in_stub = set(members(stub_classes()[name]))
    in_class = {member for member in dir(native) if member not in GIVEN}
    assert in_class - in_stub == set()
    assert {m for m in in_stub if not hasattr(native, m)} == set()


FUNCTIONS = [
    (name, member)
    for name, node in stub_classes().items()
    for member, function in members(node).items()
    if not is_property(function) and not (member.startswith("__") and "arrow" not in member)
]


@pytest.mark.parametrize(("name", "member"), FUNCTIONS, ids=[".".join(pair) for pair in FUNCTIONS])
def test_signatures(name: str, member: str) -> None:
    function = members(stub_classes()[name])[member]
    native = inspect.signature(getattr(getattr(_native, name), member))
    arguments = function.args
    stub_names = [a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]]
    assert list(native.parameters) == stub_names
    without_default = len(stub_names) - len(arguments.defaults)
    required = [p.default is inspect.Parameter.empty for p in native.parameters.values()]
    assert required == [i < without_default for i in range(len(stub_names))]
    positional = [p.kind is inspect.Parameter.POSITIONAL_ONLY for p in native.parameters.values()]
    # `self` is always positional-only at run time.
    assert positional[1:] == [i < len(arguments.posonlyargs) for i in range(len(stub_names))][1:]


def test_handles_are_frozen(store: pheon.Store) -> None:
    m = store.put_map("m", {"a": 1})
    for handle in (m, m.table()._handle, m.table()["value"], store._handle, iter(m)):
        with pytest.raises(AttributeError):
            handle.version = 5


def test_everything_public_is_documented() -> None:
    for name in pheon.__all__:
        if name == "__version__":
            continue
        public = getattr(pheon, name)
        assert inspect.getdoc(public), name
        for member, value in vars(public).items() if inspect.isclass(public) else ():
            if not member.startswith("_") and callable(value):
                assert inspect.getdoc(value), f"{name}.{member}"


def test_no_optional_library_is_imported() -> None:
    code = """import sys, pheon
libraries = {"numpy", "pandas", "polars", "pyarrow", "duckdb"}
print(sorted(libraries & {module.split(".")[0] for module in sys.modules}))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_py_typed_is_shipped() -> None:
    assert (PACKAGE / "py.typed").exists()


def tool(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def root() -> Path:
    for parent in Path(__file__).resolve().parents:
        if (parent / "pyproject.toml").exists():
            return parent
    pytest.skip("not in the repository")


@pytest.mark.timeout(600)
def test_pyright() -> None:
    # The sources are found by the configuration alone, not also by where this run imports them from.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [tool("pyright"), "--pythonpath", sys.executable],
        cwd=root(),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_checkers_of_users_know_the_names(tmp_path: Path) -> None:
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(PACKAGE.parent)]}))
    (tmp_path / "user.py").write_text("import pheon\n\npheon.LiveMap\npheon.connect\npheon.Sotre\n")
    command = [tool("pyright"), "--pythonpath", sys.executable, "--outputjson", "-p", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    problems = [
        found["message"] for found in json.loads(done.stdout)["generalDiagnostics"] if found["severity"] == "error"
    ]
    assert len(problems) == 1, problems
    assert "Sotre" in problems[0]


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_ruff(arguments: list[str]) -> None:
    done = subprocess.run(
        [tool("ruff"), *arguments, "python", "tests/python"], cwd=root(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
