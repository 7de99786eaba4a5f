"""Decisions that are made in one pass are told and logged one by one, each as if it had been made alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.contract import LAYOUT
from features.matrix import Columns
from service.catalogue.loader import load_catalogue
from service.decision.engine import compile_catalogue
from service.decision.model import CALENDAR, Request
from service.decision.record import decision_id_from
from service.online import Decided, Serving, decide_all, reselect, row_of, without_log
from service.ports import Bundle, Gathered
from tests.service.decision.worlds import CATALOGUE, NOW, TableScorer, one_of, random_batch
from tests.service.rows import plan_by_hand

N = 6
COMPILED = compile_catalogue(load_catalogue(CATALOGUE), Columns(LAYOUT))
SCORER = TableScorer(len(COMPILED.catalogue.actions))
SERVING = Serving(COMPILED, Bundle("m/1", "a" * 32, "f", plan_by_hand(), lambda compiled: SCORER), SCORER)
BATCH = random_batch(N, seed=4, missing=0.02, consent=1.0)
IDS = [decision_id_from(bytes([i] * 16), customer) for i, customer in enumerate(BATCH.customer_ids)]
REASONS: tuple[tuple[str, ...], ...] = tuple(("features_partial",) if i % 2 else () for i in range(N))


@pytest.fixture(scope="module")
def together() -> list[Decided]:
    """All customers in one pass."""
    return decide_all(SERVING, Gathered(BATCH, REASONS), Request("app"), NOW, IDS)


def alone(i: int) -> Decided:
    """One of them by itself."""
    return decide_all(SERVING, Gathered(one_of(BATCH, i), (REASONS[i],)), Request("app"), NOW, [IDS[i]])[0]


def test_each_row_is_that_of_its_own_customer(together: list[Decided]) -> None:
    """A row names its own customer, facts, choices and reasons, bit for bit as when the decision was made alone."""
    for i, decided in enumerate(together):
        assert row_of(decided).customer_id == BATCH.customer_ids[i]
        assert row_of(decided) == row_of(alone(i))
    assert len({row_of(decided).propensities for decided in together}) == N


def test_what_happens_to_one_of_them_is_its_own(together: list[Decided]) -> None:
    """Refused reservations and a lost log change the row of their own customer, again as if it had been alone."""
    i = next(i for i, d in enumerate(together) if i and d.decisions.chosen[i])
    choice = together[i].decisions.chosen[i][0]
    refused = COMPILED.catalogue.actions[together[i].decisions.actions[choice.candidate]].id
    again = reselect(together[i], [refused], ("a_cap",))
    assert row_of(again) == row_of(reselect(alone(i), [refused], ("a_cap",)))
    assert row_of(replace(again, reselected=False)) != row_of(together[i])
    lost = without_log(together[i], Request("app"), "log_unavailable")
    assert row_of(lost) == row_of(without_log(alone(i), Request("app"), "log_unavailable"))
    assert row_of(together[0]) == row_of(alone(0))
    assert np.isfinite(np.frombuffer(row_of(together[0]).propensities)).any()


@pytest.mark.parametrize("channel", COMPILED.catalogue.channels)
def test_caps_are_those_of_the_channel_each_since_its_window_began(channel: str) -> None:
    """A pass checks offers against the channel's caps alone, the same object for all, by each customer's calendar."""
    expected = [cap for cap in COMPILED.catalogue.caps if channel in (cap.channels or (channel,))]
    made = decide_all(SERVING, Gathered(BATCH, REASONS), Request(channel), NOW, IDS)
    for i, decided in enumerate(made):
        caps, local = decided.made_in.caps[i], decided.batch.local
        assert caps.terms is made[0].made_in.caps[0].terms
        assert [check.id for check in caps.terms.checks] == [cap.id for cap in expected]
        assert local is not None
        for cap, since in zip(expected, caps.since, strict=True):
            began = np.nextafter(local.starts[CALENDAR.index(cap.calendar), i], -np.inf) if cap.calendar else np.nan
            assert since == (began if cap.calendar else NOW - cap.window_seconds)
