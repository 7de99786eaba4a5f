"""Small valid things to record, for tests of the state and the journal."""

from __future__ import annotations

import secrets

import mmh3
import numpy as np

from features.contract import JOIN_KEY, LAYOUT, PROJECT
from service.decision.record import DecisionRow, decision_id_from
from service.ports import FactPlan, Offer

CHEESE = Offer("upsell_cheese", "upsell", "dairy", "cheese_app", True)
DELI = Offer("upsell_deli", "upsell", "fresh", "deli_app", True)
COFFEE = Offer("cross_coffee", "cross_sell", "grocery", "coffee_app", True)
HOURS = Offer("store_hours", "service", "service", "hours_app", False)


def decision_row(customer_id: str, now: float, *, token: bytes = b"", channel: str = "app") -> DecisionRow:
    """Return a log row of two candidates, the second one chosen."""
    return DecisionRow(
        decision_id=decision_id_from(token or secrets.token_bytes(16), customer_id),
        customer_id=customer_id,
        decision_time=now,
        channel=channel,
        placements=(("app_home", 1),),
        context=(("weather", 2.0),),
        issues=("upsell",),
        limit=10,
        locale="pt-BR",
        arm="nba",
        arm_probability=0.85,
        layers=(("arms", "nba", 0.85),),
        catalogue_version="c1",
        model_version="nba-propensity/1",
        features_version="f1",
        bundle_digest="b1",
        treatment_ids=("deli_app", "cheese_app"),
        stages=np.array([11, 0], np.int8).tobytes(),
        reasons=np.array([-1, -1], "<i4").tobytes(),
        propensities=np.array([0.01, 0.02]).tobytes(),
        priorities=np.array([np.nan, 0.4]).tobytes(),
        uplifts=np.array([np.nan, 0.01]).tobytes(),
        evidence=((1, 3.5, 2.25),),
        facts=np.full(LAYOUT.width, np.nan).tobytes(),
        view_times=np.full(len(LAYOUT.views), np.nan).tobytes(),
        consents=(("marketing", 1),),
        time_zone="Europe/Lisbon",
        paused=(("issue", "retention"),),
        room=np.array([0, 3, 32767], "<i2").tobytes(),
        is_known=True,
        is_loggable=True,
        chosen=((1, "app_home", 0.9),),
        withheld=(),
        distributions=(("app_home", np.array([0, 1], "<i2").tobytes(), np.array([0.1, 0.9]).tobytes()),),
        degraded_reasons=(),
        reselected=False,
        dry_run=False,
    )


def plan_by_hand() -> FactPlan:
    """Return the read plan as Feast's documentation describes its layout, without asking Feast."""
    join_key = JOIN_KEY.encode()
    return FactPlan(
        key_prefix=b"".join(
            (_uint32(1), _uint32(2), _uint32(len(join_key)), join_key, _uint32(2))  # one key, of type STRING = 2
        ),
        key_suffix=PROJECT.encode(),
        fields={_field(f"{LAYOUT.view_of[name]}:{name}"): name for name in LAYOUT.facts},
        timestamps={f"_ts:{view.name}".encode(): view.name for view in LAYOUT.views},
    )


def _uint32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _field(name: str) -> bytes:
    return _uint32(mmh3.hash(name, signed=False))
