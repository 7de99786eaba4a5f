"""The rows of values that a circuit computes before it compares: plain columns, constants, calls, each distinct once.

Load-time work. A CASE needs the truth of its conditions, which needs other rows: so rows lie in *layers*. A layer first
computes its rows, then the literals of those conditions that read them; a layer further on reads these as rows of 1
and 0. Most catalogues have one layer. Knows the trees, not how or for whom they are evaluated.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from service.decision.expression import Call, Case, Column, Constant, Expression, Lookup, Number, children
from service.decision.literals import Literals

DIFFERENCE, CHOICE, LOOKUP = "difference", "choice", "lookup"


@dataclass(frozen=True, slots=True)
class Step:
    """How one row is computed.

    Attributes:
        function: A name of `functions.FUNCTIONS`, or one of DIFFERENCE, CHOICE and LOOKUP.
        inputs: Rows; of a choice: condition, value, condition, value, ..., otherwise.
        values: Of a lookup.
    """

    row: int
    function: str
    inputs: tuple[int, ...]
    values: tuple[float, ...] = ()


class Layer:
    """Rows computed together, and the conditions that can be told from them.

    Attributes:
        conditions: (literal, the row that holds 1 where it is true, else 0).
    """

    def __init__(self, rows: Rows) -> None:
        self.steps: list[Step] = []
        self.literals = Literals(rows)
        self.conditions: list[tuple[int, int]] = []


class Rows:
    """Collects rows.

    Args:
        as_of_index: Name of a matrix column -> its row in the as-of matrix.
        extras: Names of context fields and pseudo columns; all of them get a row.
        names: The columns that are read.
    """

    def __init__(self, as_of_index: Mapping[str, int], extras: Sequence[str], names: Sequence[str]) -> None:
        plain = [name for name in names if name not in extras]
        self.as_of_rows = [as_of_index[name] for name in plain]
        self._rows: dict[Hashable, int] = {Column(name): row for row, name in enumerate((*plain, *extras))}
        self.n_plain = len(self._rows)
        self._layer_of = [0] * self.n_plain
        self.constants: list[tuple[int, float]] = []
        self.layers = [Layer(self)]

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return len(self._layer_of)

    def value(self, node: Number) -> int:
        """Return the row that holds a number.

        Raises:
            KeyError: A column is read that was not named.
        """
        if node in self._rows:
            return self._rows[node]
        match node:
            case Constant(value):
                row = self._new_row(node, 0)
                self.constants.append((row, value))
                return row
            case Call(function, operands):
                return self._computed(node, function, [self.value(operand) for operand in operands])
            case Lookup(operand, values):
                return self._computed(node, LOOKUP, [self.value(operand)], values)
            case Case(branches, otherwise):
                inputs = [row for condition, value in branches for row in (self._truth(condition), self.value(value))]
                return self._computed(node, CHOICE, [*inputs, self.value(otherwise)])
            case Column(name):
                raise KeyError(f"column {name!r} is not laid out")

    def difference(self, left: Number, right: Number) -> int:
        """Return the row of `left - right`; IEEE subtraction is 0 only for equal numbers, so its sign compares them."""
        key = (DIFFERENCE, left, right)
        if key in self._rows:
            return self._rows[key]
        return self._computed(key, DIFFERENCE, [self.value(left), self.value(right)])

    def _truth(self, condition: Expression) -> int:
        """Return the row that holds 1 where a condition is TRUE, else 0."""
        key = ("truth", condition)
        if key in self._rows:
            return self._rows[key]
        layer = self._reach(condition)
        literal = self.layers[layer].literals.literal(condition, truth=True)
        row = self._new_row(key, layer + 1)
        self.layers[layer].conditions.append((literal, row))
        return row

    def _reach(self, condition: Expression) -> int:
        """Return the layer in which all that a condition reads is there."""
        return max((self._reach_of(child) for child in children(condition)), default=0)

    def _reach_of(self, node: Number | Expression) -> int:
        return self._layer_of[self.value(node)] if isinstance(node, Number) else self._reach(node)

    def _computed(self, key: Hashable, function: str, inputs: Sequence[int], values: tuple[float, ...] = ()) -> int:
        layer = max(self._layer_of[row] for row in inputs)
        row = self._new_row(key, layer)
        self.layers[layer].steps.append(Step(row, function, tuple(inputs), values))
        return row

    def _new_row(self, key: Hashable, layer: int) -> int:
        while len(self.layers) <= layer:
            self.layers.append(Layer(self))
        row = self._rows[key] = self.n_rows
        self._layer_of.append(layer)
        return row
