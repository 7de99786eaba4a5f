"""What changes from one catalogue to another: entry by entry in words, and for whom the decisions differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.catalogue.canonical import to_jsonable
from service.catalogue.population import Population
from service.decision.engine import CompiledCatalogue, decide
from service.decision.model import Catalogue, Request, Scorer
from service.decision.record import random_key

ADDED, REMOVED, CHANGED = "added", "removed", "changed"
NO_ENTRY = object()


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs.

    Attributes:
        path: Where, e.g. `actions.upsell_cheese.value`.
        kind: added | removed | changed.
        before, after: JSON-able; None where there is none.
        binds: How many actions a rule that changed binds before and after; None for anything else.
    """

    path: str
    kind: str
    before: Any
    after: Any
    binds: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Say it in one line."""
        bound = "" if self.binds is None else f" (binds {self.binds[0]} actions before, {self.binds[1]} after)"
        if self.kind == CHANGED:
            return f"{self.path}: {_short(self.before)} -> {_short(self.after)}{bound}"
        return f"{self.path}: {self.kind}, {_short(self.after if self.kind == ADDED else self.before)}{bound}"


def difference(before: Catalogue, after: Catalogue) -> list[Change]:
    """Return what differs, in the order of sections and entries."""
    old, new = to_jsonable(before), to_jsonable(after)
    changes = list(_changes("", {**old, "version": None}, {**new, "version": None}))
    return [_with_reach(change, before, after) for change in changes]


def _with_reach(change: Change, before: Catalogue, after: Catalogue) -> Change:
    if not change.path.startswith("rules."):
        return change
    name = change.path.removeprefix("rules.")
    counts = (_bound(before, name), _bound(after, name))
    return Change(change.path, change.kind, change.before, change.after, counts)


def _bound(catalogue: Catalogue, path: str) -> int:
    """Count the actions that the rule at a path binds."""
    found = [rule for rule in catalogue.rules if path == rule.id or path.startswith(f"{rule.id}.")]
    if not found:
        return 0
    rule = max(found, key=lambda r: len(r.id))
    if rule.scope == "treatment":
        return 1
    kinds = {"all": "", "issue": "issue", "group": "group", "action": "id"}
    kind = kinds[rule.scope]
    return sum(not kind or getattr(action, kind) == rule.scope_id for action in catalogue.actions)


def _changes(path: str, old: Any, new: Any) -> Iterator[Change]:
    one, other = _keyed(old), _keyed(new)
    if one is None or other is None:
        if old != new:
            yield Change(path, CHANGED, old, new)
        return
    common = [[key for key in keys if key in others] for keys, others in ((one, other), (other, one))]
    if isinstance(old, list) and common[0] != common[1]:
        yield Change(f"{path} (order)", CHANGED, common[0], common[1])
    for key in dict.fromkeys([*one, *other]):
        inner = f"{path}.{key}" if path else key
        a, b = one.get(key, NO_ENTRY), other.get(key, NO_ENTRY)
        if a is NO_ENTRY:
            yield Change(inner, ADDED, None, b)
        elif b is NO_ENTRY:
            yield Change(inner, REMOVED, a, None)
        else:
            yield from _changes(inner, a, b)


def _keyed(value: Any) -> Mapping[str, Any] | None:
    """Return what has names as a mapping: a mapping, or a list of things with an id or a name; None for the rest."""
    if isinstance(value, dict) or value == []:
        return value or {}
    for key in ("id", "name"):
        if isinstance(value, list) and value and all(isinstance(item, dict) and key in item for item in value):
            rest = [{k: v for k, v in item.items() if k != key} for item in value]
            return dict(zip((str(item[key]) for item in value), rest, strict=True))
    return None


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."


@dataclass(frozen=True, slots=True)
class Effect:
    """How two catalogues decide for the same customers on one channel.

    Attributes:
        differ: Customers who would be shown something else, or the same in other places.
        gained, lost: Action -> how many customers see it only after, only before.
    """

    channel: str
    customers: int
    differ: int
    gained: Mapping[str, int]
    lost: Mapping[str, int]


def effect(
    before: CompiledCatalogue,
    after: CompiledCatalogue,
    scorers: tuple[Scorer | None, Scorer | None],
    population: Population,
    channel: str,
    now: float,
) -> Effect:
    """Decide for everybody under both, with the same random numbers, every consent given and no contact so far.

    Args:
        scorers: For each of the two; None decides on the catalogue's priors.
        channel: One that both have.
    """
    differ, gained, lost = 0, Counter[str](), Counter[str]()
    for old, new in zip(
        _placed(before, scorers[0], population, channel, now), _placed(after, scorers[1], population, channel, now),
        strict=True,
    ):  # fmt: skip
        differ += old != new
        seen, now_seen = {action for action, _ in old}, {action for action, _ in new}
        gained.update(now_seen - seen)
        lost.update(seen - now_seen)
    return Effect(channel, len(population.customer_ids), differ, dict(gained.most_common()), dict(lost.most_common()))


def _placed(
    catalogue: CompiledCatalogue, scorer: Scorer | None, population: Population, channel: str, now: float
) -> Iterator[Sequence[tuple[str, str]]]:
    """Yield for each customer (action, placement) of what is shown, in order."""
    treatments = catalogue.catalogue.treatments
    for batch in population.batches(catalogue, now):
        keys = np.array([random_key("trial", customer) for customer in batch.customer_ids], dtype=np.uint64)
        decisions = decide(batch, Request(channel), catalogue, scorer, now, keys)
        for chosen in decisions.chosen:
            yield [(treatments[decisions.candidates[c.candidate]].action_id, c.placement) for c in chosen]
