"""Reading Feast's hashes, pinned to bytes that Feast itself writes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import mmh3
import numpy as np
import pytest
from feast.protos.feast.types.Value_pb2 import DoubleList, FloatList, Int64List, Value

from features.contract import LAYOUT
from service.adapters.connection import Link
from service.adapters.feast_push import frame_of
from service.adapters.feast_reader import FactReader, decode_timestamp, decode_value
from service.ports import FactPlan
from tests.service.rows import plan_by_hand

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
AGED = "profile"


def a_row(seed: int = 1) -> Any:
    """Return a row of facts with codes where there are vocabularies and some missing values."""
    chance = np.random.default_rng(seed)
    row = chance.normal(size=LAYOUT.width) * 1e9
    row[chance.random(LAYOUT.width) < 0.2] = np.nan
    for fact in LAYOUT.facts.values():
        if fact.vocabulary:
            row[LAYOUT.slices[fact.name]] = float(chance.integers(len(fact.vocabulary)))
    return row


def write_all(store: Any, customer: str, row: Any, at: datetime = NOW) -> None:
    """Let Feast write a row of all views."""
    for view in LAYOUT.views:
        frame = frame_of(view.name, {customer: row}, {customer: round(at.timestamp() * 1e6)})
        store.write_to_online_store(view.name, frame)


def hash_of(url: str, key: bytes) -> dict[bytes, bytes]:
    """Read a hash as it is."""

    async def read() -> list[bytes]:
        link = Link(url)
        [reply] = await link.exchange([("HGETALL", key)], deadline_seconds=5, reason="")
        await link.close()
        return reply

    pairs = iter(asyncio.run(read()))
    return dict(zip(pairs, pairs, strict=True))


def decoded(fields: dict[bytes, bytes]) -> tuple[Any, Any, Any]:
    """Decode a hash by the plan."""
    facts, times = np.zeros(LAYOUT.width), np.zeros(len(LAYOUT.views))
    found = FactReader(plan_by_hand(), LAYOUT).decode(fields, facts, times)
    return found, facts, times


@pytest.fixture(scope="module")
def written(feast_world: tuple[Any, FactPlan], redis_url: str) -> dict[bytes, bytes]:
    """Return the hash that Feast wrote for `a_row()`."""
    store, plan = feast_world
    write_all(store, "house/1 ü", a_row())
    return hash_of(redis_url, FactReader(plan, LAYOUT).key("house/1 ü"))


def test_the_plan_asked_from_feast_is_the_documented_layout(feast_world: tuple[Any, FactPlan]) -> None:
    """Keys, hash fields and timestamp fields that Feast computes are the ones its documentation describes."""
    assert feast_world[1] == plan_by_hand()


def test_what_feast_wrote_is_read_bit_for_bit(written: dict[bytes, bytes]) -> None:
    """Numbers, arrays, texts, missing values and timestamps come back exactly as they were written."""
    found, facts, times = decoded(written)
    assert found == (True, False)
    np.testing.assert_array_equal(facts, a_row())
    np.testing.assert_array_equal(times, NOW.timestamp())


def test_the_bytes_that_feast_writes_are_these(feast_world: tuple[Any, FactPlan], redis_url: str) -> None:
    """Key, number, text, arrays with and without values, null and timestamp are pinned as Feast 0.67 writes them."""
    store, _ = feast_world
    row = np.full(LAYOUT.width, np.nan)
    row[LAYOUT.slices["spend_total"]] = 12.5
    row[LAYOUT.slices["age_band"]] = 2.0
    row[LAYOUT.slices["aisle_spend_h28"]] = 1.0
    write_all(store, "c1", row)
    key = b"\x01\0\0\0\x02\0\0\0\x0b\0\0\0customer_id\x02\0\0\0\x02\0\0\0c1nba"
    fields = hash_of(redis_url, key)
    assert fields[bytes.fromhex("ac0e46b1")] == bytes.fromhex("290000000000002940")  # purchases:spend_total
    assert fields[_field("profile:age_band")] == b"\x12\x0535-44"
    assert fields[_field("profile:income_band")] == b""
    aisles = len(LAYOUT.dimensions["aisle"])
    assert aisles == 33
    assert fields[_field("aisle_history:aisle_spend_h28")] == (
        bytes.fromhex("7a8b020a8802") + bytes.fromhex("000000000000f03f") * aisles
    )
    nothing = np.full(aisles, np.nan).tobytes()
    assert fields[_field("aisle_history:aisle_spend_h364")] == bytes.fromhex("7a8b020a8802") + nothing
    assert fields[_field("purchases:baskets_count")] == b""
    assert fields[b"_ts:profile"] == bytes.fromhex("08c0d490cd061080e59a77")


def _field(name: str) -> bytes:
    return mmh3.hash(name, signed=False).to_bytes(4, "little")


def test_an_unknown_customer_is_unknown_not_zero() -> None:
    """No hash means not known and every fact missing."""
    found, facts, times = decoded({})
    assert found == (False, False)
    assert np.isnan(facts).all()
    assert np.isnan(times).all()


def test_a_lost_field_makes_the_row_partial_and_only_that_fact_missing(written: dict[bytes, bytes]) -> None:
    """A field that its view should have and has not is missing and flagged; the rest stays."""
    lost = next(f for f, name in plan_by_hand().fields.items() if name == "baskets_count")
    found, facts, _ = decoded({field: value for field, value in written.items() if field != lost})
    expected = a_row()
    expected[LAYOUT.slices["baskets_count"]] = np.nan
    assert found == (True, True)
    np.testing.assert_array_equal(facts, expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spend_total", Value(string_val="12")),
        ("spend_total", Value(double_list_val=DoubleList(val=[1.0]))),
        ("aisle_spend_h28", Value(double_val=1.0)),
        ("aisle_spend_h28", Value(double_list_val=DoubleList(val=[1.0, 2.0]))),
        ("age_band", Value(string_val="a hundred")),
        ("age_band", Value(double_val=1.0)),
    ],
)
def test_a_value_of_a_wrong_type_is_missing_and_flagged(written: dict[bytes, bytes], name: str, value: Value) -> None:
    """A value of another type, length or vocabulary is never guessed at."""
    field = next(f for f, n in plan_by_hand().fields.items() if n == name)
    found, facts, _ = decoded({**written, field: value.SerializeToString()})
    expected = a_row()
    expected[LAYOUT.slices[name]] = np.nan
    assert found == (True, True)
    np.testing.assert_array_equal(facts, expected)


def test_integers_and_single_precision_are_read_as_numbers(written: dict[bytes, bytes]) -> None:
    """Numbers of another width than declared are still numbers."""
    fields = {name: field for field, name in plan_by_hand().fields.items()}
    aisles = list(range(len(LAYOUT.dimensions["aisle"])))
    found, facts, _ = decoded(
        {
            **written,
            fields["spend_total"]: Value(int64_val=-7).SerializeToString(),
            fields["baskets_count"]: Value(float_val=0.5).SerializeToString(),
            fields["aisle_baskets_count"]: Value(int64_list_val=Int64List(val=aisles)).SerializeToString(),
        }
    )
    assert found == (True, False)
    assert facts[LAYOUT.slices["spend_total"]] == -7.0
    assert facts[LAYOUT.slices["baskets_count"]] == 0.5
    np.testing.assert_array_equal(facts[LAYOUT.slices["aisle_baskets_count"]], aisles)


def test_a_view_without_its_timestamp_is_of_unknown_age_and_missing(written: dict[bytes, bytes]) -> None:
    """Values whose timestamp is lost are not used."""
    fields = {field: value for field, value in written.items() if field != b"_ts:purchases"}
    _, facts, times = decoded(fields)
    view = next(v for v in LAYOUT.views if v.name == "purchases")
    assert all(np.isnan(facts[LAYOUT.slices[fact.name]]).all() for fact in view.facts)
    assert np.isnan(times[LAYOUT.views.index(view)])
    assert not np.isnan(times).all()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Value(), None),
        (Value(double_val=-0.0), -0.0),
        (Value(double_val=1e300), 1e300),
        (Value(int64_val=-(2**62)), -(2.0**62)),
        (Value(int32_val=-3), -3.0),
        (Value(bool_val=True), 1.0),
        (Value(unix_timestamp_val=1_700_000_000), 1.7e9),
        (Value(string_val="ü" * 200), "ü" * 200),
    ],
)
def test_each_scalar_of_feast_is_decoded(value: Value, expected: Any) -> None:
    """Every scalar kind of Feast's Value is understood; null is NaN."""
    found = decode_value(value.SerializeToString())
    assert np.isnan(found) if expected is None else found == expected  # type: ignore[arg-type]


def test_lists_of_any_number_are_decoded() -> None:
    """Lists of doubles, floats and integers become float64 arrays, whatever their length."""
    for numbers in ([], [1.5], list(range(1000))):
        found = decode_value(Value(double_list_val=DoubleList(val=numbers)).SerializeToString())
        np.testing.assert_array_equal(found, numbers)  # type: ignore[arg-type]
    found = decode_value(Value(float_list_val=FloatList(val=[0.5, 2.0])).SerializeToString())
    np.testing.assert_array_equal(found, [0.5, 2.0])  # type: ignore[arg-type]


def test_no_damaged_value_is_more_than_missing(written: dict[bytes, bytes]) -> None:
    """Cut or altered bytes never raise: they decode to something or to nothing."""
    chance = np.random.default_rng(3)
    for value in list(written.values())[:60]:
        for _ in range(20):
            damaged = bytearray(value[: chance.integers(len(value) + 1)])
            if damaged:
                damaged[chance.integers(len(damaged))] = chance.integers(256)
            decode_value(bytes(damaged))
            decode_timestamp(bytes(damaged))
            decoded({**written, next(iter(written)): bytes(damaged)})
