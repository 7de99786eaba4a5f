"""What the journal's entries hold is what was put in, however many are written at once."""

from __future__ import annotations

from dataclasses import fields, replace

import msgspec
import numpy as np
import pytest

from service.adapters.journal_entries import decode_decision, encode_decision, encode_decisions
from service.decision.record import DecisionRow
from tests.service.rows import decision_row

NUMBERS = ("propensities", "priorities", "uplifts", "facts")
N = 300


def some_numbers(chance: np.random.Generator) -> bytes:
    """Up to 70 numbers, some or all of them missing."""
    numbers = chance.normal(size=int(chance.integers(70)))
    numbers[chance.random(len(numbers)) < chance.choice([0.0, 0.5, 1.0])] = np.nan
    return numbers.tobytes()


@pytest.fixture(scope="module")
def rows() -> list[DecisionRow]:
    """Rows whose arrays are all of other lengths, with holes elsewhere."""
    chance = np.random.default_rng(5)
    drawn = ({name: some_numbers(chance) for name in NUMBERS} for _ in range(N))
    return [replace(decision_row(f"c{k}", 1_770_000_000.0 + k), **numbers) for k, numbers in enumerate(drawn)]


def test_rows_written_together_are_those_written_alone(rows: list[DecisionRow]) -> None:
    """The entry of a row does not depend on what was written beside it, and is read back to the bit."""
    assert encode_decisions(rows) == [encode_decision(row) for row in rows]
    assert [decode_decision(payload) for payload in encode_decisions(rows)] == rows
    assert encode_decisions([]) == []


def test_an_entry_is_an_array_of_the_fields_with_missing_numbers_left_out(rows: list[DecisionRow]) -> None:
    """Fields stand in their order; numbers as how many, a bit for each that is there, and those that are."""
    for row in rows:
        held = msgspec.msgpack.decode(encode_decision(row))
        assert len(held) == len(fields(DecisionRow))
        for at, name in enumerate(field.name for field in fields(DecisionRow)):
            if name in NUMBERS:
                numbers = np.frombuffer(getattr(row, name))
                is_there = ~np.isnan(numbers)
                assert held[at] == [len(numbers), np.packbits(is_there).tobytes(), numbers[is_there].tobytes()]
    assert held[:3] == [row.decision_id, row.customer_id, row.decision_time]
