"""Which events the example takes and what each must carry. Refuses the rest with a sentence naming the field.

Says as well which success rules of actions an event fulfils. Pure. It must not know of the API, of storage, or of what
the events do to facts (`facts.py`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from features.contract import AISLES, CAMPAIGN_TYPES, PROFILE
from features.layout import Kind

EVENT_TYPES = ("purchase", "campaign_sent", "coupon_redeemed", "profile_changed")
MAX_LINES = 1000
SUCCESS_EVENTS = ("purchase", "coupon_redeemed")
SUCCESS_RULES = (
    "purchase",
    "redemption",
    *(f"{deed}:{aisle}" for deed in ("purchase", "redemption") for aisle in AISLES),
)
"""What a catalogue may name as the success of an action: a purchase or a coupon's redemption, of an aisle or any."""

Check = Callable[[Any, str], None]


class EventError(ValueError):
    """An event that cannot be taken; `field` is the path of the offending field, e.g. `properties.lines[2].aisle`."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


def check_event(event_type: str, properties: Mapping[str, Any]) -> None:
    """Check an event's type and properties.

    Raises:
        EventError: The type is unknown, a property is missing, unknown, of the wrong type or out of range.
    """
    if event_type not in EVENT_TYPES:
        raise EventError("type", f"is none of {', '.join(EVENT_TYPES)}{_hint(event_type, EVENT_TYPES)}.")
    required, optional = _PROPERTIES[event_type]
    _object(properties, "properties", required, optional)


def _hint(value: object, choices: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(str(value), choices, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _object(value: Any, path: str, required: Mapping[str, Check], optional: Mapping[str, Check]) -> None:
    if not isinstance(value, Mapping):
        raise EventError(path, "must be an object.")
    for name, check in required.items():
        if value.get(name) is None:
            raise EventError(f"{path}.{name}", "is missing.")
        check(value[name], f"{path}.{name}")
    for name, given in value.items():
        if name in required or (given is None and name in optional):
            continue
        if name not in optional:
            known = (*required, *optional)
            raise EventError(path, f"has a field that is not known here (known: {', '.join(known)}).")
        optional[name](given, f"{path}.{name}")


def _text(value: Any, path: str) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= 100:
        raise EventError(path, "must be a text of 1 to 100 characters.")


def _amount(value: Any, path: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e9:
        raise EventError(path, "must be a number from 0 to 1,000,000,000.")


def _flag(value: Any, path: str) -> None:
    if not isinstance(value, bool):
        raise EventError(path, "must be true or false.")


def _one_of(*choices: str) -> Check:
    def check(value: Any, path: str) -> None:
        if value not in choices:
            shown = f" of {', '.join(choices)}" if len(choices) <= 12 else ""
            raise EventError(
                path, f"is none{shown or ' of the ' + str(len(choices)) + ' known'}{_hint(value, choices)}."
            )

    return check


def _lines(value: Any, path: str) -> None:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_LINES:
        raise EventError(path, f"must be a list of 1 to {MAX_LINES} lines.")
    for i, line in enumerate(value):
        _object(line, f"{path}[{i}]", _LINE, _LINE_OPTIONAL)


_AISLE, _TYPE = _one_of(*AISLES), _one_of(*CAMPAIGN_TYPES)
_LINE: dict[str, Check] = {"aisle": _AISLE, "quantity": _amount, "sales_value": _amount}
_LINE_OPTIONAL: dict[str, Check] = {
    "product_id": _text,
    "retail_disc": _amount,
    "coupon_disc": _amount,
    "coupon_match_disc": _amount,
    "is_private": _flag,
    "is_promoted": _flag,
}
_PROFILE_FIELDS: dict[str, Check] = {
    fact.name: _one_of(*fact.vocabulary) if fact.vocabulary else _amount
    for fact in PROFILE.facts
    if fact.kind is not Kind.ANCHOR
}
_PROPERTIES: dict[str, tuple[dict[str, Check], dict[str, Check]]] = {
    "purchase": ({"lines": _lines}, {"basket_id": _text, "store_id": _text}),
    "campaign_sent": ({"campaign_id": _text, "campaign_type": _TYPE}, {}),
    "coupon_redeemed": ({"campaign_id": _text, "campaign_type": _TYPE, "aisle": _AISLE}, {"coupon_id": _text}),
    "profile_changed": ({}, _PROFILE_FIELDS),
}
"""Required and optional properties of each type; an optional one may also be null."""


def successes(event_type: str, properties: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the success rules that an event fulfils, each with what it brought, or None where that is not known.

    Args:
        event_type, properties: As `check_event` accepted them.
    """
    if event_type == "coupon_redeemed":
        return {"redemption": None, f"redemption:{properties['aisle']}": None}
    if event_type != "purchase":
        return {}
    fulfilled: dict[str, float | None] = {}
    for line in properties["lines"]:
        for rule in ("purchase", f"purchase:{line['aisle']}"):
            fulfilled[rule] = (fulfilled.get(rule) or 0.0) + line["sales_value"]
    return fulfilled
