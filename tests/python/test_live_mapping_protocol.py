"""CPython's own tests of the mapping protocol, all of them, run on `LiveMap`."""

from __future__ import annotations

import unittest
from typing import Any

import pytest

import pheon

mapping_tests = pytest.importorskip("test.mapping_tests", reason="this Python comes without its own test suite")


class MakesLiveMaps(unittest.TestCase):
    """CPython's classes build their maps through `type2test`."""

    type2test = pheon.LiveMap

    def setUp(self) -> None:
        self.addCleanup(_unlink_new, set(pheon.LiveMap.list_names()))
        super().setUp()


class LiveMapTests(MakesLiveMaps, mapping_tests.TestHashMappingProtocol):
    # Run through `test_cpython` below, with those left out that cannot be.
    __test__ = False


class UnhashedTests(MakesLiveMaps, mapping_tests.TestMappingProtocol):
    __test__ = False


def _unlink_new(before: set[str]) -> None:
    for name in set(pheon.LiveMap.list_names()) - before:
        if name.startswith("unnamed-"):
            pheon.LiveMap.unlink_by_name(name, ignore_missing=True)


# What no bytes can hold, and the error that says so.
IMPOSSIBLE = {
    "test_getitem": ("objects of a local class are keys", "BadEq"),
    "test_pop": ("objects of a local class are keys", "BadHash"),
    "test_setdefault": ("objects of a local class are keys", "BadHash"),
    "test_eq": ("objects of a local class are keys", "BadCmp"),
    "test_repr": ("a map contains itself", "LiveMap"),
    "test_repr_deep": ("maps contain maps, a thousand deep", "LiveMap"),
}
NAMES = sorted(unittest.defaultTestLoader.getTestCaseNames(LiveMapTests))


def run(case: unittest.TestCase) -> list[str]:
    result = unittest.TestResult()
    case.run(result)
    assert result.testsRun == 1
    assert not result.skipped
    return [trace for _, trace in result.errors + result.failures]


def test_the_base_class_has_the_tests_that_matter() -> None:
    assert {"test_read", "test_write", "test_update", "test_popitem", "test_copy", "test_fromkeys"} <= set(NAMES)
    assert set(IMPOSSIBLE) <= set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in IMPOSSIBLE])
def test_cpython(name: str) -> None:
    problems = run(LiveMapTests(name))
    assert not problems, problems[0]


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_is_left_out_fails_because_it_cannot_be_stored(name: str) -> None:
    problems = run(LiveMapTests(name))
    assert len(problems) == 1
    assert "SchemaError" in problems[0]
    assert IMPOSSIBLE[name][1] in problems[0].splitlines()[-1]


@pytest.mark.parametrize("name", ["test_getitem", "test_pop", "test_setdefault"])
def test_their_parts_that_can_be_stored_pass(name: str) -> None:
    problems = run(UnhashedTests(name))
    assert not problems, problems[0]


def test_the_rest_of_the_tests_left_out() -> None:
    def made(entries: dict[Any, Any]) -> pheon.LiveMap:
        return pheon.LiveMap(entries, auto_unlink=True)

    assert made({}) == made({})
    assert made({1: 2}) == made({1: 2})
    assert made({1: 2}) != made({1: 3})
    assert repr(made({})) == "{}"
    assert repr(made({1: 2})) == "{1: 2}"
