"""Training rows from the decision log: what was shown, the facts as they were served, and what came of it.

Decides which answers are learned from: those whose response window is over, to treatments that were shown on whole
facts, of actions that a model scores. An issue needs positives and negatives enough to be learned, calibrated and
judged on its own log; until then the history speaks for it alone. Must not know how a model is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.contract import LAYOUT
from service.decision.bundle_scorer import LEAST_POSITIVES
from service.decision.model import Action, Scoring
from service.lake_files import files
from training.dataset import Dataset, build_dataset, seconds
from training.responses import CatalogueOf, responses
from training.sources import connect
from training.train import log_edges

Floats = NDArray[np.float64]

MOST_ROWS = 300_000
"""The newest so many answers are learned from: their facts are held in memory."""
LEAST_IN_SLICE = 20
"""Positives, and negatives, that an issue must have in each slice of its log."""
FAR = 4e9
_FACTS = """
SELECT decision_id, facts FROM read_parquet({files}, union_by_name=true)
WHERE is_known AND octet_length(facts) = {size} AND decision_id IN (SELECT decision_id FROM wanted)
"""


@dataclass(frozen=True)
class Log:
    """Where a decision log lies.

    Attributes:
        lake: Folder. catalogue_of: Catalogue version of the log -> catalogue.
    """

    lake: Path
    catalogue_of: CatalogueOf

    @property
    def extent(self) -> str:
        """Return a text that changes when the log grows."""
        found = [name for table in ("decisions", "outcomes", "events") for name in files(self.lake, table)]
        return f"{len(found)} {max(found, default='')}"


def log_dataset(log: Log, most_rows: int = MOST_ROWS) -> Dataset | None:
    """Return the answers of the log as rows that a model learns from, or None where no issue has enough of them."""
    rows = _enough(_answered(log, most_rows))
    if not rows.num_rows:
        return None
    facts = _facts_as_served(log, rows)
    has_facts = pc.is_in(rows["campaign_id"], pa.array(list(facts), pa.string()))
    rows = _enough(rows.filter(has_facts))
    if not rows.num_rows:
        return None
    at = dict(zip(zip(rows["customer_id"].to_pylist(), seconds(rows["moment"]).tolist(), strict=True),
                  rows["campaign_id"].to_pylist(), strict=True))  # fmt: skip

    def facts_of(customer_ids: Sequence[str], moments: Floats) -> Floats:
        served = [facts[at[pair]] for pair in zip(customer_ids, moments.tolist(), strict=True)]
        return np.ascontiguousarray(np.frombuffer(b"".join(served), "<f8").reshape(-1, LAYOUT.width).T)

    return build_dataset(rows, facts_of, texts={"action": _told_apart(rows), "channel": _named(rows["channel"])})


def _answered(log: Log, most_rows: int) -> pa.Table:
    """Return the newest answers that count, one a treatment, by decision time, with the columns of a dataset."""
    newest = _newest(log.lake)
    told = responses(log.lake, 0.0, FAR, log.catalogue_of, as_of=newest)
    whole = pc.and_(pc.invert(pc.or_(told["is_open"], told["is_degraded"])), pc.is_valid(told["response"]))
    told = told.filter(whole)
    actions = _actions_of(told, log.catalogue_of)
    told = told.filter(pa.array([action.scoring is Scoring.MODEL for action in actions], pa.bool_()))
    told = told.slice(max(told.num_rows - most_rows, 0))
    actions = _actions_of(told, log.catalogue_of)
    taken = ("customer_id", "issue", "group", "action_id", "channel", "arm", "arm_probability", "selection_probability")
    made = {
        "row_id": np.arange(told.num_rows),
        "moment": told["decision_time"].cast(pa.timestamp("us", tz="UTC")),
        "member": pa.array([action.member for action in actions], pa.string()),
        "campaign_type": pa.array([action.campaign_type or None for action in actions], pa.string()),
        "window_days": pa.array([action.window_days for action in actions], pa.float64()),
        "label": pc.greater(told["response"], 0.0),
        "campaign_id": told["decision_id"],
        "known_at": told["window_end"],
        "offer_coupons": pa.array([action.offer_coupons for action in actions], pa.float64(), from_pandas=True),
        "offer_breadth": pa.array([action.offer_breadth for action in actions], pa.float64(), from_pandas=True),
    }
    return pa.table({**made, **{name: told[name] for name in taken}})


def _newest(lake: Path) -> float:
    """Return when the last decision was made, Unix seconds: windows that end later are open."""
    found = files(lake, "decisions")
    if not found:
        return 0.0
    with connect() as con:
        return float(
            con.execute("SELECT max(epoch(decision_time)) FROM read_parquet(?)", [list(found)]).fetchall()[0][0] or 0
        )


def _actions_of(told: pa.Table, catalogue_of: CatalogueOf) -> list[Action]:
    kinds = zip(told["catalogue_version"].to_pylist(), told["action_id"].to_pylist(), strict=True)
    found: dict[tuple[str, str], Action] = {}
    actions = []
    for version, action_id in kinds:
        if (version, action_id) not in found:
            catalogue = catalogue_of(version)
            found[version, action_id] = catalogue.actions[catalogue.index[action_id]]
        actions.append(found[version, action_id])
    return actions


def _enough(rows: pa.Table) -> pa.Table:
    """Return the rows of the issues that have enough of both answers in each of their slices."""
    moments, labels = seconds(rows["moment"]), rows["label"].to_numpy(zero_copy_only=False)
    issues = rows["issue"].to_numpy(zero_copy_only=False)
    kept = np.zeros(len(labels), dtype=np.bool_)
    for issue in np.unique(issues.astype(np.str_)):
        own = issues == issue
        slices = np.searchsorted(log_edges(moments[own]), moments[own], side="right")
        counts = [np.bincount(slices[labels[own] == answer], minlength=3) for answer in (True, False)]
        kept |= own & bool((np.array(counts) >= LEAST_IN_SLICE).all())
    return rows.filter(pa.array(kept))


def _facts_as_served(log: Log, rows: pa.Table) -> dict[str, bytes]:
    """Return decision -> the facts it was made from, as they were logged."""
    with connect() as con:
        con.register("wanted", pa.table({"decision_id": rows["campaign_id"]}))
        query = _FACTS.format(files=list(files(log.lake, "decisions")), size=8 * LAYOUT.width)
        return {str(decision): bytes(facts) for decision, facts in con.execute(query).fetchall()}


def _told_apart(rows: pa.Table) -> tuple[str, ...]:
    """Return the actions with positives enough of their own, before any test slice, to be told apart by name."""
    moments, labels = seconds(rows["moment"]), rows["label"].to_numpy(zero_copy_only=False)
    issues, actions = (rows[name].to_numpy(zero_copy_only=False).astype(np.str_) for name in ("issue", "action_id"))
    seen = np.zeros(len(labels), dtype=np.bool_)
    for issue in np.unique(issues):
        own = issues == issue
        seen |= own & (moments < log_edges(moments[own])[1])
    names, counts = np.unique(actions[seen & labels], return_counts=True)
    return tuple(str(name) for name, count in zip(names, counts, strict=True) if count >= LEAST_POSITIVES)


def _named(column: pa.ChunkedArray) -> tuple[str, ...]:
    return tuple(sorted(set(column.to_pylist())))
