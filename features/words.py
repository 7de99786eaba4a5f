"""What a column is in words, and which views it is made of: for people who read a trace. Computes no value."""

from __future__ import annotations

from features.contract import LAYOUT, RATIOS
from features.layout import Fact, Kind
from features.matrix import ACTION_COLUMNS, JOURNEY_COLUMNS

_JOURNEY = {
    "shopping_days_28": "shopping days in the last 28 days",
    "shopping_days_90": "shopping days in the last 90 days",
    "gap_mean_days": "mean days between shopping days",
    "gap_p90_days": "days between shopping days that nine of ten gaps stay below",
    "last_gap_days": "days between the last two shopping days",
    "silence_days": "days since the last shopping day",
    "silence_in_gaps": "silence, in usual gaps between shopping days",
    "stage": "journey stage",
}
_ACTION = {
    "issue": "the issue of the action",
    "dimension": "what the action is about",
    "campaign_type": "the kind of campaign",
    "window_days": "the response window, days",
    "offer_coupons": "coupons of the offer",
    "offer_breadth": "sales of the products on the coupons / sales of the dimension's member",
    "action": "which action it is",
    "channel": "the channel it is shown in",
}
_RATIOS = {name: (above, below) for name, above, below in RATIOS}
_BY_COLUMN = {fact.column: fact for fact in LAYOUT.facts.values() if fact.kind not in (Kind.ANCHOR, Kind.RECENT)}
_AGES = {f"age_days({view.name})": view.name for view in LAYOUT.views}
_JOURNEY_VIEWS = tuple(
    dict.fromkeys(
        LAYOUT.view_of[f.name] for f in LAYOUT.facts.values() if f.kind is Kind.RECENT or f.name == "first_seen_at"
    )
)


def describe(column: str) -> str:
    """Return a column in words; a column of a dimension's member names the member.

    Raises:
        KeyError: There is no such column.
    """
    name, _, member = column.partition("__")
    return f"{_words(name)}: {member}" if member else _words(name)


def views_of(column: str) -> tuple[str, ...]:
    """Return the views whose facts a column is made of; none for what is no column of the customer."""
    name = column.partition("__")[0]
    if name in _AGES:
        return (_AGES[name],)
    if name in _BY_COLUMN:
        return (LAYOUT.view_of[_BY_COLUMN[name].name],)
    if name in _RATIOS:
        return tuple(dict.fromkeys(LAYOUT.view_of[_BY_COLUMN[part].name] for part in _RATIOS[name]))
    return _JOURNEY_VIEWS if name in JOURNEY_COLUMNS else ()


def _words(name: str) -> str:
    if name in _BY_COLUMN:
        return _fact_words(_BY_COLUMN[name])
    if name in _RATIOS:
        above, below = _RATIOS[name]
        return f"{_fact_words(_BY_COLUMN[above])} / {_fact_words(_BY_COLUMN[below])}"
    return _JOURNEY[name] if name in _JOURNEY else _ACTION[name]


def _fact_words(fact: Fact) -> str:
    words = fact.description[0].lower() + fact.description[1:]
    return f"days since: {words}" if fact.kind is Kind.MOMENT else words


if set(_JOURNEY) != set(JOURNEY_COLUMNS) or set(_ACTION) != set(ACTION_COLUMNS):
    raise ImportError("features.words and features.matrix name different columns of the journey or of actions")
