"""Tells at once that an event is sound, as nearly all are: the shapes of `events`, checked by a compiled decoder.

Never says that one is not: what is no shape of these goes to `events.check_event`, which names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from features.contract import AISLES, CAMPAIGN_TYPES, PROFILE
from features.events import MAX_LINES
from features.layout import Kind

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
_Amount = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Aisle: Any = Literal[AISLES]
_Type: Any = Literal[CAMPAIGN_TYPES]


def _shape(name: str, required: Mapping[str, Any], optional: Mapping[str, Any]) -> Any:
    """Return an object's shape; an optional field may also be null, and no other field is known."""
    fields: list[Any] = [*required.items(), *((field, kind | None, None) for field, kind in optional.items())]
    return msgspec.defstruct(name, fields, forbid_unknown_fields=True, gc=False)


_Line: Any = _shape(
    "Line",
    {"aisle": _Aisle, "quantity": _Amount, "sales_value": _Amount},
    {
        "product_id": _Text,
        **dict.fromkeys(("retail_disc", "coupon_disc", "coupon_match_disc"), _Amount),
        **dict.fromkeys(("is_private", "is_promoted"), bool),
    },
)
_Lines: Any = Annotated[list[_Line], msgspec.Meta(min_length=1, max_length=MAX_LINES)]
_PROFILE: dict[str, Any] = {
    fact.name: Literal[fact.vocabulary] if fact.vocabulary else _Amount
    for fact in PROFILE.facts
    if fact.kind is not Kind.ANCHOR
}
SHAPES: Mapping[str, Any] = {
    "purchase": _shape("Purchase", {"lines": _Lines}, dict.fromkeys(("basket_id", "store_id"), _Text)),
    "campaign_sent": _shape("CampaignSent", {"campaign_id": _Text, "campaign_type": _Type}, {}),
    "coupon_redeemed": _shape(
        "CouponRedeemed", {"campaign_id": _Text, "campaign_type": _Type, "aisle": _Aisle}, {"coupon_id": _Text}
    ),
    "profile_changed": _shape("ProfileChanged", {}, _PROFILE),
}


def is_sound(event_type: str, properties: Mapping[str, Any]) -> bool:
    """Say whether an event is surely one that `check_event` takes."""
    shape = SHAPES.get(event_type)
    if shape is None:
        return False
    try:
        msgspec.convert(properties, shape)
    except (msgspec.ValidationError, TypeError, OverflowError):
        return False
    return True
