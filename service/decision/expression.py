"""The typed tree of a rule. Knows no SQL text, no file and no array.

Every value is a float64; a text is the code of its place in a vocabulary; NaN is the one and only NULL. Truth is
three-valued as in SQL: True, False or None (unknown). Division by zero and a result beyond float64 are NULL. Nodes are
frozen and hashable, so that identical sub-expressions of all rules are one node (`circuit`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
