"""What the service needs of the world, as Protocols, and the errors that adapters raise in place of their drivers'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from service.decision.compiled import CompiledCatalogue
from service.decision.model import CustomerBatch, Evidence, Floats, Scorer
from service.decision.record import DecisionRow


class StoreUnavailable(Exception):
    """The store did not answer in time or not at all; `reason` is one of the closed list."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class Clock(Protocol):
    """The one source of `now`."""

    def now(self) -> float:
        """Return Unix seconds UTC."""


@dataclass(frozen=True, slots=True)
class FactPlan:
    """Where a customer's facts lie in Feast's Redis layout, resolved when the bundle was made.

    Attributes:
        key_prefix, key_suffix: A customer's key is prefix + uint32 little-endian length + utf-8 id + suffix.
        fields: hash field -> fact name. timestamps: hash field -> view name.
    """

    key_prefix: bytes
    key_suffix: bytes
    fields: Mapping[bytes, str]
    timestamps: Mapping[bytes, str]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What gather found, and what it could not.

    Attributes:
        reasons: For each customer why less is known than could be, of the closed list, sorted.
    """

    batch: CustomerBatch
    reasons: tuple[tuple[str, ...], ...]

    @property
    def degraded_reasons(self) -> tuple[str, ...]:
        """Return the reasons of all customers, each once, sorted."""
        return tuple(sorted({reason for reasons in self.reasons for reason in reasons}))


class Offer(NamedTuple):
    """One shown action. A cap of scope `all` counts every one of them, of scope `marketing` those that need consent.

    Attributes:
        placement: Where it stands; "" where that does not matter to any cap.
        propensity: How many positives are expected of showing it.
        half_life_days: After this long an outcome counts half as evidence.
    """

    action_id: str
    issue: str
    group: str
    treatment_id: str
    is_marketing: bool = True
    placement: str = ""
    propensity: float = 0.0
    half_life_days: float = 28.0


@dataclass(frozen=True, slots=True)
class CapCheck:
    """A cap as the atomic script checks it: as `model.Cap`, but for its window."""

    id: str
    scope: str
    scope_id: str
    counted: str
    limit: int
    channels: tuple[str, ...] = ()
    placements: tuple[str, ...] = ()
    unit: str = "action"


@dataclass(frozen=True, slots=True, eq=False)
class CapTerms:
    """All caps that a channel's offers are checked against: one object for all decisions of a catalogue and channel.

    Attributes:
        reservations: channel -> seconds that a decision without an impression counts as one, where not the default.
    """

    checks: tuple[CapCheck, ...] = ()
    reservations: Mapping[str, float] = field(default_factory=dict)


NO_CAPS = CapTerms()


@dataclass(frozen=True, slots=True)
class Caps:
    """The caps of one decision, their windows resolved to moments.

    Attributes:
        since: Contacts after that moment count, one for each of the terms' checks.
    """

    terms: CapTerms = NO_CAPS
    since: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a record call.

    Attributes:
        refused: Actions whose cap was used up meanwhile; then nothing was reserved and nothing logged.
        denied_by: The cap of each of these.
        repeat: The answer of an earlier decision under the same id, to be given again; else None.
        conflict: The same id stood for another request.
    """

    refused: tuple[str, ...] = ()
    denied_by: tuple[str, ...] = ()
    repeat: bytes | None = None
    conflict: bool = False


class CustomerState(Protocol):
    """Facts, contacts, consent and switches of customers, and the decision log."""

    async def gather(
        self, plan: FactPlan, customer_ids: Sequence[str], channel: str, now: float, deadline_seconds: float
    ) -> Gathered:
        """Read all that a decision needs: one pipeline, one deadline. Never raises: what is not there is degraded."""

    async def record(
        self,
        row: DecisionRow,
        offers: Sequence[Offer],
        caps: Caps,
        *,
        answer: bytes | None,
        request_digest: str,
        deadline_seconds: float,
    ) -> Recorded:
        """Check all caps, reserve all offers and append the row to the journal: all or nothing, once for a decision id.

        Args:
            answer: Kept for a repeat under the same Idempotency-Key; None where no such key was sent.

        Raises:
            StoreUnavailable: "log_unavailable"; whether it was written is then unknown, and a repeat is harmless.
        """

    async def find_answer(self, decision_id: str) -> tuple[str, bytes] | None:
        """Return (request digest, answer) kept for a decision made under an Idempotency-Key."""

    async def contacts_of(self, customer_id: str, now: float) -> Mapping[str, Any]:
        """Return consents, time zone and contacts for `GET /v1/customers/{id}`. Raises StoreUnavailable."""

    async def set_switch(self, scope: str, scope_id: str, *, paused: bool, who: str, why: str, now: float) -> None:
        """Pause or resume; the next decision of every process obeys. Raises StoreUnavailable."""

    async def switches(self) -> Sequence[Mapping[str, Any]]:
        """Return what is paused: scope, id, who, why and the moment. Raises StoreUnavailable."""

    async def ping(self) -> bool:
        """Say whether the store answers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A validated outcome.

    Attributes:
        body_digest: Of what the caller sent, before defaults: what tells a repeat from other content under the same id.
        flags: `clock_skew` where `occurred_at` lay ahead and was set to now; `late` where it lay far back.
    """

    outcome_id: str
    decision_id: str
    action_id: str
    type: str
    value: float | None
    occurred_at: float
    body_digest: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """A validated event; `properties` as the fold of `features.facts` takes them.

    Attributes:
        body_digest, flags: As of an `Outcome`.
    """

    event_id: str
    customer_id: str
    type: str
    occurred_at: float
    properties: Mapping[str, Any]
    body_digest: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the atomic script answered for one outcome or event.

    Attributes:
        status: accepted | duplicate | conflict (same id, other content) | orphan (decision unknown, parked) |
            foreign_action (the action was not in the decision; nothing stored) | invalid (nothing stored; `detail`
            is `field: what is wrong`) | erased (the customer is to be forgotten; nothing stored).
        flags: Of the item as it was taken: `clock_skew`, `late`.
    """

    id: str
    status: str
    detail: str | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Backlog:
    """Entries of the journal that are not in the lake yet, and the bytes that the store holds for them."""

    records: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Shadow:
    """What the challenger says of a decision that another model made; nobody was shown anything of it.

    Attributes:
        candidates: Those that were open, by their position in the decision's row. propensities: Of them.
        first_candidate: The one that it would have placed first, by the same draw; -1 for none.
    """

    decision_id: str
    customer_id: str
    decision_time: float
    model_version: str
    bundle_digest: str
    candidates: tuple[int, ...]
    propensities: tuple[float, ...]
    first_candidate: int


class ShadowLog(Protocol):
    """Where shadows are written down."""

    async def append(self, shadows: Sequence[Shadow]) -> int:
        """Append them to the journal but for customers who are to be forgotten; return how many were appended.

        Raises:
            StoreUnavailable: Which of them were appended is then unknown.
        """


class Journal(Protocol):
    """The partitioned log of decisions, outcomes and events. What is acknowledged is in it."""

    async def append_outcomes(self, outcomes: Sequence[Outcome], now: float) -> list[Receipt]:
        """Deduplicate, append, and move contacts and evidence: one atomic script each. Raises StoreUnavailable."""

    async def append_events(self, events: Sequence[Event], now: float) -> list[Receipt]:
        """Deduplicate, append, and apply consent: one atomic script each. Raises StoreUnavailable."""

    async def backlog(self) -> Backlog:
        """Count what the worker has not yet brought into the lake. Raises StoreUnavailable."""


class EvidenceSource(Protocol):
    """What came in of every action since its model was made."""

    def of(self, catalogue: CompiledCatalogue) -> Evidence:
        """Return it for a catalogue's actions, as of a moment ago; never waits."""


class DecisionLog(Protocol):
    """The decisions that were logged, one by one."""

    async def find(self, decision_id: str) -> DecisionRow | None:
        """Return the row of a decision, or None where there is none of that id. Raises StoreUnavailable."""


class Lake(Protocol):
    """Parquet files of decisions, outcomes, events: each record exactly once."""

    def last_id(self, partition: int) -> str:
        """Return the id of the last journal entry of the partition that is in the lake; "0-0" for none."""

    def write(self, partition: int, entries: Sequence[tuple[str, str, bytes]]) -> None:
        """Write journal entries (id, kind, payload), each once; files are named by partition and first..last id."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """All that a serving process needs of one model version, loaded and checked.

    Attributes:
        model_version: e.g. `nba-propensity/3`. digest: of the bundle's manifest. features_version: of the contract.
    """

    model_version: str
    digest: str
    features_version: str
    plan: FactPlan
    make_scorer: Any
    """Callable: CompiledCatalogue -> Scorer."""

    def scorer_for(self, catalogue: Any) -> Scorer:
        """Bind the model to a compiled catalogue."""
        scorer: Scorer = self.make_scorer(catalogue)
        return scorer


class BundleSource(Protocol):
    """Where bundles come from."""

    def current(self) -> str | None:
        """Return the digest that should be served now, or None where there never was one."""

    def challenger(self) -> str | None:
        """Return the digest that should serve the challenger's arm now, or None where there is none."""

    def load(self, digest: str) -> Bundle:
        """Load, warm and check a bundle against its golden rows.

        Raises:
            BundleRefused: with the reason; the one in use goes on serving.
        """


class BundleRefused(Exception):
    """A bundle failed a check and must not serve."""


class ExplanationUnavailable(Exception):
    """There is no explanation now; the text says why."""


class Explainer(Protocol):
    """Contributions of model inputs to propensities; slow, never on the default path."""

    async def contributions(self, digest: str, rows: Floats, deadline_seconds: float) -> Floats:
        """Return what each input adds to the raw log-odds of each row, (n_rows, n_inputs + 1), the last the base.

        Args:
            digest: Of the bundle. rows: (n_rows, n_inputs).

        Raises:
            ExplanationUnavailable: It did not come in time, or cannot come.
        """

    async def close(self) -> None:
        """Let go of what explains."""
