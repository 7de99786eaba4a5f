"""Customers whose stored values are of every kind that Feast can write: right, null, of a wrong type, old, ahead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import (
    BoolList,
    BytesList,
    DoubleList,
    FloatList,
    Int32List,
    Int64List,
    Null,
    StringList,
    Value,
)

from features.contract import JOIN_KEY, LAYOUT
from features.layout import Fact

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
CHUNK = 500


def write_fuzzed(store: Any, customers: list[str], seed: int) -> None:
    """Let Feast's own online store write views of the customers; some views and whole customers are never written."""
    chance = np.random.default_rng(seed)
    online = store._get_provider().online_store
    tables = {view.name: store.get_feature_view(view.name) for view in LAYOUT.views}
    for start in range(0, len(customers), CHUNK):
        chunk = [c for c in customers[start : start + CHUNK] if chance.random() > 0.03]
        for view in LAYOUT.views:
            rows = [
                (
                    EntityKey(join_keys=[JOIN_KEY], entity_values=[Value(string_val=customer)]),
                    {fact.name: any_value(fact, chance) for fact in view.facts},
                    any_stamp(chance),
                    None,
                )
                for customer in chunk
                if chance.random() > 0.08
            ]
            online.online_write_batch(store.config, tables[view.name], rows, None)


def any_stamp(chance: np.random.Generator) -> datetime:
    """Return an event timestamp: mostly of the last years, at times ahead of now by seconds, minutes or years."""
    draw = chance.random()
    micros = int(chance.integers(1_000_000))
    if draw < 0.04:
        ahead = float(chance.choice([1.0, 299.0, 301.0, 86_400.0, 2.3e9]))
        return (NOW + timedelta(seconds=ahead)).replace(microsecond=micros)
    most_days = 1_000 if draw < 0.2 else 300
    return NOW - timedelta(days=float(chance.random()) * most_days, microseconds=micros)


def any_value(fact: Fact, chance: np.random.Generator) -> Value:
    """Return a value of the fact: nine in ten of its own type, some null, the rest of any other type."""
    draw = chance.random()
    if draw < 0.90:
        return right_value(fact, chance)
    if draw < 0.95:
        return Value() if draw < 0.93 else Value(null_val=Null.NULL)
    return other_value(fact, chance)


def right_value(fact: Fact, chance: np.random.Generator) -> Value:
    """Return a value of the declared type."""
    if fact.vocabulary:
        return Value(string_val=fact.vocabulary[int(chance.integers(len(fact.vocabulary)))])
    numbers = chance.normal(size=fact.length) * 10.0 ** chance.integers(-9, 10)
    numbers[chance.random(fact.length) < 0.05] = np.nan
    if fact.length > 1:
        return Value(double_list_val=DoubleList(val=numbers))
    return Value(double_val=float(numbers[0]))


def other_value(fact: Fact, chance: np.random.Generator) -> Value:
    """Return a value of any type, of the right length or not."""
    length = fact.length if chance.random() < 0.5 else int(chance.integers(0, 70))
    whole = chance.integers(-(2**31), 2**31, size=length)
    big = chance.integers(-(2**62), 2**62, size=length)
    options = [
        lambda: Value(double_val=float(chance.choice([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-310]))),
        lambda: Value(float_val=float(np.float32(chance.normal()))),
        lambda: Value(int32_val=int(chance.integers(-(2**31), 2**31))),
        lambda: Value(int64_val=int(chance.integers(-(2**62), 2**62))),
        lambda: Value(bool_val=bool(chance.integers(2))),
        lambda: Value(unix_timestamp_val=int(chance.integers(-(2**40), 2**40))),
        lambda: Value(string_val=str(chance.choice(["", "12", "ü" * 200, "Unknown"]))),
        lambda: Value(bytes_val=chance.bytes(int(chance.integers(0, 20)))),
        lambda: Value(float_list_val=FloatList(val=whole.astype(np.float32))),
        lambda: Value(double_list_val=DoubleList(val=whole.astype(np.float64))),
        lambda: Value(int32_list_val=Int32List(val=whole)),
        lambda: Value(int64_list_val=Int64List(val=big)),
        lambda: Value(unix_timestamp_list_val=Int64List(val=big)),
        lambda: Value(bool_list_val=BoolList(val=whole % 2 == 0)),
        lambda: Value(string_list_val=StringList(val=["a"] * length)),
        lambda: Value(bytes_list_val=BytesList(val=[b"\n\x01"] * length)),
    ]
    return options[int(chance.integers(len(options)))]()
