"""To whom a success is credited, and what a treatment's response is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.decision.attribution import NONE, REJECT, Responses, Shown, Successes, Told, credit, respond

DAY = 86_400.0
NAN = math.nan


def shown(*rows: tuple[int, int, float], window: float = 30.0, default: int = REJECT) -> Shown:
    """Return treatments of (customer, rule, day)."""
    customers, rules, days = zip(*rows, strict=True)
    n = len(rows)
    return Shown(
        np.array(customers), np.array(rules), np.array(days) * DAY, np.full(n, window * DAY), np.full(n, default)
    )


def done(*rows: tuple[int, int, float], heard: float | None = None, value: float = NAN) -> Successes:
    """Return successes of (customer, rule, day)."""
    table = np.array(rows, dtype=float).reshape(-1, 3)
    at = table[:, 2] * DAY
    when = at if heard is None else np.full(len(table), heard * DAY)
    return Successes(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), at, when, np.full(len(table), value))


def told(*rows: tuple[int, bool, float], heard: float | None = None, value: float = NAN) -> Told:
    """Return outcomes of (treatment, is positive, day)."""
    table = np.array(rows, dtype=float).reshape(-1, 3)
    at = table[:, 2] * DAY
    when = at if heard is None else np.full(len(table), heard * DAY)
    values = np.full(len(table), value)
    return Told(table[:, 0].astype(np.int64), table[:, 1].astype(np.bool_), at, when, values)


def of(found: Responses, name: str) -> list[Any]:
    """Return one of the columns."""
    return list(getattr(found, name).tolist())


def test_the_last_shown_is_credited_and_earlier_ones_assist() -> None:
    """A success goes to the last treatment of its rule shown before it; earlier ones with an open window assisted."""
    found = respond(shown((1, 7, 0), (1, 7, 10), (1, 7, 20), (1, 7, 21)), told(), done((1, 7, 20.5)), 100 * DAY)
    assert of(found, "responses") == [0.0, 0.0, 1.0, 0.0]
    assert of(found, "is_assisted") == [True, True, False, False]
    assert of(found, "times")[2] == 20.5 * DAY
    assert of(found, "is_default") == [True, True, False, True]


def test_other_customers_and_rules_have_no_part_in_it() -> None:
    """Customer and rule must both be the success's own; an action without a rule is never credited."""
    treatments = shown((1, 7, 0), (2, 7, 0), (1, 8, 0), (1, -1, 0))
    credited, assisted, _ = credit(treatments, done((1, 8, 1), (3, 7, 1), (2, 8, 1)))
    assert credited.tolist() == [2, -1, -1]
    assert not assisted.any()


def test_a_window_that_is_over_gives_no_credit_and_is_noted() -> None:
    """At its very end a window is over; a positive after it is noted; an earlier, longer window still counts."""
    late = respond(shown((1, 7, 0)), told(), done((1, 7, 30.0)), 100 * DAY)
    assert (of(late, "responses"), of(late, "is_after_window"), of(late, "is_default")) == ([0.0], [True], [True])
    both = Shown(np.array([1, 1]), np.array([7, 7]), np.array([0.0, DAY]), np.array([40 * DAY, DAY]), np.array([1, 1]))
    found = respond(both, told(), done((1, 7, 5.0)), 100 * DAY)
    assert of(found, "responses") == [1.0, 0.0]


def test_a_positive_within_the_window_counts_however_late_it_is_heard_of() -> None:
    """Heard of after the window it is flagged late, and the default is revised."""
    for found in (
        respond(shown((1, 7, 0)), told((0, True, 29.9), heard=45), done(), 50 * DAY),
        respond(shown((1, 7, 0)), told(), done((1, 7, 29.9), heard=45), 50 * DAY),
    ):
        assert of(found, "responses") == [1.0]
        assert (of(found, "is_late"), of(found, "is_default")) == ([True], [False])


def test_before_the_window_is_over_nothing_is_negative_but_a_reject() -> None:
    """An open window has no response yet; a reject is one at once; a positive outdoes a reject."""
    found = respond(
        shown((1, 7, 0), (2, 7, 0), (3, 7, 0)), told((1, False, 1), (2, False, 1), (2, True, 2)), done(), 9 * DAY
    )
    np.testing.assert_array_equal(found.responses, [np.nan, 0.0, 1.0])
    assert of(found, "is_open") == [True] * 3
    assert of(found, "is_default") == [False] * 3


def test_the_default_outcome_none_leaves_no_response() -> None:
    """With the default `none` a passed window is no answer at all."""
    found = respond(shown((1, 7, 0), default=NONE), told(), done(), 100 * DAY)
    assert math.isnan(found.responses[0])
    assert of(found, "is_default") == [False]


def test_values_that_were_told_stand_before_those_of_events() -> None:
    """A conversion that was told with its value is not added to the purchase that it stands for."""
    treatments = shown((1, 7, 0), (2, 7, 0))
    found = respond(
        treatments, told((0, True, 1), value=5.0), done((1, 7, 1), (2, 7, 1), (2, 7, 2), value=3.0), 9 * DAY
    )
    assert of(found, "values") == [5.0, 6.0]


_treatments = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-1, 2), st.integers(0, 12), st.integers(1, 9)), min_size=1, max_size=12
)
_successes = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 20)), max_size=8)


@settings(max_examples=300, deadline=None)
@given(_treatments, _successes)
def test_credit_is_what_a_plain_search_finds(
    rows: list[tuple[int, int, int, int]], deeds: list[tuple[int, int, int]]
) -> None:
    """For any treatments and successes: who is credited, and who assisted, as one looks it up by hand."""
    table = np.array(rows)
    treatments = Shown(table[:, 0], table[:, 1], table[:, 2] * DAY, table[:, 3] * DAY, np.ones(len(rows), dtype=int))
    credited, assisted, _ = credit(treatments, done(*deeds))
    expected_assists = set()
    for k, (customer, rule, day) in enumerate(deeds):
        fits = [i for i, (c, r, at, w) in enumerate(rows) if (c, r) == (customer, rule) and at <= day < at + w]
        fits.sort(key=lambda i: (rows[i][2], i))
        assert credited[k] == (fits[-1] if fits else -1)
        expected_assists.update(fits[:-1])
    assert set(np.flatnonzero(assisted)) == expected_assists


@settings(max_examples=60, deadline=None)
@given(_treatments, _successes, st.randoms())
def test_the_order_of_arrival_does_not_matter(
    rows: list[tuple[int, int, int, int]], deeds: list[tuple[int, int, int]], chance: Any
) -> None:
    """Successes in any order give the same responses."""
    table = np.array(rows)
    treatments = Shown(table[:, 0], table[:, 1], table[:, 2] * DAY, table[:, 3] * DAY, np.ones(len(rows), dtype=int))
    shuffled = chance.sample(deeds, len(deeds))
    one, other = (respond(treatments, told(), done(*some), 100 * DAY) for some in (deeds, shuffled))
    for name in Responses.__slots__:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
