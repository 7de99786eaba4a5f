"""What callers send and get, as strict models: the source of the OpenAPI document."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from service.decision.model import ISSUES
from service.decision.record import DEGRADED_REASONS

Id = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
Issue = Literal["cross_sell", "upsell", "retention", "service"]
OutcomeType = Literal["impression", "click", "accept", "reject", "conversion"]
if Issue.__args__ != ISSUES:  # type: ignore[attr-defined]
    raise ImportError("schemas.Issue and model.ISSUES name different issues")

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
_EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)
_MOMENT = "must be a date and time with a zone, e.g. 2027-01-31T09:30:00Z"


def _written(value: object) -> object:
    """Take a moment as RFC 3339 writes it and in no other way: a bare number would be seconds or milliseconds."""
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise ValueError(_MOMENT)
    return value.upper()


def _recent(moment: datetime) -> datetime:
    if moment < _EARLIEST:
        raise ValueError("must not lie before 1970-01-02")
    return moment


Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_written), AfterValidator(_recent)]


class Strict(BaseModel):
    """Unknown fields are refused, texts are not numbers, NaN is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class PlacementAsk(Strict):
    """A placement to fill."""

    name: Id
    count: int | None = Field(None, ge=1, le=100, description="Slots to fill; the placement's own number if absent.")


class DecisionAsk(Strict):
    """What is the next best experience for this customer, here, now?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"customer_id": "1", "channel": "app", "placements": [{"name": "app_home", "count": 3}]}]
        }
    )

    customer_id: Id
    channel: Id
    placements: list[PlacementAsk] = Field(default_factory=list, max_length=20)
    context: dict[Id, str | float | bool] = Field(default_factory=dict, max_length=50)
    issues: list[Issue] = Field(default_factory=list, max_length=4)
    limit: int = Field(10, ge=1, le=100)
    locale: str | None = Field(None, min_length=2, max_length=35, pattern=r"^[A-Za-z0-9-]+$")
    explain: Literal["none", "chosen", "full"] = "chosen"
    dry_run: bool = Field(False, description="Decide, but reserve and log nothing.")
    require_known: bool = Field(False, description="404 instead of an answer for a customer without any fact.")


class ActionAnswer(BaseModel):
    """One ranked action."""

    rank: int
    action_id: str
    treatment_id: str
    placement: str
    issue: Issue
    group: str
    name: str
    locale: str = Field(description="What the content is in: as asked, its language, or the catalogue's default.")
    content: dict[str, str]
    priority: float | None
    propensity: float | None = Field(description="P(positive | shown), calibrated, or the catalogue's prior.")
    propensity_source: Literal["model", "group", "prior"] = Field(
        description="`model`; `group`: too few positives of its own, so scored as any of its group; `prior`: assumed."
    )
    evidence: float = Field(description="Positives that stand behind the propensity, with those since the model.")
    uplift: float | None = Field(
        None, description="What showing changes, where the priority was made of it instead of the propensity."
    )
    value: float
    selection_probability: float = Field(
        description="P(this action in this slot), given the arm and the slots before: the pscore."
    )
    reasons: list[str]


class FallbackAnswer(BaseModel):
    """What to show where no action was ranked, and why none was; it reserves no cap and takes no outcome."""

    action_id: str
    treatment_id: str
    placement: str
    name: str
    locale: str
    content: dict[str, str]
    reason: str


class Versions(BaseModel):
    """What the answer was made with."""

    catalogue: str
    model: str
    features: str


class DecisionAnswer(BaseModel):
    """A ranked list of actions, and with `explain: full` where every other candidate ended."""

    decision_id: str
    decision_time: datetime
    customer_id: str
    arm: str
    layers: dict[str, str] = Field(description="Layer of the experiment -> arm; the layer `arms` is `arm`.")
    stage: str | None
    actions: list[ActionAnswer]
    fallback: FallbackAnswer | None = None
    degraded: bool
    degraded_reasons: list[Literal[DEGRADED_REASONS]]  # type: ignore[valid-type]
    versions: Versions
    expires_at: datetime
    persona: str | None = Field(None, description="With `explain: full`: which persona of the catalogue it was.")
    trace: list[dict[str, Any]] | None = None
    explanation: dict[str, Any] | None = None


class OutcomeIn(Strict):
    """What became of an action that was shown."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "outcome_id": "o-1",
                    "decision_id": "07-0123456789abcdef0123456789abcdef",
                    "action_id": "upsell_cheese",
                    "type": "accept",
                }
            ]
        }
    )

    outcome_id: Id
    decision_id: Id
    action_id: Id
    type: OutcomeType
    value: float | None = None
    occurred_at: Moment | None = None


class EventIn(Strict):
    """Something the customer did, or that was done to them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "event_id": "e-1",
                    "customer_id": "1",
                    "type": "consent_changed",
                    "properties": {
                        "channel": "app",
                        "purpose": "marketing",
                        "granted": True,
                        "source": "preference centre",
                    },
                }
            ]
        }
    )

    event_id: Id
    customer_id: Id
    type: Id
    occurred_at: Moment | None = None
    properties: dict[str, Any] = Field(default_factory=dict)


class ReceiptOut(BaseModel):
    """What became of one outcome or event."""

    id: str
    status: Literal["accepted", "duplicate", "conflict", "orphan", "foreign_action", "invalid", "erased"]
    duplicate: bool
    flags: list[Literal["clock_skew", "late"]] | None = Field(
        None, description="clock_skew: the moment lay ahead and was set to now; late: it lies more than a day back."
    )
    detail: str | None = None


class SwitchIn(Strict):
    """Pause or resume."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"paused": True, "who": "ana@shop.example", "why": "the price is wrong"}]}
    )

    paused: bool
    who: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    why: Annotated[str, StringConstraints(min_length=1, max_length=500)]


class FieldError(BaseModel):
    """One field that was not understood."""

    field: str
    message: str


class Problem(BaseModel):
    """An RFC 9457 problem."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:nba:problem:invalid-field",
                    "title": "A field is not valid",
                    "status": 422,
                    "detail": "limit: Input should be less than or equal to 100.",
                    "errors": [{"field": "limit", "message": "Input should be less than or equal to 100"}],
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None


FIELD_NAMES = frozenset(
    name for model in (DecisionAsk, PlacementAsk, OutcomeIn, EventIn, SwitchIn) for name in model.model_fields
)
"""Names that a problem may repeat, since they are ours."""
