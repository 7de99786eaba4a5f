"""The table of responses: one row a treatment that was shown, with what came of it; what reports and models read.

Joins decisions, outcomes and events of the lake, and lets `service.decision.attribution` say what counts. Decides what
"shown" means: an impression was told, or a click, accept, reject or conversion, which imply one. It must not know how a
model is trained. The terms of an action (window, success, default outcome, positive) are those of the catalogue that
the decision was made with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.events import SUCCESS_EVENTS, successes
from service.catalogue.loader import load_catalogue
from service.decision.attribution import NONE, REJECT, Responses, Shown, Successes, Told, respond
from service.decision.model import Catalogue
from service.lake_files import files
from training.sources import connect

CatalogueOf = Callable[[str], Catalogue]
DAY = 86_400.0
BATCH = 10_000

_PLACED = """
SELECT d.decision_id, d.customer_id, d.decision_time, d.channel, d.arm, d.arm_probability, d.catalogue_version,
  d.model_version, d.reselected, len(d.degraded_reasons) > 0 AS is_degraded, p.placed.placement AS placement,
  p.rank::INT AS rank, p.placed.treatment_id AS treatment_id,
  p.placed.selection_probability AS selection_probability, d.propensities[p.placed.candidate + 1] AS propensity,
  d.priorities[p.placed.candidate + 1] AS priority
FROM decisions d, (SELECT unnest(d.{column}) AS placed, generate_subscripts(d.{column}, 1) AS rank) p
WHERE NOT d.dry_run AND d.decision_time >= make_timestamptz(?) AND d.decision_time < make_timestamptz(?)
"""
_WITH_TERMS = """SELECT p.*, t.* EXCLUDE (catalogue_version, treatment_id)
FROM placed p JOIN terms t USING (catalogue_version, treatment_id)"""
_SHOWN = f"""
CREATE TEMP TABLE shown AS
WITH placed AS ({_PLACED.format(column="chosen")}), said AS (
  SELECT decision_id, action_id, min(occurred_at) FILTER (type = 'impression') AS impressed_at,
    min(occurred_at) AS first_at FROM outcomes GROUP BY ALL)
SELECT row_number() OVER (ORDER BY w.decision_time, w.decision_id, w.rank) - 1 AS place, w.*,
  coalesce(s.impressed_at, s.first_at) AS shown_at, s.impressed_at IS NULL AS is_inferred, false AS is_withheld
FROM ({_WITH_TERMS}) w JOIN said s USING (decision_id, action_id)
"""
_WITHHELD = f"""
CREATE TEMP TABLE shown AS
WITH placed AS ({_PLACED.format(column="withheld")})
SELECT row_number() OVER (ORDER BY w.decision_time, w.decision_id, w.rank) - 1 AS place, w.*,
  w.decision_time AS shown_at, false AS is_inferred, true AS is_withheld FROM ({_WITH_TERMS}) w
"""
_TOLD = """
SELECT s.place, o.type = s.positive AS is_positive, epoch_us(o.occurred_at) / 1e6 AS seconds,
  epoch_us(o.logged_at) / 1e6 AS heard, o.value
FROM outcomes o JOIN shown s USING (decision_id, action_id) WHERE o.type IN (s.positive, 'reject')
ORDER BY s.place, seconds, o.outcome_id
"""
_EVENTS = f"""
SELECT customer_id, type, epoch_us(occurred_at) / 1e6 AS seconds, epoch_us(logged_at) / 1e6 AS heard, properties
FROM events WHERE customer_id IN (SELECT customer_id FROM shown WHERE rule <> '') AND type IN {SUCCESS_EVENTS}
  AND occurred_at >= (SELECT min(shown_at) FROM shown)
  AND occurred_at < (SELECT max(shown_at + to_seconds(window_seconds)) FROM shown)
ORDER BY customer_id, seconds, event_id
"""
_COLUMNS = (
    "customer_id", "decision_id", "decision_time", "channel", "placement", "rank", "action_id", "treatment_id", "issue",
    "group", "arm", "arm_probability", "selection_probability", "propensity", "priority", "catalogue_version",
    "model_version", "reselected", "is_degraded", "is_withheld", "is_inferred", "shown_at",
)  # fmt: skip


def responses(
    lake: Path,
    since: float,
    until: float,
    catalogue_of: CatalogueOf,
    *,
    as_of: float | None = None,
    withheld: bool = False,
) -> pa.Table:
    """Return what came of the treatments that were shown by the decisions of a time.

    Args:
        lake: Root of the lake.
        since, until: Decision times, Unix seconds; `until` excluded. Outcomes and events of any time are read.
        catalogue_of: Catalogue version -> catalogue, e.g. of `catalogues`.
        as_of: Windows that end later are open; by default `until`.
        withheld: The treatments that hold-out customers would have been shown, instead: only events answer them.

    Returns:
        One row a treatment, by decision time: identity, arm and probabilities, `shown_at`, `window_end`, `response` (1,
        0, or null where there is none), `response_at`, `value`, and the flags of `attribution.Responses`.
    """
    with connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        for table in ("decisions", "outcomes", "events"):
            _open_table(con, table, files(lake, table))
        versions = [v for (v,) in con.execute("SELECT DISTINCT catalogue_version FROM decisions").fetchall()]
        con.register("terms", _terms(versions, catalogue_of))
        con.execute(_WITHHELD if withheld else _SHOWN, [round(since * 1e6), round(until * 1e6)])
        return _respond(con, until if as_of is None else as_of, withheld=withheld)


def catalogues(folder: Path, current: Path) -> CatalogueOf:
    """Return a way from catalogue versions to catalogues: the one kept under that version, else the current one."""
    found: dict[str, Catalogue] = {}

    def catalogue_of(version: str) -> Catalogue:
        if version not in found:
            kept = folder / f"{version}.yaml"
            found[version] = load_catalogue(kept if kept.is_file() else current)
        return found[version]

    return catalogue_of


def summary(table: pa.Table) -> str:
    """Say in one line what a table of responses holds."""
    response = np.ma.filled(np.ma.masked_invalid(table["response"].to_numpy()), -1.0)
    flags = {name: int(table[name].to_numpy().sum()) for name in ("is_open", "is_late", "is_assisted")}
    return (
        f"{table.num_rows:,} treatments, {int((response == 1).sum()):,} positive ({flags['is_late']:,} told late), "
        f"{int((response == 0).sum()):,} negative, {flags['is_open']:,} still open, {flags['is_assisted']:,} assisted"
    )


_EMPTY = {
    "decisions": "decision_id VARCHAR, customer_id VARCHAR, decision_time TIMESTAMPTZ, channel VARCHAR, arm VARCHAR, "
    "arm_probability DOUBLE, catalogue_version VARCHAR, model_version VARCHAR, reselected BOOLEAN, dry_run BOOLEAN, "
    "degraded_reasons VARCHAR[], propensities DOUBLE[], priorities DOUBLE[], "
    "chosen STRUCT(candidate INT, treatment_id VARCHAR, placement VARCHAR, selection_probability DOUBLE)[], "
    "withheld STRUCT(candidate INT, treatment_id VARCHAR, placement VARCHAR, selection_probability DOUBLE)[]",
    "outcomes": "outcome_id VARCHAR, decision_id VARCHAR, action_id VARCHAR, type VARCHAR, value DOUBLE, "
    "occurred_at TIMESTAMPTZ, logged_at TIMESTAMPTZ",
    "events": "event_id VARCHAR, customer_id VARCHAR, type VARCHAR, occurred_at TIMESTAMPTZ, logged_at TIMESTAMPTZ, "
    "properties VARCHAR",
}
"""Columns of a table of which nothing was logged yet."""


def _open_table(con: duckdb.DuckDBPyConnection, table: str, found: Sequence[str]) -> None:
    if found:
        con.execute(f"CREATE TEMP VIEW {table} AS SELECT * FROM read_parquet({found!r}, union_by_name = true)")
    else:
        con.execute(f"CREATE TEMP TABLE {table} ({_EMPTY[table]})")


def _terms(versions: Iterable[str], catalogue_of: CatalogueOf) -> pa.Table:
    rows = []
    for version in versions:
        catalogue = catalogue_of(version)
        actions = {action.id: action for action in catalogue.actions}
        for treatment in catalogue.treatments:
            action = actions[treatment.action_id]
            is_by_event = action.positive == "conversion"
            rows.append(
                {
                    "catalogue_version": version,
                    "treatment_id": treatment.id,
                    "action_id": action.id,
                    "issue": action.issue,
                    "group": action.group,
                    "window_seconds": action.window_days * DAY,
                    "rule": action.success_rule if is_by_event else "",
                    "positive": action.positive,
                    "default_outcome": action.default_outcome,
                }
            )
    texts = ("catalogue_version", "treatment_id", "action_id", "issue", "group", "rule", "positive", "default_outcome")
    schema = pa.schema([*((name, pa.string()) for name in texts), ("window_seconds", pa.float64())])
    return pa.Table.from_pylist(rows, schema=schema)


@dataclass
class _Codes:
    """Texts as small numbers."""

    numbers: dict[str, int]

    def of(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))

    def all(self, texts: NDArray[Any]) -> NDArray[np.int64]:
        return np.array([self.of(text) for text in texts.tolist()], dtype=np.int64)


def _respond(con: duckdb.DuckDBPyConnection, as_of: float, *, withheld: bool) -> pa.Table:
    found = con.execute(
        "SELECT customer_id, rule, epoch_us(shown_at) / 1e6 AS seconds, window_seconds, default_outcome "
        "FROM shown ORDER BY place"
    ).fetchnumpy()
    customers, rules = _Codes({}), _Codes({"": -1})
    times, windows = np.asarray(found["seconds"], np.float64), np.asarray(found["window_seconds"], np.float64)
    shown = Shown(
        customers.all(found["customer_id"]),
        rules.all(found["rule"]),
        times,
        windows,
        np.where(found["default_outcome"] == "none", NONE, REJECT),
    )
    answers = respond(shown, _told(con, withheld=withheld), _successes(con, customers, rules), as_of)
    columns = ", ".join(f'"{name}"' for name in _COLUMNS)
    table = con.sql(f"SELECT {columns} FROM shown ORDER BY place").to_arrow_table()
    for name, column in _answered(answers, times + windows).items():
        table = table.append_column(name, column)
    return table


def _told(con: duckdb.DuckDBPyConnection, *, withheld: bool) -> Told:
    told = con.execute(_TOLD + (" LIMIT 0" if withheld else "")).fetchnumpy()
    values = np.ma.filled(np.ma.asarray(told["value"], np.float64), np.nan)
    return Told(
        np.asarray(told["place"], np.int64),
        np.asarray(told["is_positive"], np.bool_),
        np.asarray(told["seconds"], np.float64),
        np.asarray(told["heard"], np.float64),
        values,
    )


def _successes(con: duckdb.DuckDBPyConnection, customers: _Codes, rules: _Codes) -> Successes:
    rows: list[tuple[int, int, float, float, float]] = []
    found = con.execute(_EVENTS)
    while batch := found.fetchmany(BATCH):
        for customer, kind, at, heard, properties in batch:
            for rule, value in successes(kind, json.loads(properties)).items():
                if rule in rules.numbers:
                    worth = np.nan if value is None else value
                    rows.append((customers.of(customer), rules.of(rule), at, heard, worth))
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return Successes(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], table[:, 3], table[:, 4])


def _answered(answers: Responses, window_ends: NDArray[np.float64]) -> dict[str, pa.Array]:
    moment = pa.timestamp("us", tz="UTC")

    def moments(seconds: NDArray[np.float64]) -> pa.Array:
        is_there = ~np.isnan(seconds)
        return pa.array(np.round(np.where(is_there, seconds, 0) * 1e6).astype(np.int64), moment, mask=~is_there)

    return {
        "window_end": moments(window_ends),
        "response": pa.array(answers.responses, pa.float64(), from_pandas=True),
        "response_at": moments(answers.times),
        "value": pa.array(answers.values, pa.float64()),
        "is_late": pa.array(answers.is_late),
        "is_after_window": pa.array(answers.is_after_window),
        "is_assisted": pa.array(answers.is_assisted),
        "is_default": pa.array(answers.is_default),
        "is_open": pa.array(answers.is_open),
    }
