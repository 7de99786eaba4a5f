"""Random rules of every kind that the rule language has, random rows with holes, and DuckDB's answer to them."""

from __future__ import annotations

import datetime as dt
import random

import duckdb
import numpy as np
from numpy.typing import NDArray

from service.decision.expression import CHANNEL, KNOWN, MOMENT_PARTS, age_column, part_column

NUMBERS = ("n0", "n1", "n2", "n3")
TEXTS = {"t0": ("red", "green", "blue"), "t1": ("1 Adult Kids", "a'b", "NULL", " x_y ", "Straße"), "t2": ("Red", "red")}
PARTS, AGES = tuple(part_column(part) for part in MOMENT_PARTS), tuple(age_column(view) for view in ("v0", "v1"))
EXTRAS = (CHANNEL, KNOWN, "ctx", *PARTS, *AGES)
SYMBOLS = {**dict.fromkeys((*NUMBERS, "ctx", *PARTS, *AGES, KNOWN), ()), **TEXTS, CHANNEL: ("app", "email")}
AS_OF = (*NUMBERS, *TEXTS)
POOL = (
    -1e308, -2.5, -1.0, -0.5, -0.1, -0.0, 0.0, 5e-324, 0.1, 0.2, 0.30000000000000004, 0.49999999999999994, 0.5, 1.0,
    1.5, 2.0, 3.0, 1e9, 1e308, np.nan, np.nan, np.nan,
)  # fmt: skip
FINITE = "FINITE("
"""Arithmetic is written in this bracket: a plain one for us, a macro for DuckDB, which else goes on with infinity."""


def plain(text: str) -> str:
    """Return a fuzzed rule as a catalogue would have it."""
    return text.replace(FINITE, "(")


class Fuzz:
    """Writes random rules of the allowed SQL."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def rules(self, n: int) -> list[str]:
        """Write n rules; those over the limits of nodes and depth are not for here."""
        drawn = [self.rule() for _ in range(2 * n)]
        return [text for text in drawn if len(text) < 400 and text.count("(") < 28][:n]

    def rule(self, depth: int = 3) -> str:
        """Write a rule of nested AND, OR, NOT and other functions of truths."""
        pick = self.random.random()
        if depth == 0 or pick < 0.3:
            return self.atom()
        inner = [self.rule(depth - 1) for _ in range(self.random.randint(2, 3))]
        if pick < 0.5:
            return f"NOT ({inner[0]})"
        if pick < 0.6:
            wanted = self.random.choice(["NULL", "TRUE", "FALSE"])
            return f"({inner[0]}) IS {self.random.choice(['', 'NOT '])}{wanted}"
        if pick < 0.66:
            return f"CASE WHEN {inner[0]} THEN {inner[1]} {self.random.choice(['', f'ELSE {inner[-1]} '])}END"
        if pick < 0.7:
            return f"COALESCE({', '.join(inner)})"
        return "(" + self.random.choice([" AND ", " OR "]).join(inner) + ")"

    def atom(self) -> str:
        """Write one predicate."""
        kinds = (self.comparison, self.between, self.membership, self.text, self.like, self.two_texts, self.null)
        weights = (8, 2, 2, 3, 3, 1, 2)
        if self.random.random() < 0.05:
            return self.random.choice(["TRUE", "FALSE", KNOWN, f"NOT {KNOWN}"])
        return self.random.choices(kinds, weights)[0]()

    def comparison(self) -> str:
        """Write a comparison of two numbers."""
        sign = self.random.choice(["=", "<>", "!=", "<", "<=", ">", ">="])
        return f"{self.number(2)} {sign} {self.number(2)}"

    def between(self) -> str:
        """Write a BETWEEN."""
        negated = self.random.choice(["", "NOT "])
        return f"{self.number(1)} {negated}BETWEEN {self.number(0)} AND {self.number(0)}"

    def membership(self) -> str:
        """Write an IN over numbers."""
        values = ", ".join(self.literal() for _ in range(self.random.randint(1, 3)))
        return f"{self.number(1)} {self.random.choice(['', 'NOT '])}IN ({values})"

    def words(self) -> tuple[str, list[str]]:
        """Write a text and say which words it can be."""
        name = self.random.choice([*TEXTS, CHANNEL])
        words, pick = list(SYMBOLS[name]), self.random.random()
        if pick < 0.5:
            return name, words
        if pick < 0.6:
            return f"COALESCE({name}, '{quoted(self.random.choice(words))}')", words
        if pick < 0.7:
            return f"NULLIF({name}, '{quoted(self.random.choice(words))}')", words
        if pick < 0.8:
            return f"CASE WHEN {self.comparison()} THEN 'blue' ELSE {name} END", ["blue", *words]
        function, change = self.random.choice([("lower", str.lower), ("trim", str.strip)])
        return f"{function}({name})", [change(word) for word in words]

    def text(self) -> str:
        """Write an equality or IN of a text."""
        text, words = self.words()
        if self.random.random() < 0.5:
            return f"{text} {self.random.choice(['=', '<>'])} '{quoted(self.random.choice(words))}'"
        values = ", ".join(f"'{quoted(v)}'" for v in self.random.sample(words, self.random.randint(1, len(words))))
        return f"{text} {self.random.choice(['', 'NOT '])}IN ({values})"

    def two_texts(self) -> str:
        """Write a comparison of texts of different vocabularies."""
        left, right = self.random.choice(["t0", "lower(t0)"]), self.random.choice(["t2", "lower(t2)"])
        return f"{left} {self.random.choice(['=', '<>'])} {right}"

    def like(self) -> str:
        """Write a pattern that fits a word, or one of its like."""
        text, words = self.words()
        word = self.random.choice(words)
        at = self.random.randint(0, len(word))
        kind = self.random.randint(0, 4)
        if kind < 2:
            pattern = word[:at] + "%" if kind else "%" + word[at:].replace(" ", "_")
            sign = self.random.choice(["LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"])
            return f"{text} {sign} '{quoted(pattern)}'"
        function, part = (("starts_with", word[:at]), ("ends_with", word[at:]), ("contains", word[at:]))[kind - 2]
        return f"{function}({text}, '{quoted(part)}')"

    def null(self) -> str:
        """Write IS [NOT] NULL."""
        operand = self.random.choice([self.number(1), self.words()[0]])
        return f"{operand} IS {self.random.choice(['', 'NOT '])}NULL"

    def literal(self) -> str:
        """Write a number."""
        value = self.random.choice([p for p in POOL if not np.isnan(p)])
        # An exponent makes the literal a DOUBLE in DuckDB too: there 0.1 alone is a DECIMAL.
        return f"{value!r}e0" if "e" not in repr(value) else repr(value)

    def column(self) -> str:
        """Write a column of numbers."""
        names = [*NUMBERS, "ctx", *AGES, *PARTS, "date_part('hour', decision_time)", "length(t1)"]
        weights = [4] * 5 + [2] * len(AGES) + [0.3] * len(PARTS) + [0.5, 1]
        return self.random.choices(names, weights)[0]

    def number(self, depth: int) -> str:
        """Write a number, column, arithmetic or function."""
        pick = self.random.random()
        if depth == 0 or pick < 0.35:
            return self.column()
        if pick < 0.5:
            return self.literal()
        a, b = self.number(depth - 1), self.number(depth - 1)
        if pick < 0.62:
            return f"{self.random.choice(['COALESCE', 'NULLIF', 'least', 'greatest'])}({a}, {b})"
        if pick < 0.7:
            return f"{self.random.choice(['abs', 'floor', 'ceil', 'round', '-'])}({a})"
        if pick < 0.78:
            condition = self.atom() if depth > 1 else f"{self.column()} < {self.literal()}"
            return f"CASE WHEN {condition} THEN {a} {self.random.choice(['', f'ELSE {b} '])}END"
        if pick < 0.8:
            return f"CASE {a} WHEN {self.literal()} THEN {b} ELSE NULL END"
        return f"{FINITE}{a} {self.random.choice(list('+-*/%'))} {b})"


def quoted(text: str) -> str:
    """Double the quotes inside a text."""
    return text.replace("'", "''")


def rows(n: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64], list[dt.datetime]]:
    """Make (n_columns + 1, n) columns, (n_extras, n) extras and the moments that their parts are of."""
    rng = np.random.default_rng(seed)
    as_of = np.full((len(AS_OF) + 1, n), np.nan)
    as_of[: len(NUMBERS)] = rng.choice(np.array(POOL), (len(NUMBERS), n))
    for i, vocabulary in enumerate(TEXTS.values()):
        as_of[len(NUMBERS) + i] = rng.choice(np.array([*range(len(vocabulary)), np.nan]), n)
    start = dt.datetime(1996, 2, 27)
    moments = [start + dt.timedelta(hours=int(h)) for h in rng.integers(0, 24 * 365 * 30, n)]
    parts = [
        [m.hour, m.day, m.month, m.year, m.isoweekday() % 7, m.isoweekday()] for m in moments
    ]  # in the order of MOMENT_PARTS
    pooled = rng.choice(np.array(POOL), (1 + len(AGES), n))
    extras = np.vstack([rng.integers(0, 2, (2, n)), pooled[:1], np.array(parts).T, pooled[1:]]).astype(float)
    return as_of, extras, moments


class Oracle:
    """DuckDB over a table of fuzzed rows."""

    def __init__(self, as_of: NDArray[np.float64], extras: NDArray[np.float64], moments: list[dt.datetime]) -> None:
        self._connection = duckdb.connect(config={"threads": 1})
        self._connection.execute("SET error_on_division_by_zero=false; SET ieee_floating_point_ops=false")
        self._connection.execute("CREATE MACRO finite(x) AS CASE WHEN isfinite(x) THEN x END")
        self._connection.execute("CREATE MACRO age_days(view) AS view")
        values = dict(zip((*AS_OF, *EXTRAS), np.vstack([as_of[:-1], extras]).tolist(), strict=True))
        stored = {name: values[name] for name in (*AS_OF, CHANNEL, KNOWN, "ctx")}
        stored |= {name[len("age_days(") : -1]: values[name] for name in AGES}
        kinds = [f"{n} {'VARCHAR' if SYMBOLS.get(n) else 'BOOLEAN' if n == KNOWN else 'DOUBLE'}" for n in stored]
        self._connection.execute(f"CREATE TABLE t (i INTEGER, decision_time TIMESTAMP, {', '.join(kinds)})")
        for i, moment in enumerate(moments):
            row = [_stored(name, column[i]) for name, column in stored.items()]
            self._connection.execute(f"INSERT INTO t VALUES ({', '.join('?' * (len(row) + 2))})", [i, moment, *row])

    def is_true(self, texts: list[str]) -> NDArray[np.bool_]:
        """Return (n_rules, n_rows)."""
        answers = []
        for start in range(0, len(texts), 50):
            wanted = ", ".join(f"(({text}) IS TRUE)" for text in texts[start : start + 50])
            answers += list(
                zip(*self._connection.execute(f"SELECT {wanted} FROM t ORDER BY i").fetchall(), strict=True)
            )
        return np.array(answers, dtype=np.bool_)


def _stored(name: str, value: float) -> float | str | bool | None:
    if np.isnan(value):
        return None
    if name == KNOWN:
        return bool(value)
    return SYMBOLS[name][int(value)] if SYMBOLS.get(name) else value
