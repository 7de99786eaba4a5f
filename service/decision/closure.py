"""A rule evaluated for one customer, value by value, in three-valued logic: the reference the circuit is held against.

Reads the tree as `expression` defines it; knows no array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

from service.decision.expression import (
    All,
    AnyOf,
    Call,
    Case,
    Column,
    Comparison,
    Constant,
    Expression,
    In,
    Is,
    IsNull,
    Lookup,
    Not,
    Number,
    Truth,
)
from service.decision.functions import COMPARATORS, FUNCTIONS

Values: TypeAlias = Mapping[str, float]
NumberClosure: TypeAlias = Callable[[Values], float]
TruthClosure: TypeAlias = Callable[[Values], bool | None]


def closure(node: Expression) -> TruthClosure:
    """Compile a rule to a function of one customer's values: the reference that the circuit is held against.

    Args:
        node: The rule's tree.

    Returns:
        A function from column name -> value (NaN where NULL) to True, False or None.
    """
    match node:
        case Truth(truth):
            return lambda _: truth
        case Comparison(sign, left, right):
            return _comparison(COMPARATORS[sign], number_closure(left), number_closure(right))
        case In(number, members):
            return _membership(number_closure(number), frozenset(members))
        case IsNull(number):
            value_of = number_closure(number)
            return lambda values: math.isnan(value_of(values))
        case Is(operand, truth):
            truth_of = closure(operand)
            return lambda values: truth_of(values) is truth
        case Not(operand):
            return _negation(closure(operand))
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
        case Call(function, operands):
            call, arguments = FUNCTIONS[function].scalar, tuple(number_closure(o) for o in operands)
            return lambda values: call(*[argument(values) for argument in arguments])
        case Lookup(operand, table):
            return _lookup(number_closure(operand), table)
        case Case(branches, otherwise):
            return _case(
                tuple((closure(condition), number_closure(value)) for condition, value in branches),
                number_closure(otherwise),
            )


def _lookup(code_of: NumberClosure, table: tuple[float, ...]) -> NumberClosure:
    def evaluate(values: Values) -> float:
        code = code_of(values)
        return code if math.isnan(code) else table[int(code)]

    return evaluate


def _case(branches: tuple[tuple[TruthClosure, NumberClosure], ...], otherwise: NumberClosure) -> NumberClosure:
    def evaluate(values: Values) -> float:
        chosen = next((value for condition, value in branches if condition(values) is True), otherwise)
        return chosen(values)

    return evaluate
