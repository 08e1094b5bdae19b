"""A very short soak, and one in which everything leaks that `make soak` looks for."""

import random
import re

import pytest
import soak
from killing import LONG


@pytest.mark.timeout(300, method="thread")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_nothing_is_left_over(rng: random.Random) -> None:
    assert soak.soak(60 if LONG else 2, rng.getrandbits(32)) == []


@pytest.mark.skipif(not LONG, reason="takes its time: only with PHEON_LONG=1")
@pytest.mark.timeout(300, method="thread")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_what_is_left_over_is_told(rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "SETTLE_SECONDS_MAX", 0.5)
    told = soak.soak(1, rng.getrandbits(32), ("descriptor", "mapping", "entry", "memory"))
    for what in ("reader: .* of descriptor", "reader: .* of mapping", "reader: .* MiB of memory", "of entry .*left-"):
        assert any(re.search(what, line) for line in told), (what, told)
