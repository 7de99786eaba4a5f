"""CPU time of the decision core without scoring: `python -m benchmarks.core`. Prints medians; judges nothing.

One customer x about 50 candidates, one customer x 5,000 candidates with 2,500 rules, and 10,000 customers x about 50 in
chunks of a batch's size, with how many times the rate of single decisions that is. The facts-to-columns step (`as_of`)
is part of a decision and also shown on its own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.layout import SECONDS_PER_DAY, Kind
from features.matrix import Columns
from service.adapters.journal_entries import encode_decision
from service.batch import CHUNK
from service.catalogue.loader import load_catalogue
from service.catalogue.rules import parse_rule
from service.decision.contact_policy import CapTable
from service.decision.engine import CompiledCatalogue, compile_catalogue, decide
from service.decision.log_row import LogRows
from service.decision.model import (
    Catalogue,
    Contacts,
    CustomerBatch,
    Decisions,
    Evidence,
    Exploration,
    LocalTimes,
    Request,
    Rule,
    Scoring,
    Showing,
    Stage,
)

NOW = 1_514_592_000.0
STRATEGIES = (
    ("none", 0.0, 0.0), ("epsilon_greedy", 0.05, 0.0), ("softmax", 0.1, 0.0), ("thompson", 0.0, 1.0),
    ("thompson", 0.0, 100.0),
)  # fmt: skip
"""Strategy, its parameter, and how many positives stand behind each propensity."""
CATALOGUE = Path(__file__).parents[1] / "service" / "catalogue.yaml"


def customers(columns: Columns, n: int, seed: int = 0) -> CustomerBatch:
    """Make customers with facts plausible in kind and ten contacts each."""
    rng = np.random.default_rng(seed)
    layout = columns.layout
    facts = np.full((layout.width, n), np.nan)
    for row, fact, _ in layout.elements():
        if fact.kind in (Kind.MOMENT, Kind.ANCHOR):
            facts[row] = NOW - rng.exponential(80 * SECONDS_PER_DAY, n)
        elif fact.kind is Kind.CATEGORY:
            facts[row] = rng.integers(0, len(fact.vocabulary), n)
        elif fact.kind is not Kind.RECENT:
            facts[row] = np.floor(rng.exponential(10, n))
    days = layout.slices["shopping_days"].start
    facts[days : days + 12] = np.sort(np.floor(NOW / SECONDS_PER_DAY) - rng.integers(0, 90, (12, n)), axis=0)
    size = 10 * n
    contacts = Contacts(
        np.repeat(np.arange(n), 10),
        NOW - rng.uniform(0, 60 * SECONDS_PER_DAY, size),
        tuple(rng.choice(["decision", "impression"], size).tolist()),
        tuple(f"d{k}" for k in range(size)),
        (Showing("upsell_cheese", "upsell", "fresh", "upsell_cheese.app", "app", True, "app_home"),) * size,
    )
    ids = tuple(f"customer-{i}" for i in range(n))
    views = np.full((len(layout.views), n), NOW)
    return CustomerBatch(ids, facts, views, np.ones(n, bool), ({"marketing": 1},) * n, contacts)


def history(catalogue: Catalogue, n_contacts: int = 50, seed: int = 0) -> Contacts:
    """Make the contacts of one customer over two months, of all treatments of the catalogue."""
    rng = np.random.default_rng(seed)
    actions = {action.id: action for action in catalogue.actions}
    treatments = [catalogue.treatments[k] for k in rng.integers(0, len(catalogue.treatments), n_contacts)]
    shown = [(actions[t.action_id], t) for t in treatments]
    return Contacts(
        np.zeros(n_contacts, np.int64),
        NOW - rng.uniform(0, 60 * SECONDS_PER_DAY, n_contacts),
        tuple(rng.choice(["decision", "impression", "click"], n_contacts).tolist()),
        tuple(f"d{k // 3}" for k in range(n_contacts)),
        tuple(Showing(a.id, a.issue, a.group, t.id, t.channel, a.is_marketing, t.placements[0]) for a, t in shown),
    )


def widened(catalogue: Catalogue, columns: Columns, copies: int) -> Catalogue:
    """Repeat the upsell and cross-sell actions of `app` under new ids, with a rule for every second copy."""
    symbols = {name: columns.vocabulary(name) for name in columns.names}
    originals = [action for action in catalogue.actions if action.scoring is Scoring.MODEL]
    treatments = {t.action_id: t for t in catalogue.treatments if t.channel == "app"}
    actions, forms, rules = list(catalogue.actions), list(catalogue.treatments), list(catalogue.rules)
    for k in range(copies):
        for action in originals:
            if action.id in treatments:
                actions.append(replace(action, id=f"{action.id}_{k}", value=action.value * (1 + k / 997)))
                form = treatments[action.id]
                forms.append(replace(form, id=f"{form.id}_{k}", action_id=actions[-1].id))
                if len(actions) % 2:
                    text = f"spend_h28 >= {len(actions) % 83} OR days_since_last_basket < {len(actions) % 57}.5"
                    rules.append(
                        Rule(
                            f"r{len(actions)}",
                            Stage.ELIGIBILITY,
                            "action",
                            actions[-1].id,
                            text,
                            "",
                            parse_rule(text, symbols),
                        )
                    )
    return replace(catalogue, actions=tuple(actions), treatments=tuple(forms), rules=tuple(rules))


def median_us(run: Callable[[], object], repeats: int) -> float:
    """Return the median CPU time of a call in microseconds, after a tenth of warm-up: a decision does but compute."""
    times = []
    for k in range(repeats + repeats // 10 + 1):
        start = time.process_time()
        run()
        if k > repeats // 10:
            times.append((time.process_time() - start) * 1e6)
    return statistics.median(times)


def chunks(batch: CustomerBatch) -> list[CustomerBatch]:
    """Cut a batch as `service.batch` gathers it, without contacts."""
    none, parts = Contacts.none(), [slice(i, i + CHUNK) for i in range(0, len(batch.customer_ids), CHUNK)]
    return [
        CustomerBatch(
            batch.customer_ids[part],
            np.ascontiguousarray(batch.facts[:, part]),
            np.ascontiguousarray(batch.view_times[:, part]),
            batch.is_known[part],
            batch.consents[part],
            none,
        )
        for part in parts
    ]


def decide_all(parts: list[CustomerBatch], catalogue: CompiledCatalogue, keys: NDArray[np.uint64]) -> None:
    """Decide for every chunk."""
    for k, part in enumerate(parts):
        start = k * CHUNK
        decide(part, Request("app"), catalogue, None, NOW, keys[start : start + len(part.customer_ids)])


def logged(decisions: Decisions, batch: CustomerBatch, catalogue: CompiledCatalogue) -> bytes:
    """Return the journal's entry of the first customer's decision."""
    versions = {"model_version": "m", "features_version": "f", "bundle_digest": "d" * 32}
    rows = LogRows(batch, decisions, catalogue)
    return encode_decision(rows.row(0, "0" * 35, **versions, degraded_reasons=(), reselected=False))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1_000)
    repeats = parser.parse_args().repeats
    columns = Columns()
    shipped = load_catalogue(CATALOGUE)
    one, many = customers(columns, 1), chunks(customers(columns, 10_000))
    keys = np.random.default_rng(0).integers(0, 2**64, 10_000, dtype=np.uint64)
    print(f"{'as_of alone, one customer':44} {median_us(lambda: columns.as_of(one.facts, NOW), repeats):10.0f} us")
    caps, told = CapTable.of(shipped), history(shipped)
    took = median_us(lambda: caps.room(told, "app", NOW, LocalTimes.utc(NOW, 1)), repeats)
    what = f"room from {len(told.times)} contacts, {len(caps.policies)} policies"
    print(f"{what:44} {took:10.0f} us")
    for strategy, parameter, positives in STRATEGIES:
        explored = replace(widened(shipped, columns, 1), exploration=Exploration(strategy, parameter))
        fifty = compile_catalogue(explored, columns)
        n, n_actions = len(fifty.plans["app"].candidates), len(explored.actions)
        known = Evidence(np.full(n_actions, positives), np.full(n_actions, positives))
        took = median_us(partial(decide, one, Request("app"), fifty, None, NOW, keys[:1], evidence=known), repeats)
        name = f"{strategy}, {positives:.0f} positives" if positives else strategy
        print(f"{f'one customer x {n} candidates, {name}':44} {took:10.0f} us")
    took = median_us(partial(logged, decide(one, Request("app"), fifty, None, NOW, keys[:1]), one, fifty), repeats)
    print(f"{'its log record, as bytes':44} {took:10.0f} us")
    wide = compile_catalogue(widened(shipped, columns, 192), columns)
    n, rules = len(wide.plans["app"].candidates), len(wide.catalogue.rules)
    took = median_us(lambda: decide(one, Request("app"), wide, None, NOW, keys[:1]), max(20, repeats // 20))
    print(f"{f'one customer x {n} candidates, {rules} rules':44} {took:10.0f} us")
    one = replace(one, contacts=Contacts.none())
    for name in ("softmax", "thompson"):
        fifty = compile_catalogue(replace(explored, exploration=Exploration(name, 0.1, prior_positives=100.0)), columns)
        single = median_us(partial(decide, one, Request("app"), fifty, None, NOW, keys[:1]), repeats)
        each = median_us(partial(decide_all, many, fifty, keys), max(3, repeats // 300)) / 10_000
        print(f"{f'10,000 customers, {name}, a customer':44} {each:10.1f} us, {single / each:.1f} x the single rate")


if __name__ == "__main__":
    main()
