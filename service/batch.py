"""Many customers in chunks: the twin of `online`. The same gather, core and record; the answer is a Parquet file."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.decision import record as log
from service.decision.model import Evidence, Request
from service.online import Ask, Decided, NothingLoaded, Serving, decide_all, record_one, reselect, without_log
from service.ports import Clock, CustomerState, StoreUnavailable

CHUNK = 256
GATHER_DEADLINE_SECONDS, RECORD_DEADLINE_SECONDS = 10.0, 1.0
SCHEMA = pa.schema(
    [
        ("decision_id", pa.string()),
        ("decision_time", pa.timestamp("us", "UTC")),
        ("customer_id", pa.string()),
        ("channel", pa.string()),
        ("arm", pa.string()),
        ("arm_probability", pa.float64()),
        ("rank", pa.int32()),
        ("action_id", pa.string()),
        ("treatment_id", pa.string()),
        ("placement", pa.string()),
        ("issue", pa.string()),
        ("priority", pa.float64()),
        ("propensity", pa.float64()),
        ("value", pa.float64()),
        ("selection_probability", pa.float64()),
        ("degraded_reasons", pa.list_(pa.string())),
        ("catalogue_version", pa.string()),
        ("model_version", pa.string()),
    ]
)
"""One row an action shown; a customer to whom nothing is shown has one row with rank 0 and no action."""


@dataclass(frozen=True)
class Batch:
    """Decides for many customers.

    Attributes:
        run_id: Decision ids, and so all draws, follow from it and the customer: the same run again is the same run.
        evidence: What came in since the model was made, the same for the whole run.
        commit: Reserve caps and log every decision, as a channel's request would; else nothing is written but the file.
    """

    state: CustomerState
    clock: Clock
    serving: Serving | None
    run_id: str
    commit: bool = False
    evidence: Evidence | None = None

    async def run(self, customer_ids: Sequence[str], request: Request, out: Path) -> AsyncIterator[int]:
        """Write the decisions of all customers to `out` (atomically), yielding how many are done after each chunk.

        Raises:
            NothingLoaded: no bundle. StoreUnavailable: facts or consents could not be read; nothing is written.
        """
        if self.serving is None:
            raise NothingLoaded
        now = self.clock.now()
        partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
                for start in range(0, len(customer_ids), CHUNK):
                    chunk = customer_ids[start : start + CHUNK]
                    rows = [row async for decided in self.decide(chunk, request, now) for row in rows_of(decided)]
                    writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                    yield start + len(chunk)
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)

    async def decide(self, customer_ids: Sequence[str], request: Request, now: float) -> AsyncIterator[Decided]:
        """Decide for one chunk as one batch of the core; yield each customer's decision."""
        serving = self.serving
        if serving is None:
            raise NothingLoaded
        ids = [log.decision_id_from(log.derived_token(self.run_id, c), c) for c in customer_ids]
        gathered = await self.state.gather(
            serving.bundle.plan, customer_ids, request.channel, now, GATHER_DEADLINE_SECONDS
        )
        lost = {"features_unavailable", "state_rebuilding", "state_unavailable"} & set(gathered.degraded_reasons)
        if lost:
            raise StoreUnavailable(sorted(lost)[0], "the store did not answer; nothing was written, run it again")
        for decided in decide_all(serving, gathered, request, now, ids, self.evidence):
            yield await self._record(decided, request) if self.commit else decided

    async def _record(self, decided: Decided, request: Request) -> Decided:
        ask = Ask(decided.customer_id, request)
        while True:
            try:
                recorded = await record_one(self.state, decided, ask, None, RECORD_DEADLINE_SECONDS)
            except StoreUnavailable as error:
                return without_log(decided, request, error.reason)
            if not recorded.refused:
                return decided
            decided = reselect(decided, recorded.refused, recorded.denied_by)


def rows_of(decided: Decided) -> Iterator[dict[str, Any]]:
    """Yield the file's rows of one decision."""
    decisions, i = decided.decisions, decided.customer
    catalogue = decided.serving.catalogue.catalogue
    head = {
        "decision_id": decided.decision_id,
        "decision_time": int(decisions.now * 1e6),
        "customer_id": decided.customer_id,
        "channel": decisions.request.channel,
        "arm": decisions.arms[i],
        "arm_probability": float(decisions.arm_probabilities[i]),
        "degraded_reasons": list(decided.degraded_reasons),
        "catalogue_version": catalogue.version,
        "model_version": decided.model.scorer.version,
    }
    if not decisions.chosen[i]:
        yield {**head, "rank": 0}
    for rank, choice in enumerate(decisions.chosen[i], start=1):
        action = catalogue.actions[decisions.actions[choice.candidate]]
        yield {
            **head,
            "rank": rank,
            "action_id": action.id,
            "treatment_id": catalogue.treatments[decisions.candidates[choice.candidate]].id,
            "placement": choice.placement,
            "issue": action.issue,
            "priority": float(decisions.priorities[i, choice.candidate]),
            "propensity": float(decisions.propensities[i, choice.candidate]),
            "value": action.value,
            "selection_probability": choice.selection_probability,
        }
