"""The typed tree of a rule and its scalar evaluation, value by value. Knows no SQL text, no file and no array.

Every value is a float64; a text is the code of its place in a vocabulary; NaN is the one and only NULL. Truth is
three-valued as in SQL: True, False or None (unknown). Division by zero and a result beyond float64 are NULL. Nodes are
frozen and hashable, so that identical sub-expressions of all rules are one node (`circuit`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

CHANNEL = "channel"
"""Pseudo column: the code of the request's channel in `Catalogue.channels`."""
KNOWN = "known"
"""Pseudo column: 1 where the feature store has any fact of the customer, else 0."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A finite number, or the code of a text."""

    value: float


@dataclass(frozen=True, slots=True)
class Column:
    """The value of a matrix column, a context field or a pseudo column."""

    name: str


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`left operator right`; operator is + - * or /."""

    operator: str
    left: Number
    right: Number


@dataclass(frozen=True, slots=True)
class Coalesce:
    """The first operand that is not NULL."""

    operands: tuple[Number, ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """TRUE or FALSE."""

    value: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left operator right`; operator is = != < <= > or >=. NULL if a side is."""

    operator: str
    left: Number
    right: Number


@dataclass(frozen=True, slots=True)
class In:
    """Whether the operand equals one of the values; NULL if it is NULL."""

    operand: Number
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class IsNull:
    """Whether the operand is NULL; never NULL itself."""

    operand: Number


@dataclass(frozen=True, slots=True)
class Not:
    """NOT operand."""

    operand: Expression


@dataclass(frozen=True, slots=True)
class All:
    """Operands joined by AND."""

    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Operands joined by OR."""

    operands: tuple[Expression, ...]


Number: TypeAlias = Constant | Column | Arithmetic | Coalesce
Expression: TypeAlias = Truth | Comparison | In | IsNull | Not | All | AnyOf

Values: TypeAlias = Mapping[str, float]
NumberClosure: TypeAlias = Callable[[Values], float]
TruthClosure: TypeAlias = Callable[[Values], bool | None]

COMPARATORS: Mapping[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def children(node: Number | Expression) -> tuple[Number | Expression, ...]:
    """Return the operands of a node, in order."""
    match node:
        case Arithmetic(_, left, right) | Comparison(_, left, right):
            return (left, right)
        case Coalesce(operands):
            return operands
        case All(operands) | AnyOf(operands):
            return operands
        case In(operand, _) | IsNull(operand):
            return (operand,)
        case Not(operand):
            return (operand,)
    return ()


def columns_read(node: Number | Expression) -> tuple[str, ...]:
    """Return the names of the columns that a tree reads, each once, in order of appearance."""
    return tuple(dict.fromkeys(_names(node)))


def _names(node: Number | Expression) -> Iterator[str]:
    if isinstance(node, Column):
        yield node.name
    for child in children(node):
        yield from _names(child)


def renamed(node: Expression, names: Mapping[str, str]) -> Expression:
    """Return the tree with columns renamed; names that are not given stay."""
    match node:
        case Truth():
            return node
        case Comparison(sign, left, right):
            return Comparison(sign, _renamed(left, names), _renamed(right, names))
        case In(operand, values):
            return In(_renamed(operand, names), values)
        case IsNull(operand):
            return IsNull(_renamed(operand, names))
        case Not(negated):
            return Not(renamed(negated, names))
        case All(operands):
            return All(tuple(renamed(o, names) for o in operands))
        case AnyOf(operands):
            return AnyOf(tuple(renamed(o, names) for o in operands))


def _renamed(node: Number, names: Mapping[str, str]) -> Number:
    match node:
        case Constant():
            return node
        case Column(name):
            return Column(names.get(name, name))
        case Arithmetic(sign, left, right):
            return Arithmetic(sign, _renamed(left, names), _renamed(right, names))
        case Coalesce(operands):
            return Coalesce(tuple(_renamed(o, names) for o in operands))


def closure(node: Expression) -> TruthClosure:
    """Compile a rule to a function of one customer's values: the reference that the circuit is held against.

    Args:
        node: The rule's tree.

    Returns:
        A function from column name -> value (NaN where NULL) to True, False or None.
    """
    match node:
        case Truth(value):
            return lambda _: value
        case Comparison(sign, left, right):
            return _comparison(COMPARATORS[sign], number_closure(left), number_closure(right))
        case In(operand, members):
            return _membership(number_closure(operand), frozenset(members))
        case IsNull(operand):
            value_of = number_closure(operand)
            return lambda values: math.isnan(value_of(values))
        case Not(negated):
            return _negation(closure(negated))
        case All(operands):
            return _junction(tuple(closure(o) for o in operands), decisive=False)
        case AnyOf(operands):
            return _junction(tuple(closure(o) for o in operands), decisive=True)


def _comparison(compare: Callable[[float, float], bool], left: NumberClosure, right: NumberClosure) -> TruthClosure:
    def evaluate(values: Values) -> bool | None:
        a, b = left(values), right(values)
        return None if math.isnan(a) or math.isnan(b) else compare(a, b)

    return evaluate


def _membership(value_of: NumberClosure, members: frozenset[float]) -> TruthClosure:
    def evaluate(values: Values) -> bool | None:
        value = value_of(values)
        return None if math.isnan(value) else value in members

    return evaluate


def _negation(operand: TruthClosure) -> TruthClosure:
    def evaluate(values: Values) -> bool | None:
        truth = operand(values)
        return None if truth is None else not truth

    return evaluate


def _junction(operands: tuple[TruthClosure, ...], *, decisive: bool) -> TruthClosure:
    """AND (one FALSE decides) or OR (one TRUE decides); else unknown if any operand is."""

    def evaluate(values: Values) -> bool | None:
        result: bool | None = not decisive
        for operand in operands:
            truth = operand(values)
            if truth is decisive:
                return decisive
            if truth is None:
                result = None
        return result

    return evaluate


def number_closure(node: Number) -> NumberClosure:
    """Compile a number to a function of one customer's values; NaN where NULL."""
    match node:
        case Constant(value):
            return lambda _: value
        case Column(name):
            return lambda values: values[name]
        case Arithmetic(sign, left, right):
            return _arithmetic(sign, number_closure(left), number_closure(right))
        case Coalesce(operands):
            return _first_known(tuple(number_closure(o) for o in operands))


def _first_known(operands: tuple[NumberClosure, ...]) -> NumberClosure:
    def evaluate(values: Values) -> float:
        return next((value for operand in operands if not math.isnan(value := operand(values))), math.nan)

    return evaluate


def _arithmetic(sign: str, left: NumberClosure, right: NumberClosure) -> NumberClosure:
    compute = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}[sign]

    def evaluate(values: Values) -> float:
        a, b = left(values), right(values)
        if sign == "/" and b == 0:
            return math.nan
        result: float = compute(a, b)
        return result if math.isfinite(result) else math.nan

    return evaluate
