"""The typed tree of a rule. Knows no SQL text, no file and no array.

Every value is a float64; a text is the code of its place in a vocabulary; NaN is the one and only NULL. Truth is
three-valued as in SQL: True, False or None (unknown). Division by zero and a result beyond float64 are NULL. Nodes are
frozen and hashable, so that identical sub-expressions of all rules are one node (`circuit`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias, TypeVar

CHANNEL = "channel"
"""Pseudo column: the code of the request's channel in `Catalogue.channels`."""
KNOWN = "known"
"""Pseudo column: 1 where the feature store has any fact of the customer, else 0."""
PERSONA = "persona"
"""Pseudo column: the code of the first persona of the catalogue that the customer fits; NULL where none does."""
MOMENT_PARTS = ("hour", "day", "month", "year", "dayofweek", "isodow")
"""Functions of `decision_time`, as DuckDB has them: dayofweek is 0 on Sunday, isodow 7."""


def part_column(part: str) -> str:
    """Return the pseudo column of a part of the decision time, local to the catalogue's zone."""
    return f"{part}(decision_time)"


def age_column(view: str) -> str:
    """Return the pseudo column of a view's age: days since it was written, NULL where it never was."""
    return f"age_days({view})"


@dataclass(frozen=True, slots=True)
class Constant:
    """A finite number, the code of a text, or NaN for NULL."""

    value: float


@dataclass(frozen=True, slots=True)
class Column:
    """The value of a matrix column, a context field or a pseudo column."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function of numbers, one of `functions.FUNCTIONS`: + - * / %, abs, floor, round, least, coalesce, nullif."""

    function: str
    operands: tuple[Number, ...]


@dataclass(frozen=True, slots=True)
class Lookup:
    """The value that stands at the operand's code; NULL if it is NULL. Functions of texts become this at load."""

    operand: Number
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """The value of the first branch whose condition is TRUE, else `otherwise`."""

    branches: tuple[tuple[Expression, Number], ...]
    otherwise: Number


@dataclass(frozen=True, slots=True)
class Truth:
    """TRUE, FALSE or, for None, unknown."""

    value: bool | None


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
class Is:
    """Whether the operand is just this truth; never NULL itself."""

    operand: Expression
    value: bool


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


Number: TypeAlias = Constant | Column | Call | Lookup | Case
Expression: TypeAlias = Truth | Comparison | In | IsNull | Is | Not | All | AnyOf
Node = TypeVar("Node", bound=Number | Expression)
NULL = Constant(math.nan)
"""The one and only, so that it equals itself."""


def children(node: Number | Expression) -> tuple[Number | Expression, ...]:
    """Return the operands of a node, in order."""
    match node:
        case Comparison(_, left, right):
            return (left, right)
        case Call(_, numbers):
            return numbers
        case All(operands) | AnyOf(operands):
            return operands
        case Case(branches, otherwise):
            return (*(part for branch in branches for part in branch), otherwise)
        case In(number, _) | IsNull(number) | Lookup(number, _):
            return (number,)
        case Not(operand) | Is(operand, _):
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


def renamed(node: Node, names: Mapping[str, str]) -> Node:
    """Return the tree with columns renamed; names that are not given stay."""
    if isinstance(node, Column):
        return replace(node, name=names.get(node.name, node.name))
    return replace(node, **{part.name: _renamed(getattr(node, part.name), names) for part in fields(node)})


def _renamed(part: Any, names: Mapping[str, str]) -> Any:
    if isinstance(part, tuple):
        return tuple(_renamed(inner, names) for inner in part)
    return renamed(part, names) if isinstance(part, Number | Expression) else part
