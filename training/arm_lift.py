"""What customers of each arm buy, against the hold-out, whatever they were shown: the lift of the whole engine.

Decides what is compared: money a customer and week, from the customer's first decision in the log on, so that nothing
depends on what anyone says of an action. Arms are by chance and by customer, so the difference is caused by the arm.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.layout import SECONDS_PER_DAY
from service.decision.experiment import HOLDOUT
from service.decision.record import DecisionRow
from service.lake_files import files
from training.bootstrap import Interval, interval

Floats = NDArray[np.float64]

WEEK = 7 * SECONDS_PER_DAY


@dataclass(frozen=True)
class ArmLift:
    """One arm against the hold-out: purchases a customer and week, from the first decision on.

    Attributes:
        customers: In the arm. spend: Mean in money. lift: Arm minus hold-out; None of the hold-out, or without one.
    """

    arm: str
    customers: int
    spend: Interval
    lift: Interval | None


def purchases(lake: Path) -> dict[str, list[tuple[float, float]]]:
    """Read (moment, money) of every customer's purchases."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for name in files(lake, "events"):
        for event in pq.read_table(name, columns=["customer_id", "type", "occurred_at", "properties"]).to_pylist():
            if event["type"] == "purchase":
                money = sum(line["sales_value"] for line in json.loads(event["properties"])["lines"])
                found[event["customer_id"]].append((event["occurred_at"].timestamp(), money))
    return found


def arm_lifts(
    rows: Sequence[DecisionRow], bought: Mapping[str, Sequence[tuple[float, float]]], until: float
) -> tuple[ArmLift, ...]:
    """Compare what customers of each arm spend a week with what the hold-out does, whatever they were shown."""
    first: dict[str, tuple[str, float]] = {}
    for row in sorted(rows, key=lambda row: row.decision_time):
        first.setdefault(row.customer_id, (row.arm, row.decision_time))
    sums: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for customer, (arm, start) in first.items():
        if until > start:
            spent = sum(money for at, money in bought.get(customer, ()) if start <= at < until)
            sums[arm].append((spent, (until - start) / WEEK))
    held = np.array(sums.get(HOLDOUT, []), dtype=np.float64).reshape(-1, 2)
    lifts = []
    for arm in sorted(sums, key=lambda arm: (arm != HOLDOUT, arm)):
        own = np.array(sums[arm], dtype=np.float64)
        if len(own) < 2:
            continue
        lift = _lift(own, held) if arm != HOLDOUT and len(held) > 1 else None
        lifts.append(ArmLift(arm, len(own), interval(own), lift))
    return tuple(lifts)


def _lift(own: Floats, held: Floats) -> Interval:
    """Resample both groups as one: columns 0, 1 are the arm's sums, 2, 3 the hold-out's."""
    both = np.zeros((len(own) + len(held), 4))
    both[: len(own), :2], both[len(own) :, 2:] = own, held

    def apart(sums: Floats) -> Floats:
        difference: Floats = sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]
        return difference

    return interval(both, apart)
