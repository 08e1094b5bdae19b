"""What a polars predicate says about the key columns.

A node of an expression is recognised by building the expression that we think it is from the node's own inputs
(`Expr.meta.pop`) and asking polars whether the two are equal (`Expr.meta.eq`): nothing depends on the form in which
a version of polars prints or serialises expressions. Whatever is not recognised says nothing.

polars' optimizer has brought both sides of a comparison to one type before a source sees them, so the type of a
literal is compared, never converted; a cast of the column is looked through only where it is exact.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import polars as pl
from polars.exceptions import PolarsError

from pheon._adapters.polars_keys import EVERYTHING, NOTHING, KeyDomain, KeySet, after_prefix

# Keys that rows must have, one set a key column; a column that is not named may have any. A row that the predicate
# keeps lies in one of the boxes.
Box: TypeAlias = dict[str, KeySet]

# Boxes of one predicate; more say nothing.
BOXES_MAX = 64
# Nodes of a predicate that are looked at; the rest says nothing.
NODES_MAX = 1024

# Integers up to here are exact as 64-bit floats.
_EXACT_FLOAT_MAX = 2**53
_INT64_MAX = 2**63 - 1
_DAY_MS = 86_400_000

_Builder: TypeAlias = Callable[[pl.Expr, pl.Expr], pl.Expr]


def _and(a: pl.Expr, b: pl.Expr) -> pl.Expr:
    return a & b


def _or(a: pl.Expr, b: pl.Expr) -> pl.Expr:
    return a | b


_COMPARISONS: tuple[tuple[str, _Builder], ...] = (
    ("==", lambda a, b: a == b),
    ("<", lambda a, b: a < b),
    ("<=", lambda a, b: a <= b),
    (">", lambda a, b: a > b),
    (">=", lambda a, b: a >= b),
    ("==", lambda a, b: a.eq_missing(b)),
)
_INTEGERS = (
    *(pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(), pl.Int128()),
    *(pl.UInt8(), pl.UInt16(), pl.UInt32(), pl.UInt64()),
)
_MIRRORED = {"==": "==", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_CLOSED = {"both": (">=", "<="), "left": (">=", "<"), "right": (">", "<="), "none": (">", "<")}


class UnknownError(Exception):
    """A part of a predicate says nothing about the keys, as far as we can tell."""


def boxes_of(predicate: pl.Expr, domains: Mapping[str, KeyDomain]) -> list[Box]:
    """Boxes that hold every row for which `predicate` is true, and maybe others; ``[{}]``: all rows."""
    if not domains:
        return [{}]
    try:
        with warnings.catch_warnings():
            # Expressions are rebuilt to compare them, never run: what polars says of them does not matter.
            warnings.simplefilter("ignore")
            return _Reader(domains).boxes(predicate)
    except (UnknownError, PolarsError, RecursionError):
        return [{}]


@dataclass(frozen=True, slots=True)
class _Operand:
    """A key column, as it is or by a cast that keeps values and order."""

    name: str
    domain: KeyDomain
    # The type that the column is compared in, and how many of its units one of the column's are.
    dtype: pl.DataType
    units: int = 1

    def keys(self, operator: str, value: Any) -> KeySet:
        """The keys for which ``key operator value`` may hold; `value` in the units of the cast."""
        if self.units == 1:
            return _compared(self.domain, operator, value)
        # Keys whose cast overflows compare as whatever they become: they are read in any case.
        last = _INT64_MAX // self.units
        return _compared(self.domain, operator, Fraction(value, self.units)).union(
            KeySet.of([(None, -last), (last + 1, None)])
        )


class _Reader:
    def __init__(self, domains: Mapping[str, KeyDomain]) -> None:
        self._domains = domains
        self._nodes_left = NODES_MAX

    def boxes(self, node: pl.Expr) -> list[Box]:
        """Boxes of one node; everything if it is not understood."""
        self._nodes_left -= 1
        if self._nodes_left < 0:
            return [{}]
        try:
            return self._understood(node)
        except (UnknownError, TypeError, ValueError, OverflowError, PolarsError):
            return [{}]

    def _understood(self, node: pl.Expr) -> list[Box]:
        inputs = node.meta.pop()
        match len(inputs):
            case 0:
                return self._leaf(node)
            case 1:
                return self._unary(node, inputs[0])
            case 2:
                return self._binary(node, inputs[1], inputs[0])
            case 3:
                return self._ternary(node, inputs)
            case _:
                raise UnknownError

    def _leaf(self, node: pl.Expr) -> list[Box]:
        if node.meta.is_literal():
            value = _literal(node)
            # False and null keep no row.
            return [{}] if value.len() != 1 or value.item() not in (False, None) else []
        return self._flag(node, 1)

    def _flag(self, node: pl.Expr, value: int) -> list[Box]:
        """A boolean key column, itself the predicate."""
        operand = self._operand(node)
        if not isinstance(operand.domain.dtype, pl.Boolean):
            raise UnknownError
        return [{operand.name: operand.keys("==", value)}]

    def _unary(self, node: pl.Expr, inner: pl.Expr) -> list[Box]:
        if node.meta.eq(inner.not_()):
            return self._flag(inner, 0)
        if node.meta.eq(inner.is_null()):
            # A key is never null.
            return [{self._operand(inner).name: NOTHING}]
        raise UnknownError

    def _binary(self, node: pl.Expr, left: pl.Expr, right: pl.Expr) -> list[Box]:
        for join, combine in ((_and, _both), (_or, _either)):
            if node.meta.eq(join(left, right)):
                return combine([self.boxes(operand) for operand in self._chain(join, left, right)])
        for operator, build in _COMPARISONS:
            if node.meta.eq(build(left, right)):
                return self._comparison(operator, left, right)
        if node.meta.eq(left.is_in(right)) or node.meta.eq(left.is_in(right, nulls_equal=True)):
            return self._membership(left, right)
        if node.meta.eq(left.str.starts_with(right)) or node.meta.eq(left.bin.starts_with(right)):
            operand = self._operand(left)
            (prefix,) = self._values(operand, right)
            return [{operand.name: KeySet.of([(prefix, after_prefix(prefix))])}]
        raise UnknownError

    def _chain(self, join: _Builder, left: pl.Expr, right: pl.Expr) -> list[pl.Expr]:
        """The operands of a chain of one operator: chains grow to the left, further than recursion goes."""
        operands = [right]
        while self._nodes_left > 0:
            inputs = left.meta.pop()
            if len(inputs) != 2 or not left.meta.eq(join(inputs[1], inputs[0])):
                break
            self._nodes_left -= 1
            operands.append(inputs[0])
            left = inputs[1]
        return [left, *reversed(operands)]

    def _ternary(self, node: pl.Expr, inputs: list[pl.Expr]) -> list[Box]:
        if node.meta.eq(pl.when(inputs[0]).then(inputs[2]).otherwise(inputs[1])):
            condition, then, otherwise = inputs[0], inputs[2], inputs[1]
            return _either([_both([self.boxes(condition), self.boxes(then)]), self.boxes(otherwise)])
        column, low, high = inputs[2], inputs[1], inputs[0]
        for closed, (from_operator, to_operator) in _CLOSED.items():
            if node.meta.eq(column.is_between(low, high, closed)):  # pyright: ignore[reportArgumentType]
                return _both(
                    [self._or_unknown(from_operator, column, low), self._or_unknown(to_operator, column, high)]
                )
        raise UnknownError

    def _or_unknown(self, operator: str, left: pl.Expr, right: pl.Expr) -> list[Box]:
        try:
            return self._comparison(operator, left, right)
        except UnknownError:
            return [{}]

    def _comparison(self, operator: str, left: pl.Expr, right: pl.Expr) -> list[Box]:
        if left.meta.is_literal(allow_aliasing=True):
            left, right, operator = right, left, _MIRRORED[operator]
        operand = self._operand(left)
        values = self._values(operand, right)
        # A comparison with null is null.
        return [{operand.name: operand.keys(operator, values[0])}] if values else []

    def _membership(self, left: pl.Expr, right: pl.Expr) -> list[Box]:
        operand = self._operand(left)
        values = self._values(operand, right, many=True)
        points = [i for v in values for i in operand.keys("==", v).intervals]
        return [{operand.name: KeySet.of(points)}] if points else []

    def _operand(self, node: pl.Expr) -> _Operand:
        """A key column, maybe under a cast that changes no value and no order."""
        inputs = node.meta.pop()
        if not inputs:
            if not node.meta.is_column():
                raise UnknownError
            name = node.meta.output_name()
            domain = self._domains.get(name)
            if domain is None:
                raise UnknownError
            return _Operand(name, domain, domain.dtype)
        if len(inputs) != 1:
            raise UnknownError
        column = self._operand(inputs[0])
        if column.dtype != column.domain.dtype:
            raise UnknownError
        for dtype, units in _exact_casts(column.dtype):
            if any(
                node.meta.eq(inputs[0].cast(dtype, strict=strict, wrap_numerical=wrap))
                for strict, wrap in ((True, False), (False, False), (False, True))
            ):
                return _Operand(column.name, column.domain, dtype, units)
        raise UnknownError

    def _values(self, operand: _Operand, node: pl.Expr, *, many: bool = False) -> list[Any]:
        """What a literal says in the column's ordinals. Nulls are left out.

        Raises:
            UnknownError: it is no literal, or not of the type that the column is compared in.
        """
        if not node.meta.is_literal(allow_aliasing=True):
            raise UnknownError
        values = _literal(node)
        if many and isinstance(values.dtype, pl.List):
            values = values.explode()
        elif not many and values.len() != 1:
            raise UnknownError
        if values.dtype == pl.Null:
            return []
        target, domain = operand.dtype, operand.domain
        if isinstance(target, pl.Decimal):
            return _decimals(values, target)
        if target.is_integer() and values.dtype.is_integer():
            return _integers(values, exact=values.dtype == target)
        if values.dtype != target:
            raise UnknownError
        if target == domain.dtype:
            return domain.ordinals(values)
        return _integers(values.to_physical(), exact=not isinstance(target, pl.Float64))


def _literal(node: pl.Expr) -> pl.Series:
    return pl.select(node).to_series()


def _exact_casts(dtype: pl.DataType) -> list[tuple[pl.DataType, int]]:
    """Types to which every value goes over without loss, with the units that one becomes; `_Operand` minds overflow
    and `_integers` the limits of floats.
    """
    if isinstance(dtype, pl.Date):
        return [(pl.Datetime("ms"), _DAY_MS), (pl.Datetime("us"), _DAY_MS * 1000), (pl.Datetime("ns"), _DAY_MS * 10**6)]
    if not dtype.is_integer():
        return []
    low, high = _limits(dtype)
    wider: list[tuple[pl.DataType, int]] = [(pl.Float64(), 1)]
    for other in _INTEGERS:
        least, most = _limits(other)
        if other != dtype and least <= low and high <= most:
            wider.append((other, 1))
    return wider


def _limits(dtype: pl.DataType) -> tuple[int, int]:
    bits = int(str(dtype).removeprefix("UInt").removeprefix("Int"))
    return (0, 2**bits - 1) if dtype.is_unsigned_integer() else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _integers(values: pl.Series, *, exact: bool) -> list[Any]:
    """Numbers to compare integers with; if polars may do that as floats, only those that floats tell apart."""
    found = values.drop_nulls().to_list()
    if not exact and not all(abs(v) < _EXACT_FLOAT_MAX for v in found):
        # Several integers are one float here. Also not for NaN, which is not less than anything.
        raise UnknownError
    return found


def _decimals(values: pl.Series, target: pl.Decimal) -> list[Any]:
    """Unscaled decimals; only those that the column could hold, as polars may round others."""
    if not isinstance(values.dtype, pl.Decimal):
        raise UnknownError
    excess = values.dtype.scale - target.scale
    found: list[Any] = []
    for unscaled in values.drop_nulls().to_physical().to_list():
        if excess > 0 and unscaled % 10**excess:
            raise UnknownError
        found.append(unscaled // 10**excess if excess > 0 else unscaled * 10**-excess)
    return found


def _compared(domain: KeyDomain, operator: str, value: Any) -> KeySet:
    """The keys for which ``key operator value`` holds. Only keys that are counted have values between them."""
    if isinstance(value, (float, Fraction)):
        below, above = math.floor(value), math.ceil(value)
    else:
        below = above = value
    match operator:
        case "==":
            return KeySet.of([(above, domain.after(below))])
        case "<":
            return KeySet.of([(None, above)])
        case "<=":
            return KeySet.of([(None, domain.after(below))])
        case ">":
            return KeySet.of([(domain.after(below), None)])
        case _:
            return KeySet.of([(above, None)])


def _both(operands: list[list[Box]]) -> list[Box]:
    """The intersection, or a wider set if that takes too many boxes."""
    found: list[Box] = [{}]
    # Those with few boxes first: they keep the product small.
    for boxes in sorted(operands, key=len):
        if len(found) * len(boxes) > BOXES_MAX:
            continue
        found = [box for a in found for b in boxes if (box := _common(a, b)) is not None]
    return found


def _common(a: Box, b: Box) -> Box | None:
    box = dict(a)
    for name, keys in b.items():
        box[name] = box[name].intersect(keys) if name in box else keys
    return box if all(keys.intervals for keys in box.values()) else None


def _either(operands: list[list[Box]]) -> list[Box]:
    """The union. Boxes that speak of the same single column become one."""
    single: dict[str, list[Any]] = {}
    others: list[Box] = []
    for box in (box for boxes in operands for box in boxes):
        if not box:
            return [{}]
        if len(box) == 1:
            ((name, keys),) = box.items()
            single.setdefault(name, []).extend(keys.intervals)
        else:
            others.append(box)
    found = [{name: keys} for name, intervals in single.items() if (keys := KeySet.of(intervals)).intervals] + others
    if len(found) > BOXES_MAX or any(keys == EVERYTHING for box in found for keys in box.values() if len(box) == 1):
        return [{}]
    return found
