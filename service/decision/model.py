"""The nouns of a decision as frozen dataclasses: catalogue, customers, request, decisions. Knows no file and no wire.

Arrays over customers have n_customers as their last axis or only axis; arrays over candidates are positions in
`Catalogue.treatments`: a candidate is an action in the form of one of its treatments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.decision.expression import Expression
from service.decision.local_time import Zone, civil_from_days

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ISSUES = ("cross_sell", "upsell", "retention", "service")
CAMPAIGN_TYPES = ("a", "b", "c")
ATTRIBUTABLE = "attributable"
ON_EFFECT = ("uplift", ATTRIBUTABLE)
"""Estimates of an issue's priorities that use an action's effect where one is known."""
CONTACT_KINDS = ("decision", "impression", "click", "accept", "reject", "conversion")
CALENDAR = ("day", "week", "month")
"""Calendar windows of caps; weeks begin on Monday."""


class Scoring(StrEnum):
    """Where an action's propensity comes from."""

    MODEL = "model"
    """The calibrated model, on the action's own issue and dimension member."""
    RISK = "risk"
    """The model's calibrated risk of silence x the catalogue's assumed response; flagged `prior`."""
    PRIOR = "prior"
    """The catalogue's assumed response alone; flagged `prior`."""


class Stage(IntEnum):
    """Where a candidate's way ended. Every candidate ends at exactly one."""

    RANKED = 0
    """Chosen: it is in the answer."""
    SWITCHED_OFF = 1
    OUT_OF_DATES = 2
    ISSUE_NOT_ASKED = 3
    NO_CONSENT = 4
    ELIGIBILITY = 5
    APPLICABILITY = 6
    SUITABILITY = 7
    CONTACT_POLICY = 8
    MUST_BE_LOGGED = 9
    """The decision cannot be logged and the action is not marked `may_be_unlogged`."""
    BELOW_THRESHOLD = 10
    NOT_SELECTED = 11
    """Arbitrated, and others were placed."""
    HELD_OUT = 12
    """Would have been placed; the customer's arm shows no marketing."""
    RESERVATION_REFUSED = 13
    """A cap was used up by another channel between filter and reservation."""
    OUT_OF_REACH = 14
    """New, and this customer is not yet among those who may see it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One engagement rule: what is not TRUE excludes.

    Attributes:
        id: Unique in the catalogue.
        stage: ELIGIBILITY, APPLICABILITY or SUITABILITY.
        scope: all | issue | group | action | treatment.
        scope_id: Which issue, group, action or treatment; "" for all.
        text: The SQL boolean expression as written.
        reason: What to tell a person when it excludes, in the catalogue's words.
        expression: The parsed and typed tree.
        why: What it says for an action that it lets through, in the catalogue's words; "" to say nothing.
        placements: It binds in these alone, and leaves the action to the others; empty for all.
    """

    id: str
    stage: Stage
    scope: str
    scope_id: str
    text: str
    reason: str
    expression: Expression
    why: str = ""
    placements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `limit` contacts of the scope in the window, counted over `channels` and `placements` (empty: all).

    It binds what is of its scope where it counts. The actions of one answer count among each other, save for caps on
    responses (click, accept, reject, conversion), which an answer alone does not bring. A cool-off is a cap of one
    response.

    Attributes:
        scope: all | marketing | issue | group | action | treatment.
        scope_id: Which issue, group, action or treatment; "*" for each on its own, of those that are
            marketing; "" for all and marketing.
        counted: One of CONTACT_KINDS.
        window_seconds: Rolling window before the decision time; 0 where the window is a calendar's.
        calendar: "" or one of CALENDAR, in the customer's time zone: from its first moment on.
        unit: action: each action shown counts; message: all of one decision count as one.
    """

    id: str
    scope: str
    scope_id: str
    counted: str
    limit: int
    window_seconds: float
    channels: tuple[str, ...]
    reason: str
    calendar: str = ""
    unit: str = "action"
    placements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QuietHours:
    """No contact of the scope on `channels` (empty: all) from `starts` to before `ends`, the customer's local time.

    Attributes:
        scope, scope_id: As of a Cap.
        starts, ends: Seconds of the local day; over midnight where `ends` is the smaller.
    """

    id: str
    scope: str
    scope_id: str
    starts: float
    ends: float
    channels: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Treatment:
    """An action's form for one channel and the placements it fits.

    Attributes:
        cost: What showing this form costs, on top of the action's cost.
        content: locale -> field -> text.
        starts_at, ends_at: Validity within the action's, Unix seconds UTC; NaN for open.
    """

    id: str
    action_id: str
    channel: str
    placements: tuple[str, ...]
    content: Mapping[str, Mapping[str, str]]
    cost: float = 0.0
    starts_at: float = math.nan
    ends_at: float = math.nan


@dataclass(frozen=True, slots=True)
class Action:
    """What may be proposed.

    Attributes:
        value: What a positive is worth, in the catalogue's currency.
        cost: What showing it costs, same currency.
        lever: Business lever, 1.0 = neutral.
        prior: Assumed P(positive | shown) where the model is silent, or the assumed response for `Scoring.RISK`.
        member: The member of the feature dimension the action is about (here an aisle), or None.
        campaign_type: Code that the model knows the kind of contact by, or None.
        window_days: Response window.
        is_marketing: Needs consent for the channel and its `purpose`.
        may_be_unlogged: May be offered while the decision log is unavailable.
        success_rule: What the customer does that makes a conversion, in words a journal query can read, e.g.
            `purchase:seafood`; "" for none.
        starts_at, ends_at: Validity, Unix seconds UTC; NaN for open.
        positive: The type of outcome that is its positive: conversion | accept | click.
        default_outcome: What a passed window without a positive means: `reject` a negative, `none` nothing.
        is_mandatory: Placed first, before arbitration; still under eligibility and caps.
        is_ramped: Shown to few at first where the catalogue has a ramp; see `Ramp`.
        purpose: What consent must be for, where the action is marketing.
        offer_coupons: How many coupons stand behind it; NaN where unknown.
        offer_breadth: Sales of the products on them / sales of the member; NaN where unknown.
    """

    id: str
    name: str
    issue: str
    group: str
    value: float
    cost: float
    lever: float
    prior: float
    scoring: Scoring
    member: str | None
    campaign_type: str | None
    window_days: float
    is_marketing: bool
    may_be_unlogged: bool
    success_rule: str
    starts_at: float
    ends_at: float
    positive: str = "conversion"
    default_outcome: str = "reject"
    is_mandatory: bool = False
    is_ramped: bool = True
    purpose: str = "marketing"
    offer_coupons: float = math.nan
    offer_breadth: float = math.nan


@dataclass(frozen=True, slots=True)
class Placement:
    """A place in a channel that shows up to `slots` actions."""

    id: str
    channel: str
    slots: int


@dataclass(frozen=True, slots=True)
class Experiment:
    """Sticky arms by salted hash of the customer, in independent layers.

    Attributes:
        arms: (name, share) of the first layer; shares sum to 1. Names: `experiment.ARMS`.
        exploration: (name, share) of the second layer: `catalogued`, or `none` to be shown the best without exploring.
        holdouts: (issue, share): of each issue, who is not shown its marketing, each drawn on its own.
    """

    id: str
    salt: str
    arms: tuple[tuple[str, float], ...]
    exploration: tuple[tuple[str, float], ...] = ()
    holdouts: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Ramp:
    """How many customers may see a new action: a share that grows with the positives behind it.

    The share grows in a straight line from `least_reach` to all as positives grow to `full_positives`, for who once
    is within reach stays there. Source: Pega Customer Decision Hub, "Model learning for new actions": in outbound
    channels an action whose model has less than 200 positives reaches 2 % to 100 % of its audience.

    Attributes:
        channels: Where it holds; empty for all.
    """

    least_reach: float = 0.02
    full_positives: float = 200.0
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exploration:
    """How a slot's action is drawn: none | epsilon_greedy | softmax | thompson.

    Attributes:
        parameter: epsilon for epsilon_greedy, temperature (in units of priority) for softmax, else without meaning.
        prior_positives: How many positives an assumption of the catalogue is worth as evidence.
        half_life_days: After this long an outcome counts half as evidence.
    """

    strategy: str
    parameter: float = 0.0
    prior_positives: float = 1.0
    half_life_days: float = 28.0
    ramp: Ramp | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """How many actions of a scope an answer should have.

    Attributes:
        scope: issue | group. scope_id: Which; "*" for each on its own (then there is no `least`).
        least: As long as there are candidates; the last slots that fit are kept for them.
        most: Never more than this.
        placement: Counted in this placement alone; "" for the whole answer.
    """

    id: str
    scope: str
    scope_id: str
    least: int = 0
    most: int = 1_000
    placement: str = ""


@dataclass(frozen=True, slots=True)
class ContextField:
    """A field that a caller may send: text from a vocabulary, or a number when the vocabulary is empty."""

    name: str
    vocabulary: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Persona:
    """A kind of customer, by facts as of now.

    Attributes:
        text: The SQL boolean expression as written.
    """

    name: str
    text: str
    expression: Expression


@dataclass(frozen=True)
class Catalogue:
    """All that marketers decide, loaded whole under one version.

    Attributes:
        version: Short digest of the content.
        arbitration: issue -> names of the factors switched on, out of context_weight, value, lever, stage, cost.
        context_weights: (channel, issue) -> weight, 1.0 where absent.
        thresholds: issue -> least propensity that may be placed.
        expires_seconds: How long an answer is good for.
        least_priority: What comes out of arbitration below this is not placed.
        fallback: Id of the action to show when nothing can be decided; "" for none.
        personas: The first that a customer fits is its persona.
        zone: In which `hour(decision_time)` and its like are told, and of customers who have none of their own.
        estimates: issue -> propensity | uplift | attributable: what its priorities are made of, propensity where
            absent; see `propensity.estimates`.
        stage_weights: (issue, journey stage) -> weight, 1.0 where absent.
        reservations: channel -> seconds that a decision without an impression counts as one.
    """

    version: str
    currency: str
    actions: tuple[Action, ...]
    treatments: tuple[Treatment, ...]
    placements: tuple[Placement, ...]
    rules: tuple[Rule, ...]
    caps: tuple[Cap, ...]
    experiment: Experiment
    exploration: Exploration
    context: tuple[ContextField, ...]
    arbitration: Mapping[str, tuple[str, ...]]
    context_weights: Mapping[tuple[str, str], float]
    thresholds: Mapping[str, float]
    default_locale: str
    expires_seconds: float
    channels: tuple[str, ...]
    least_priority: float = -math.inf
    fallback: str = ""
    estimates: Mapping[str, str] = field(default_factory=dict)
    stage_weights: Mapping[tuple[str, str], float] = field(default_factory=dict)
    quotas: tuple[Quota, ...] = ()
    quiet_hours: tuple[QuietHours, ...] = ()
    reservations: Mapping[str, float] = field(default_factory=dict)
    personas: tuple[Persona, ...] = ()
    zone: Zone = field(default_factory=Zone)
    index: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {action.id: i for i, action in enumerate(self.actions)})


class Showing(NamedTuple):
    """What a customer was shown, in the words of the catalogue of then."""

    action_id: str
    issue: str
    group: str
    treatment_id: str
    channel: str
    is_marketing: bool
    placement: str


@dataclass(frozen=True, slots=True)
class Contacts:
    """Interaction history of the batch's customers, one element a contact, any order.

    Attributes:
        customers: (n_contacts,) position in the batch.
        times: (n_contacts,) Unix seconds.
        kinds: (n_contacts,) of CONTACT_KINDS.
        decision_ids, showings: (n_contacts,) of the decision that a contact belongs to, and what was shown.
    """

    customers: Ints
    times: Floats
    kinds: tuple[str, ...]
    decision_ids: tuple[str, ...]
    showings: tuple[Showing, ...]

    @classmethod
    def none(cls) -> Contacts:
        """Return an empty history."""
        return cls(np.empty(0, np.int64), np.empty(0), (), (), ())


@dataclass(frozen=True, slots=True)
class LocalTimes:
    """The calendars of n customers as of the decision time.

    Attributes:
        starts: (len(CALENDAR), n) where the local day, week and month began, Unix seconds.
        seconds_of_day: (n,) the local time of day.
    """

    starts: Floats
    seconds_of_day: Floats

    @classmethod
    def utc(cls, now: float, n: int) -> LocalTimes:
        """Return the calendars of n customers who live by UTC."""
        day = now // 86_400.0
        first = day - civil_from_days(int(day))[2] + 1
        # The Unix epoch was a Thursday.
        starts = [[day * 86_400.0], [(day - (day + 3) % 7) * 86_400.0], [first * 86_400.0]]
        return cls(np.array(starts).repeat(n, axis=1), np.array([now % 86_400.0]).repeat(n))

    def only(self, i: int) -> LocalTimes:
        """Return those of one customer."""
        return LocalTimes(np.ascontiguousarray(self.starts[:, i : i + 1]), self.seconds_of_day[i : i + 1])


@dataclass(frozen=True, slots=True)
class CustomerBatch:
    """What was gathered about n customers for one channel.

    Attributes:
        facts: (layout.width, n), NaN where missing or stale.
        view_times: (n_views, n) event timestamps, Unix seconds, NaN where never written.
        is_known: (n,) False where the feature store has no fact at all.
        consents: (n,) purpose -> 1 granted, 0 refused, on the request's channel; a purpose that is absent is unknown.
        paused: (scope, id) of the switches in force, see `switches.SCOPES`.
        is_loggable: False where the decision cannot be logged or caps cannot be reserved.
        time_zones: (n,) each customer's own IANA zone, "" where none is known; () where none was gathered.
        local: The customers' calendars as of the decision time; None: all live by UTC.
    """

    customer_ids: tuple[str, ...]
    facts: Floats
    view_times: Floats
    is_known: Bools
    consents: tuple[Mapping[str, int], ...]
    contacts: Contacts
    paused: frozenset[tuple[str, str]] = frozenset()
    is_loggable: bool = True
    time_zones: tuple[str, ...] = ()
    local: LocalTimes | None = None

    def only(self, i: int) -> CustomerBatch:
        """Return customer `i` as a batch of one."""
        one, where = slice(i, i + 1), np.flatnonzero(self.contacts.customers == i)
        contacts = Contacts(
            np.zeros(len(where), dtype=np.int64),
            self.contacts.times[where],
            tuple(self.contacts.kinds[j] for j in where),
            tuple(self.contacts.decision_ids[j] for j in where),
            tuple(self.contacts.showings[j] for j in where),
        )
        return replace(
            self,
            customer_ids=self.customer_ids[one],
            facts=np.ascontiguousarray(self.facts[:, one]),
            view_times=np.ascontiguousarray(self.view_times[:, one]),
            is_known=self.is_known[one],
            consents=self.consents[one],
            contacts=contacts,
            time_zones=self.time_zones[one],
            local=self.local.only(i) if self.local is not None else None,
        )


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for all customers of a batch.

    Attributes:
        placements: (placement id, count) in order; empty = every placement of the channel with its slots.
        context: declared field -> number, or the code of its text.
        issues: Restrict to these; empty = all.
        limit: At most so many actions over all placements.
        locale: What the texts are asked in, e.g. `pt-BR`; "" for the catalogue's default.
    """

    channel: str
    placements: tuple[tuple[str, int], ...] = ()
    context: Mapping[str, float] = field(default_factory=dict)
    issues: tuple[str, ...] = ()
    limit: int = 100
    locale: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What became of each action since its model was made, decayed as of the decision; equal to itself alone.

    Attributes:
        positives: (n_actions,) outcomes of the action's type `positive`.
        expected: (n_actions,) how many there should have been: the sum of the propensities of what was shown.
    """

    positives: Floats
    expected: Floats

    @classmethod
    def none(cls, n_actions: int) -> Evidence:
        """Return the evidence of nothing shown yet."""
        return cls(np.zeros(n_actions), np.zeros(n_actions))


class Scorer(Protocol):
    """Gives the core P(positive | shown). Made from a bundle for one catalogue.

    Attributes:
        version: Model version and digest as they go into answers and the log.
        evidence: (n_actions,) how many positives stand behind the action's propensity; 0 where there is no model.
        sources: (n_actions,) what a propensity is: `model`; `group`, where the action is scored as any other of its
            group, having too few positives of its own; or `prior`, the catalogue's assumption.
        attributable: (n_actions,) share of the responses to the shown actions of its issue that would not have come
            without showing; 1 where that is not known.
    """

    version: str
    evidence: Floats
    sources: tuple[str, ...]
    attributable: Floats

    def score(
        self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float, channel: str
    ) -> Floats:
        """Score pairs of customer and action.

        Args:
            as_of: `Columns.as_of(batch.facts, now)`.
            customers: (n_pairs,) positions in the batch.
            actions: (n_pairs,) positions in `Catalogue.actions`; only actions whose scoring is MODEL or RISK.
            channel: Where all of them would be shown.

        Returns:
            (n_pairs,) calibrated probabilities: of a positive for MODEL, of silence for RISK; NaN where the model
            knows nothing of the action's issue, and the catalogue's prior stands.
        """

    def uplift(
        self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float, channel: str
    ) -> Floats | None:
        """Estimate what showing changes: P(positive | shown) - P(positive | not shown), pairs as in `score`.

        Returns:
            (n_pairs,), NaN where no significant effect of the action is known; None where there is no effect model.
        """


class Choice(NamedTuple):
    """One placed action.

    Attributes:
        candidate: Position in `Decisions.candidates`.
        selection_probability: P(this candidate in this slot), given the arm and what was placed before.
    """

    candidate: int
    placement: str
    selection_probability: float


@dataclass(slots=True, eq=False)
class Decisions:
    """Decisions for n customers over m candidates (the treatments of the channel), columnar.

    The engine fills them in as it goes; whoever gets them from it only reads.

    Attributes:
        candidates: (m,) positions in `Catalogue.treatments`.
        actions: (m,) positions in `Catalogue.actions`.
        stages: (n, m) int8 `Stage`.
        reasons: (n, m) int32, position in `Catalogue.rules` (engagement stages) or `CapTable.policies` (contact
            policy), else -1.
        propensities, priorities: (n, m), NaN where the candidate never came so far.
        chosen: for each customer, what is shown, in order.
        withheld: for each customer of the hold-out, the marketing that would have been shown; else empty.
        arms: (n,) arms of the first layer. arm_probabilities: (n,) products over the layers.
        layers: (n,) for each customer the (layer, arm, share) of every layer of the experiment.
        as_of: (n_columns + 1, n) the columns the decision was made on.
        extras: (n_extras, n) context fields and pseudo columns, in the order of `CompiledCatalogue.extras`.
        room: (n, n_counters) what the contact policy leaves for this answer, in the order of
            `CompiledCatalogue.caps.counters`: 0 where it excludes, to `contact_policy.UNBOUND`.
        distributions: (n_slots, n, m) P(candidate in the slot), given the arm and what was placed before; the rows of
            a slot that stayed empty are zero. Of the hold-out: of what would have been shown.
        uplifts: (n, m) what the priority was made of instead of the propensity, NaN where it was not; empty
            where no issue is arbitrated on uplift.
        estimates: (n, m) what the priority was made of; empty where that is the propensity everywhere.
        evidence: What came in since the model was made, as `decide` got it.
        strengths, shifts: (n, m), or (1, m) for all customers: what stands behind the propensities, see
            `evidence.Standing`.
    """

    now: float
    request: Request
    candidates: Ints
    actions: Ints
    stages: NDArray[np.int8]
    reasons: NDArray[np.int32]
    propensities: Floats
    priorities: Floats
    chosen: tuple[tuple[Choice, ...], ...]
    withheld: tuple[tuple[Choice, ...], ...]
    arms: tuple[str, ...]
    arm_probabilities: Floats
    as_of: Floats
    extras: Floats = field(default_factory=lambda: np.empty((0, 0)))
    room: Ints = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))
    distributions: Floats = field(default_factory=lambda: np.empty((0, 0, 0)))
    uplifts: Floats = field(default_factory=lambda: np.empty((0, 0)))
    estimates: Floats = field(default_factory=lambda: np.empty((0, 0)))
    evidence: Evidence = field(default_factory=lambda: Evidence.none(0))
    strengths: Floats = field(default_factory=lambda: np.empty((0, 0)))
    shifts: Floats = field(default_factory=lambda: np.empty((0, 0)))
    layers: tuple[tuple[tuple[str, str, float], ...], ...] = ()

    def take(self, rows: Sequence[int] | Ints) -> Decisions:
        """Return the decisions of some of the customers."""
        which = np.asarray(rows, dtype=np.int64)
        some: dict[str, Any] = {name: getattr(self, name)[which] for name in _BY_CUSTOMER if getattr(self, name).size}
        some.update((name, getattr(self, name)[which]) for name in _OR_FOR_ALL if len(getattr(self, name)) > 1)
        for name in ("chosen", "withheld", "arms", "layers"):
            some[name] = tuple(getattr(self, name)[i] for i in rows) if getattr(self, name) else ()
        for name in ("as_of", "extras", "distributions"):
            some[name] = getattr(self, name)[:, which] if getattr(self, name).size else getattr(self, name)
        return replace(self, **some)


_BY_CUSTOMER = (
    "stages", "reasons", "propensities", "priorities", "arm_probabilities", "room", "uplifts", "estimates",
)  # fmt: skip
"""Arrays of `Decisions` whose first axis is the customer."""
_OR_FOR_ALL = ("strengths", "shifts")
"""The same, but for that one row may stand for all customers."""
