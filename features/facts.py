"""Events -> time-anchored facts: the one definition of what is known about a customer, for stream, replay and checks.

Pure: a customer's facts are one row of `LAYOUT.width` float64, and folding an event gives a new row. Folding commutes
up to rounding, so a late event leads to the same facts as a punctual one: moments go by maximum or minimum, decayed
sums are rescaled to the later anchor, of the shopping days the latest distinct stay, and the latest profile counts.

Once a view knows anything of a customer, its counts and sums start at 0 and only its moments may be missing; a view
that was never touched is all NaN. Consent is not a fact: it is state, kept where decisions can never miss it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import AISLES, LAYOUT, PROFILE, UTC_OFFSET_HOURS
from features.events import EVENT_TYPES, EventError, check_event
from features.layout import SECONDS_PER_DAY, Kind
from features.stored import BLOCKS, VIEWS, Floats, from_view, to_view, unknown

__all__ = ["EVENT_TYPES", "EventError", "Floats", "check_event", "fold", "from_view", "to_view", "unknown"]

EVENING_SECONDS = 17 * 3600.0
_THURSDAY, _SATURDAY = 3, 5
_AISLE = {name: position for position, name in enumerate(AISLES)}
_ROW = {name: place.start for name, place in LAYOUT.slices.items()}
_DAYS = LAYOUT.slices["shopping_days"]


class _Sums:
    """Where the counts and decayed sums of some views lie, and how they move to a later anchor."""

    def __init__(self, *names: str) -> None:
        views = [VIEWS[name] for name in names]
        anchor = {v.name: next(_ROW[f.name] for f in v.facts if f.kind is Kind.ANCHOR) for v in views}
        self.anchors = np.array(list(anchor.values()))
        self.zeros = [_rows(f.name for f in v.facts if f.kind in (Kind.COUNT, Kind.DECAYED)) for v in views]
        self.amounts: dict[str, int] = {}
        self.n_amounts = 0
        scales: dict[tuple[int, float], int] = {}
        rows: list[int] = []
        amount_of: list[int] = []
        scale_of: list[int] = []
        for v, view in enumerate(views):
            for fact in view.facts:
                if fact.half_life_days is None:
                    continue
                amount = fact.name.rsplit("_h", 1)[0]
                if amount not in self.amounts:
                    self.amounts[amount], self.n_amounts = self.n_amounts, self.n_amounts + fact.length
                scale = scales.setdefault((v, fact.half_life_days * SECONDS_PER_DAY), len(scales))
                rows.extend(range(_ROW[fact.name], _ROW[fact.name] + fact.length))
                amount_of.extend(range(self.amounts[amount], self.amounts[amount] + fact.length))
                scale_of.extend([scale] * fact.length)
        self._rows, self._amount_of, self._scale_of = np.array(rows), np.array(amount_of), np.array(scale_of)
        self._view_of = np.array([v for v, _ in scales])
        self._half_lives = np.array([half_life for _, half_life in scales])

    def start(self, row: Floats) -> None:
        """Set counts and sums of views that know nothing yet to 0."""
        for anchor, zeros in zip(row[self.anchors], self.zeros, strict=True):
            if anchor != anchor:
                row[zeros] = 0.0

    def add(self, row: Floats, at: float, amounts: Floats) -> None:
        """Add amounts of an event at `at`; the later of event and anchor becomes the anchor, the other side decays."""
        before = row[self.anchors]
        after = np.fmax(before, at)
        row[self.anchors] = after
        before = np.where(np.isnan(before), after, before)
        scales = np.exp2((before - after)[self._view_of] / self._half_lives)
        weights = np.exp2((at - after)[self._view_of] / self._half_lives)
        row[self._rows] = row[self._rows] * scales[self._scale_of] + (
            amounts[self._amount_of] * weights[self._scale_of]
        )


def _rows(names: Iterable[str]) -> NDArray[np.int64]:
    return np.concatenate([np.arange(LAYOUT.slices[name].start, LAYOUT.slices[name].stop) for name in names])


_PURCHASE = _Sums("purchases", "aisle_history", "prices")
_CONTACT = _Sums("contacts")
_P, _C = _PURCHASE.amounts, _CONTACT.amounts


def fold(facts: Floats, event: Mapping[str, Any]) -> tuple[Floats, frozenset[str]]:
    """Fold one event into one customer's facts.

    Args:
        facts: (LAYOUT.width,), not changed.
        event: {type, occurred_at, properties}: `occurred_at` in Unix seconds UTC, the rest as `check_event` accepts it.

    Returns:
        The new facts, and the names of the views that the event touched.

    Raises:
        EventError: The type is none of EVENT_TYPES.
    """
    kind, at, properties = event["type"], event["occurred_at"], event["properties"]
    row = facts.copy()
    if kind == "purchase":
        return row, _fold_purchase(row, at, properties["lines"])
    if kind == "campaign_sent":
        return row, _fold_send(row, at, properties["campaign_type"])
    if kind == "coupon_redeemed":
        return row, _fold_redemption(row, at, properties["campaign_type"], _AISLE[properties["aisle"]])
    if kind == "profile_changed":
        return row, _fold_profile(row, at, properties)
    raise EventError("type", f"is none of {', '.join(EVENT_TYPES)}.")


def _fold_purchase(row: Floats, at: float, lines: list[Mapping[str, Any]]) -> frozenset[str]:
    spends: dict[int, float] = {}
    promoted: dict[int, float] = {}
    units = retail = coupon = match = private = 0.0
    discounted = 0
    for line in lines:
        get = line.get
        aisle, spend = _AISLE[line["aisle"]], line["sales_value"]
        spends[aisle] = spends.get(aisle, 0.0) + spend
        if aisle != _FUEL:
            units += line["quantity"]
        line_retail, line_coupon = get("retail_disc") or 0.0, get("coupon_disc") or 0.0
        line_match = get("coupon_match_disc") or 0.0
        if line_retail or line_coupon or line_match:
            discounted += 1
            retail, coupon, match = retail + line_retail, coupon + line_coupon, match + line_match
        if get("is_private"):
            private += spend
        if get("is_promoted"):
            promoted[aisle] = promoted.get(aisle, 0.0) + spend
    total = sum(spends.values())
    local = at + UTC_OFFSET_HOURS * 3600.0
    day, second = divmod(local, SECONDS_PER_DAY)
    amounts = np.zeros(_PURCHASE.n_amounts)
    amounts[_SCALAR_AMOUNTS] = (
        total, 1.0, units, len(lines), total * total, (day + _THURSDAY) % 7 >= _SATURDAY, second >= EVENING_SECONDS,
        spends.get(_FUEL, 0.0), retail, coupon, match, discounted, private,
    )  # fmt: skip
    aisles = np.array(list(spends))
    amounts[aisles + _P["aisle_spend"]] = list(spends.values())
    amounts[aisles + _P["aisle_baskets"]] = 1.0
    _PURCHASE.start(row)
    row[_COUNTED] += (1.0, total)
    row[_ROW["largest_basket"]] = max(row[_ROW["largest_basket"]], total)
    row[aisles + _ROW["aisle_baskets_count"]] += 1.0
    _latest(row, aisles + _ROW["aisle_purchase_at"], at)
    if promoted:
        on_coupon = np.array(list(promoted))
        amounts[on_coupon + _P["aisle_promoted_spend"]] = list(promoted.values())
        _latest(row, on_coupon + _ROW["aisle_promoted_at"], at)
    _PURCHASE.add(row, at, amounts)
    moments = ["last_basket_at"]
    if _FUEL in spends:
        moments.append("last_fuel_at")
    if coupon or match:
        moments.append("last_coupon_line_at")
    for name in moments:
        row[_ROW[name]] = _max(row[_ROW[name]], at)
    for name in ("first_basket_at", "first_seen_at"):
        row[_ROW[name]] = _min(row[_ROW[name]], at)
    _fold_day(row[_DAYS], day)
    return _PURCHASE_VIEWS


_FUEL = _AISLE["fuel"]
_SCALAR_AMOUNTS = np.array([
    _P[name] for name in (
        "spend", "baskets", "units", "lines", "spend_squared", "weekend_baskets", "evening_baskets", "fuel_spend",
        "retail_discount", "coupon_discount", "coupon_match_discount", "discounted_lines", "private_spend")
])  # fmt: skip
_COUNTED = np.array([_ROW["baskets_count"], _ROW["spend_total"]])
_PURCHASE_VIEWS = frozenset(("purchases", "aisle_history", "prices", "journey"))


def _fold_send(row: Floats, at: float, campaign_type: str) -> frozenset[str]:
    _CONTACT.start(row)
    row[_ROW[f"sends_{campaign_type}_count"]] += 1.0
    return _fold_contact(row, at, "sends", f"last_send_{campaign_type}_at")


def _fold_redemption(row: Floats, at: float, campaign_type: str, aisle: int) -> frozenset[str]:
    _CONTACT.start(row)
    row[_ROW[f"redemptions_{campaign_type}_count"]] += 1.0
    row[_ROW["aisle_redemptions_count"] + aisle] += 1.0
    place = _ROW["aisle_redemption_at"] + aisle
    row[place] = _max(row[place], at)
    return _fold_contact(row, at, "redemptions", f"last_redemption_{campaign_type}_at")


def _fold_contact(row: Floats, at: float, amount: str, moment: str) -> frozenset[str]:
    amounts = np.zeros(_CONTACT.n_amounts)
    amounts[_C[amount]] = 1.0
    _CONTACT.add(row, at, amounts)
    row[_ROW[moment]] = _max(row[_ROW[moment]], at)
    seen = row[_ROW["first_seen_at"]]
    if seen <= at:
        return frozenset(("contacts",))
    row[_ROW["first_seen_at"]] = at
    return frozenset(("contacts", "journey"))


def _fold_profile(row: Floats, at: float, properties: Mapping[str, Any]) -> frozenset[str]:
    before = row[_ROW["profile_anchor_at"]]
    if before > at:
        return frozenset()
    declared = from_view({**properties, "profile_anchor_at": at}, PROFILE.name)
    block = row[BLOCKS[PROFILE.name]]
    # Two declarations of the same moment: either order must give the same profile, so the larger code wins.
    block[:] = np.fmax(block, declared) if before == at else declared
    return frozenset((PROFILE.name,))


def _fold_day(days: Floats, day: float) -> None:
    count = len(days) - int(np.count_nonzero(np.isnan(days)))
    if count and days[count - 1] == day:
        return
    place = int(np.searchsorted(days[:count], day))
    if place < count and days[place] == day:
        return
    if count < len(days):
        days[place + 1 : count + 1] = days[place:count].copy()
        days[place] = day
    elif place:
        days[: place - 1] = days[1:place].copy()
        days[place - 1] = day


def _latest(row: Floats, places: NDArray[np.int64], at: float) -> None:
    row[places] = np.fmax(row[places], at)


def _max(known: float, at: float) -> float:
    return known if known >= at else at


def _min(known: float, at: float) -> float:
    return known if known <= at else at
