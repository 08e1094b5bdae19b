"""CPython's own tests of the mapping protocol, the read-only part, run on `Map`."""

from __future__ import annotations

import shutil
import tempfile
import unittest
from collections.abc import Mapping
from typing import Any

import pytest

import pheon

mapping_tests = pytest.importorskip("test.mapping_tests", reason="this Python comes without its own test suite")


class MapReads(mapping_tests.BasicTestMappingProtocol):
    """The base class builds its mappings through `_full_mapping` and `_empty_mapping`."""

    # Run through `test_cpython` below: pytest would run the tests that write, too.
    __test__ = False
    type2test = pheon.Map

    def setUp(self) -> None:
        self.path = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.path)
        self.store = pheon.open(self.path)
        super().setUp()

    def _reference(self) -> dict[str, Any]:
        # Keys of one type, as maps have; values of several, as dicts have.
        return {"1": 2, "key1": "value1", "key2": (1, 2, 3), "key3": {"a": [None, b"x", 1.5]}}

    def _full_mapping(self, data: Mapping[str, Any]) -> pheon.Map:
        return self.store.put_map("m", data)

    def _empty_mapping(self) -> pheon.Map:
        return self.store.put_map("empty", {})


WRITES = {"test_pop", "test_popitem", "test_setdefault", "test_update", "test_write"}
READS = sorted(set(unittest.defaultTestLoader.getTestCaseNames(MapReads)) - WRITES)


def test_the_base_class_has_the_tests_that_matter() -> None:
    assert {"test_read", "test_get", "test_getitem", "test_items", "test_keys", "test_len", "test_values"} <= set(READS)


@pytest.mark.parametrize("name", READS)
def test_cpython(name: str) -> None:
    result = unittest.TestResult()
    MapReads(name).run(result)
    assert result.testsRun == 1
    assert not result.skipped
    problems = [trace for _, trace in result.errors + result.failures]
    assert not problems, problems[0]


@pytest.mark.parametrize("method", ["__setitem__", "__delitem__", "pop", "popitem", "clear", "update", "setdefault"])
def test_nothing_writes(method: str) -> None:
    assert not hasattr(pheon.Map, method)


def test_a_map_is_a_mapping_but_not_a_mutable_one() -> None:
    from collections.abc import MutableMapping

    assert issubclass(pheon.Map, Mapping)
    assert not issubclass(pheon.Map, MutableMapping)
