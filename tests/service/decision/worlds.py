"""Customers and catalogues for the tests of the core: made by hand or at random, never by the code under test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.layout import SECONDS_PER_DAY, Kind
from features.matrix import Columns
from service.catalogue.loader import load_catalogue
from service.decision.model import Contacts, CustomerBatch, Showing

NOW = 1_514_592_000.0
"""2017-12-30 00:00 UTC."""
CATALOGUE = Path(__file__).parents[3] / "service" / "catalogue.yaml"
SMALL = Path(__file__).parent / "small.yaml"
COLUMNS = Columns()
LAYOUT = COLUMNS.layout
CONSENTS: dict[int, dict[str, int]] = {1: {"marketing": 1}, 0: {"marketing": 0}, -1: {}}
NO_CONTACTS = Contacts.none()


class TableScorer:
    """Scores that are a fixed function of facts and action: elementwise, so the same for one row and for many."""

    version = "table"

    def __init__(self, n_actions: int) -> None:
        self.evidence = np.ones(n_actions)
        self.sources = tuple(("model", "group", "prior")[i % 3] for i in range(n_actions))
        self.attributable = np.where(np.arange(n_actions) % 3 == 0, 0.25, 0.5)

    def score(
        self,
        batch: CustomerBatch,
        as_of: NDArray[np.float64],
        customers: NDArray[np.int64],
        actions: NDArray[np.int64],
        now: float,
        channel: str,
    ) -> NDArray[np.float64]:
        """Score by recent spend and the action's position."""
        spend = np.nan_to_num(as_of[COLUMNS.index["spend_h28"], customers], nan=1.0)
        return 0.5 / (1.0 + np.abs(np.sin(spend * 7.0 + actions * 1.3)) * 9.0)

    def uplift(
        self,
        batch: CustomerBatch,
        as_of: NDArray[np.float64],
        customers: NDArray[np.int64],
        actions: NDArray[np.int64],
        now: float,
        channel: str,
    ) -> NDArray[np.float64] | None:
        """Know an effect of every second action, between -0.1 and 0.1."""
        spend = np.nan_to_num(as_of[COLUMNS.index["spend_h28"], customers], nan=1.0)
        return np.where(actions % 2 == 0, 0.1 * np.sin(spend * 3.0 + actions), np.nan)


def random_batch(n: int, seed: int, *, missing: float = 0.1, consent: float = 0.8) -> CustomerBatch:
    """Make customers whose facts are plausible in kind, with holes."""
    rng = np.random.default_rng(seed)
    facts = np.full((LAYOUT.width, n), np.nan)
    for row, fact, _ in LAYOUT.elements():
        if fact.kind in (Kind.MOMENT, Kind.ANCHOR):
            facts[row] = NOW - rng.exponential(80 * SECONDS_PER_DAY, n)
        elif fact.kind is Kind.CATEGORY:
            facts[row] = rng.integers(0, len(fact.vocabulary), n)
        elif fact.kind is not Kind.RECENT:
            facts[row] = np.floor(rng.exponential(10, n))
    facts[rng.random(facts.shape) < missing] = np.nan
    days = LAYOUT.slices["shopping_days"]
    facts[days] = np.nan
    today = np.floor(NOW / SECONDS_PER_DAY)
    for i in range(n):
        known = np.unique(today - rng.integers(0, 120, 12) - rng.integers(0, 120))
        facts[days.start : days.start + len(known), i] = known
    return CustomerBatch(
        tuple(f"customer-{seed}-{i}" for i in range(n)),
        facts,
        np.full((len(LAYOUT.views), n), NOW),
        rng.random(n) < 0.9,
        tuple(CONSENTS[code] for code in np.where(rng.random(n) < consent, 1, rng.integers(-1, 1, n)).tolist()),
        NO_CONTACTS,
    )


def random_contacts(n: int, seed: int, actions: Sequence[str], per_customer: int = 6) -> Contacts:
    """Make an interaction history over the last 40 days."""
    rng = np.random.default_rng(seed)
    size = n * per_customer
    kinds, channels = ("decision", "impression", "click", "reject"), ("app", "email", "mailer")
    return Contacts(
        rng.integers(0, n, size),
        NOW - rng.uniform(0, 40 * SECONDS_PER_DAY, size),
        tuple(kinds[k] for k in rng.integers(0, len(kinds), size)),
        tuple(f"d{k}" for k in rng.integers(0, size, size)),
        tuple(
            showing([*actions, "no_longer_there"][a], channels[c])
            for a, c in rng.integers(0, (len(actions) + 1, len(channels)), (size, 2)).tolist()
        ),
    )


def showing(action_id: str, channel: str = "app", placement: str = "") -> Showing:
    """Return an action as shown on a channel; one that no catalogue has was marketing."""
    issue, group, is_marketing = _labels().get(action_id, ("gone", "gone", True))
    return Showing(action_id, issue, group, f"{action_id}.{channel}", channel, is_marketing, placement)


@lru_cache
def _labels() -> dict[str, tuple[str, str, bool]]:
    actions = (*load_catalogue(SMALL).actions, *load_catalogue(CATALOGUE).actions)
    return {action.id: (action.issue, action.group, action.is_marketing) for action in actions}


def one_of(batch: CustomerBatch, i: int) -> CustomerBatch:
    """Take customer `i` out of a batch."""
    mine = np.flatnonzero(batch.contacts.customers == i)
    contacts = Contacts(
        np.zeros(len(mine), np.int64),
        batch.contacts.times[mine],
        tuple(batch.contacts.kinds[k] for k in mine),
        tuple(batch.contacts.decision_ids[k] for k in mine),
        tuple(batch.contacts.showings[k] for k in mine),
    )
    return CustomerBatch(
        batch.customer_ids[i : i + 1],
        np.ascontiguousarray(batch.facts[:, i : i + 1]),
        np.ascontiguousarray(batch.view_times[:, i : i + 1]),
        batch.is_known[i : i + 1],
        batch.consents[i : i + 1],
        contacts,
        batch.paused,
        batch.is_loggable,
    )


def keys_for(n: int, seed: int = 0) -> NDArray[np.uint64]:
    """Make one random key a customer."""
    return np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)


def described(case: Mapping[str, Any]) -> CustomerBatch:
    """Make one customer of a golden case: facts by name, moments as days ago, contacts as [kind, action, days ago]."""
    facts = np.full((LAYOUT.width, 1), np.nan)
    for name, value in case.get("facts", {}).items():
        fact_name, _, member = name.partition(".")
        fact = LAYOUT.facts[fact_name]
        row = LAYOUT.slices[fact_name].start + (LAYOUT.dimensions[fact.per].index(member) if fact.per else 0)
        if fact.kind in (Kind.MOMENT, Kind.ANCHOR):
            value = NOW - value * SECONDS_PER_DAY
        facts[row] = fact.vocabulary.index(value) if fact.kind is Kind.CATEGORY else value
    days = sorted(np.floor(NOW / SECONDS_PER_DAY) - d for d in case.get("shopped_days_ago", []))
    start = LAYOUT.slices["shopping_days"].start
    facts[start : start + len(days), 0] = days
    contacts = case.get("contacts", [])
    return CustomerBatch(
        (case.get("customer", "ann"),),
        facts,
        np.full((len(LAYOUT.views), 1), NOW),
        np.array([bool(case.get("facts"))]),
        (CONSENTS[{"granted": 1, "refused": 0, "unknown": -1}[case.get("consent", "granted")]],),
        Contacts(
            np.zeros(len(contacts), np.int64),
            np.array([NOW - c[2] * SECONDS_PER_DAY for c in contacts]),
            tuple(c[0] for c in contacts),
            tuple(f"d{k}" for k in range(len(contacts))),
            tuple(showing(c[1], *c[3:]) for c in contacts),
        ),
        frozenset((scope, name) for scope, name in case.get("paused", [])),
        case.get("loggable", True),
    )
