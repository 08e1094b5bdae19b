"""Answers are compared one by one with the right ones, and their digest goes into the report."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class WrongAnswerError(Exception):
    """A peer gave a wrong value; the message names the first one."""


def digest(answers: Sequence[str | None]) -> str:
    """Covers every value, every miss and their order: the lengths (-1 for a miss), then the text."""
    state = hashlib.blake2b(digest_size=8)
    state.update(",".join("-1" if answer is None else str(len(answer)) for answer in answers).encode())
    state.update("".join(answer for answer in answers if answer is not None).encode())
    return state.hexdigest()


def check(peer: str, keys: Sequence[str], right: Sequence[str | None], found: Sequence[str | None]) -> str:
    """Raises WrongAnswerError unless all answers are right. Returns their digest."""
    if len(found) != len(right):
        raise WrongAnswerError(f"{peer}: {len(found)} answers to {len(right)} questions")
    for key, expected, answer in zip(keys, right, found, strict=True):
        if answer != expected:
            raise WrongAnswerError(f"{peer}: {key!r} gave {answer!r}, expected {expected!r}")
    return digest(found)
