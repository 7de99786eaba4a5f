"""The functions of numbers that a rule may call, each twice: over arrays for the circuit, over floats for the closure.

NaN is NULL and goes through, save where SQL says otherwise (coalesce, least and greatest skip it, as DuckDB's do). What
IEEE arithmetic answers with infinity or NaN is NULL. Knows no tree.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COMPARATORS: Mapping[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Function:
    """One function of numbers.

    Attributes:
        columnar: Arrays of one shape -> array of that shape; called with NumPy's warnings off.
        scalar: Floats -> float; the reference.
    """

    columnar: Callable[..., Floats]
    scalar: Callable[..., float]


def _finite(values: Floats) -> Floats:
    values[~np.isfinite(values)] = np.nan
    return values


def _checked(compute: Callable[[float, float], float]) -> Callable[[float, float], float]:
    def evaluate(a: float, b: float) -> float:
        try:
            result = compute(a, b)
        except (ZeroDivisionError, ValueError):
            return math.nan
        return result if math.isfinite(result) else math.nan

    return evaluate


def _arithmetic(ufunc: np.ufunc, compute: Callable[[float, float], float]) -> Function:
    return Function(lambda a, b: _finite(ufunc(a, b)), _checked(compute))


def _coalesced(*operands: Floats) -> Floats:
    out: Floats = operands[-1].copy()
    for operand in reversed(operands[:-1]):
        np.copyto(out, operand, where=~np.isnan(operand))
    return out


def _rounded(values: Floats) -> Floats:
    """Half away from zero; what is cut off is exact, so a number just below a half stays below it."""
    whole = np.trunc(values)
    return np.asarray(whole + np.copysign(np.abs(values - whole) >= 0.5, values), dtype=np.float64)


def _round(value: float) -> float:
    if math.isnan(value):
        return value
    whole = float(math.trunc(value))
    return whole + math.copysign(1.0, value) if abs(value - whole) >= 0.5 else whole


def _known(compute: Callable[..., float]) -> Callable[..., float]:
    """Skip NULL; of nothing but NULL the result is NULL."""
    return lambda *operands: compute((o for o in operands if not math.isnan(o)), default=math.nan)


def _whole(compute: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: value if math.isnan(value) else float(compute(value))


FUNCTIONS: Mapping[str, Function] = {
    "+": _arithmetic(np.add, lambda a, b: a + b),
    "-": _arithmetic(np.subtract, lambda a, b: a - b),
    "*": _arithmetic(np.multiply, lambda a, b: a * b),
    "/": _arithmetic(np.divide, lambda a, b: a / b),
    "%": _arithmetic(np.fmod, math.fmod),
    "abs": Function(np.abs, abs),
    "floor": Function(np.floor, _whole(math.floor)),
    "ceil": Function(np.ceil, _whole(math.ceil)),
    "round": Function(_rounded, _round),
    "least": Function(lambda *operands: np.fmin.reduce(operands), _known(min)),
    "greatest": Function(lambda *operands: np.fmax.reduce(operands), _known(max)),
    "nullif": Function(lambda a, b: np.where(a == b, np.nan, a), lambda a, b: math.nan if a == b else a),
    "coalesce": Function(_coalesced, lambda *operands: next((o for o in operands if not math.isnan(o)), math.nan)),
}
"""By name. `%` has the sign of its left side and `round` goes half away from zero, as in DuckDB."""


def look_up(codes: Floats, values: Floats) -> Floats:
    """Return the value at each code; the last of `values` stands for NULL."""
    return np.asarray(values[np.where(np.isnan(codes), len(values) - 1, codes).astype(np.int64)], dtype=np.float64)


def choose(branches: Sequence[tuple[Floats, Floats]], otherwise: Floats) -> Floats:
    """Return the value of the first branch (condition, value) whose condition is above 0, else `otherwise`."""
    out = otherwise.copy()
    for condition, value in reversed(branches):
        np.copyto(out, value, where=condition > 0)
    return out
