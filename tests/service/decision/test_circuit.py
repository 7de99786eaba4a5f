"""Circuit, closure and DuckDB give one answer to one rule: fuzzed rules over fuzzed rows with holes."""

from __future__ import annotations

import random

import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray

from service.catalogue.rules import parse_rule
from service.decision.circuit import Circuit
from service.decision.closure import closure
from service.decision.expression import CHANNEL, KNOWN, Expression, columns_read, renamed

NUMBERS = ("n0", "n1", "n2", "n3")
TEXTS = {"t0": ("red", "green", "blue"), "t1": ("1 Adult Kids", "a'b", "NULL", "x y")}
SYMBOLS = {**dict.fromkeys(NUMBERS, ()), **TEXTS, "ctx": (), CHANNEL: ("app", "email"), KNOWN: ()}
AS_OF = (*NUMBERS, *TEXTS)
EXTRAS = (CHANNEL, KNOWN, "ctx")
POOL = (-2.5, -1.0, -0.1, 0.0, 0.1, 0.2, 0.30000000000000004, 1.0, 2.0, 3.0, 1e9, np.nan, np.nan)


class Fuzz:
    """Writes random rules of the allowed SQL."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def rules(self, n: int) -> list[str]:
        """Write n rules; those over the limit of nodes are not for here."""
        drawn = [self.rule() for _ in range(2 * n)]
        return [text for text in drawn if len(text) < 400][:n]

    def rule(self, depth: int = 3) -> str:
        """Write a rule of nested AND, OR and NOT."""
        pick = self.random.random()
        if depth == 0 or pick < 0.25:
            return self.atom(depth)
        if pick < 0.45:
            return f"NOT ({self.rule(depth - 1)})"
        sign = self.random.choice([" AND ", " OR "])
        return "(" + sign.join(self.rule(depth - 1) for _ in range(self.random.randint(2, 3))) + ")"

    def atom(self, depth: int) -> str:
        """Write one predicate."""
        kinds = (self.comparison, self.between, self.membership, self.text, self.null, self.constant)
        weights = (6, 2, 2, 3, 2, 1)
        return self.random.choices(kinds, weights)[0](depth)

    def comparison(self, depth: int) -> str:
        """Write a comparison of two numbers."""
        sign = self.random.choice(["=", "<>", "!=", "<", "<=", ">", ">="])
        return f"{self.number(2)} {sign} {self.number(2)}"

    def between(self, depth: int) -> str:
        """Write a BETWEEN."""
        negated = self.random.choice(["", "NOT "])
        return f"{self.number(1)} {negated}BETWEEN {self.number(0)} AND {self.number(0)}"

    def membership(self, depth: int) -> str:
        """Write an IN over numbers."""
        values = ", ".join(self.literal() for _ in range(self.random.randint(1, 3)))
        return f"{self.number(1)} {self.random.choice(['', 'NOT '])}IN ({values})"

    def text(self, depth: int) -> str:
        """Write a predicate on a text."""
        name = self.random.choice([*TEXTS, CHANNEL])
        quoted = [value.replace("'", "''") for value in SYMBOLS[name]]
        column = name if self.random.random() < 0.8 else f"COALESCE({name}, '{self.random.choice(quoted)}')"
        if self.random.random() < 0.5:
            return f"{column} {self.random.choice(['=', '<>'])} '{self.random.choice(quoted)}'"
        values = ", ".join(f"'{v}'" for v in self.random.sample(quoted, self.random.randint(1, len(quoted))))
        return f"{column} {self.random.choice(['', 'NOT '])}IN ({values})"

    def null(self, depth: int) -> str:
        """Write IS [NOT] NULL."""
        operand = self.random.choice([self.number(1), self.random.choice(list(TEXTS))])
        return f"{operand} IS {self.random.choice(['', 'NOT '])}NULL"

    def constant(self, depth: int) -> str:
        """Write TRUE, FALSE or known."""
        return self.random.choice(["TRUE", "FALSE", KNOWN, f"NOT {KNOWN}"])

    def literal(self) -> str:
        """Write a number."""
        value = self.random.choice([p for p in POOL if not np.isnan(p)])
        # An exponent makes the literal a DOUBLE in DuckDB too: there 0.1 alone is a DECIMAL.
        return f"{value!r}e0" if "e" not in repr(value) else repr(value)

    def number(self, depth: int) -> str:
        """Write a number, column or arithmetic."""
        pick = self.random.random()
        if depth == 0 or pick < 0.45:
            return self.random.choice([*NUMBERS, "ctx"])
        if pick < 0.6:
            return self.literal()
        if pick < 0.7:
            return f"COALESCE({self.number(depth - 1)}, {self.number(depth - 1)})"
        if pick < 0.75:
            return f"-({self.number(depth - 1)})"
        return f"({self.number(depth - 1)} {self.random.choice(list('+-*/'))} {self.number(depth - 1)})"


def rows(n: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Make (n_columns + 1, n) columns and (n_extras, n) extras."""
    rng = np.random.default_rng(seed)
    as_of = np.full((len(AS_OF) + 1, n), np.nan)
    as_of[: len(NUMBERS)] = rng.choice(np.array(POOL), (len(NUMBERS), n))
    for i, vocabulary in enumerate(TEXTS.values()):
        as_of[len(NUMBERS) + i] = rng.choice(np.array([*range(len(vocabulary)), np.nan]), n)
    extras = np.stack([rng.integers(0, 2, n), rng.integers(0, 2, n), rng.choice(np.array(POOL), n)]).astype(float)
    return as_of, extras


def circuit_of(trees: list[Expression]) -> Circuit:
    names = tuple(dict.fromkeys(name for tree in trees for name in columns_read(tree)))
    return Circuit(trees, names, {name: i for i, name in enumerate(AS_OF)}, EXTRAS)


def oracle(texts: list[str], as_of: NDArray[np.float64], extras: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Evaluate the rules' texts in DuckDB."""
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET error_on_division_by_zero=false; SET ieee_floating_point_ops=false")
    kinds = [f"{n} {'VARCHAR' if SYMBOLS[n] else 'BOOLEAN' if n == KNOWN else 'DOUBLE'}" for n in (*AS_OF, *EXTRAS)]
    connection.execute(f"CREATE TABLE t (i INTEGER, {', '.join(kinds)})")
    values = np.vstack([as_of[:-1], extras])
    for i in range(values.shape[1]):
        row = [None if np.isnan(v) else v for v in values[:, i].tolist()]
        row = [
            SYMBOLS[name][int(v)] if v is not None and SYMBOLS[name] else bool(v) if name == KNOWN else v
            for name, v in zip((*AS_OF, *EXTRAS), row, strict=True)
        ]
        connection.execute(f"INSERT INTO t VALUES ({', '.join('?' * (len(row) + 1))})", [i, *row])
    answers = []
    for start in range(0, len(texts), 50):
        wanted = ", ".join(f"(({text}) IS TRUE)" for text in texts[start : start + 50])
        answers += list(zip(*connection.execute(f"SELECT {wanted} FROM t ORDER BY i").fetchall(), strict=True))
    return np.array(answers, dtype=np.bool_)


@pytest.mark.parametrize("seed", range(4))
def test_circuit_closure_and_duckdb_agree(seed: int) -> None:
    """Circuit, closure and DuckDB agree on whether a rule is TRUE, for every fuzzed rule and row."""
    fuzz = Fuzz(seed)
    texts = fuzz.rules(150)
    trees = [parse_rule(text, SYMBOLS) for text in texts]
    as_of, extras = rows(40, seed)
    by_circuit = circuit_of(trees).evaluate(as_of, extras)
    by_closure = np.empty_like(by_circuit)
    names = (*AS_OF, "", *EXTRAS)
    stacked = np.vstack([as_of, extras])
    for i in range(as_of.shape[1]):
        values = dict(zip(names, stacked[:, i].tolist(), strict=True))
        by_closure[:, i] = [closure(tree)(values) is True for tree in trees]
    by_duckdb = oracle(texts, as_of, extras)
    assert by_duckdb.any()
    assert not by_duckdb.all()
    for other, name in ((by_closure, "closure"), (by_duckdb, "DuckDB")):
        wrong = np.argwhere(by_circuit != other)
        assert len(wrong) == 0, f"{name}: {texts[wrong[0][0]]} on {stacked[:, wrong[0][1]]}"


def test_negation_closure_agrees() -> None:
    """A closure tells unknown from FALSE: NOT rule is TRUE exactly where the rule is False, not where it is None."""
    fuzz = Fuzz(99)
    trees = [parse_rule(text, SYMBOLS) for text in fuzz.rules(100)]
    negated = [parse_rule(f"NOT ({Fuzz(99).rules(1)[0]})", SYMBOLS)]
    as_of, extras = rows(30, 5)
    by_circuit = circuit_of([*trees, *negated]).evaluate(as_of, extras)
    names = (*AS_OF, "", *EXTRAS)
    for i in range(30):
        values = dict(zip(names, np.vstack([as_of, extras])[:, i].tolist(), strict=True))
        assert by_circuit[100, i] == (closure(trees[0])(values) is False)


def test_batch_is_many_of_one() -> None:
    """Evaluating many customers gives what evaluating each alone gives."""
    trees = [parse_rule(Fuzz(3).rules(1)[0], SYMBOLS), parse_rule("n0 / n1 > n2 OR t0 = 'red'", SYMBOLS)]
    circuit = circuit_of(trees)
    as_of, extras = rows(33, 1)
    together = circuit.evaluate(as_of, extras)
    for i in range(33):
        alone = circuit.evaluate(as_of[:, i : i + 1].copy(), extras[:, i : i + 1].copy())
        assert np.array_equal(alone[:, 0], together[:, i])


def test_identical_parts_are_evaluated_once() -> None:
    """A hundred rules that share their parts need the literals of the parts once."""
    once = circuit_of([parse_rule("n0 > 1 AND t0 IN ('red', 'blue') OR n1 / n2 > 3", SYMBOLS)])
    often = circuit_of([parse_rule("n0 > 1 AND t0 IN ('red', 'blue') OR n1 / n2 > 3", SYMBOLS)] * 100)
    assert often.n_literals == once.n_literals


def test_comparison_is_exact_at_the_edge() -> None:
    """Strict and inclusive comparisons differ by exactly the constant itself, down to neighbouring floats."""
    trees = [parse_rule(f"n0 {sign} 0.3", SYMBOLS) for sign in ("<", "<=", "=", ">=", ">")]
    as_of = np.full((len(AS_OF) + 1, 3), np.nan)
    as_of[0] = [np.nextafter(0.3, 0), 0.3, np.nextafter(0.3, 1)]
    result = circuit_of(trees).evaluate(as_of, np.zeros((3, 3)))
    assert result.tolist() == [
        [True, False, False],
        [True, True, False],
        [False, True, False],
        [False, True, True],
        [False, False, True],
    ]


def test_renamed_reads_other_columns() -> None:
    """Renaming columns of a tree changes what it reads and nothing else."""
    text = "n0 > 1 AND NOT (COALESCE(n1, n0) IN (1, 2) OR n0 / n2 IS NULL OR TRUE)"
    tree = parse_rule(text, SYMBOLS)
    assert renamed(tree, {"n0": "n3"}) == parse_rule(text.replace("n0", "n3"), SYMBOLS)
    assert renamed(tree, {}) == tree
