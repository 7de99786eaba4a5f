"""The log as SQL views over the lake's files of this moment: the tables as they are, and the candidates of decisions.

Decides what each view shows; one SELECT at a time may be asked, and nothing but the lake is in reach of it. Needs
DuckDB, which serving processes do not load.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from service.adapters.lake_tables import SCHEMAS
from service.catalogue.loader import CatalogueError, load_catalogue
from service.decision.model import Stage
from service.lake_files import LogError, files

VIEWS = ("decisions", "candidates", "outcomes", "events", "switches", "shadows")

_CANDIDATES = """
CREATE VIEW candidates AS
WITH each AS (
  SELECT *, unnest(generate_series(1, len(treatment_ids))) AS position FROM decisions),
named AS (
  SELECT decision_id, decision_time, customer_id, channel, arm, catalogue_version, dry_run, position,
    treatment_ids[position] AS treatment_id, stages[position] AS stage_code, reasons[position] AS reason_code,
    propensities[position] AS propensity, priorities[position] AS priority, uplifts[position] AS uplift,
    list_position(list_transform(chosen, lambda c: c.candidate), position - 1) AS rank, chosen,
    partition, journal_id, logged_at
  FROM each)
SELECT n.* EXCLUDE (chosen, stage_code, position), s.stage, t.action_id, t.issue, t."group", t."value",
  t.context_weight, t.lever, chosen[rank].placement AS placement,
  chosen[rank].selection_probability AS selection_probability
FROM named n JOIN stages s ON s.code = n.stage_code
LEFT JOIN treatments t ON t.version = n.catalogue_version AND t.treatment_id = n.treatment_id
"""


def open_log(lake: Path, catalogues: Path) -> duckdb.DuckDBPyConnection:
    """Open the views over the files of this moment; nothing can be written and no other file read.

    Args:
        catalogues: The catalogues that were served, by version: the candidates' actions, issues and values.
    """
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    reached = [str(lake.resolve()) + "/"]
    for table, schema in SCHEMAS.items():
        found = files(lake.resolve(), table)
        con.register(f"no_{table}", schema.empty_table())
        stored = f"UNION ALL BY NAME SELECT * FROM read_parquet({found}, union_by_name=true)" if found else ""
        con.execute(f"CREATE VIEW {table} AS SELECT * FROM no_{table} {stored}")
    con.execute("CREATE TABLE stages (code INTEGER, stage VARCHAR)")
    con.executemany("INSERT INTO stages VALUES (?, ?)", [(int(stage), stage.name.lower()) for stage in Stage])
    con.execute(
        "CREATE TABLE treatments (version VARCHAR, treatment_id VARCHAR, action_id VARCHAR, issue VARCHAR, "
        '"group" VARCHAR, "value" DOUBLE, context_weight DOUBLE, lever DOUBLE)'
    )
    if rows := _treatments(catalogues):
        con.executemany("INSERT INTO treatments VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    con.execute(_CANDIDATES)
    con.execute(f"SET allowed_directories = {reached}")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
    return con


def ask(con: duckdb.DuckDBPyConnection, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the names and rows of one SELECT.

    Raises:
        LogError: It is no SELECT, more than one, or DuckDB refuses it.
    """
    try:
        statements = con.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise LogError(
                "the log is asked by one SELECT at a time and never written; its views are " + ", ".join(VIEWS)
            )
        answer = con.execute(statements[0])
        return [name for name, *_ in answer.description or ()], answer.fetchall()
    except duckdb.Error as error:
        raise LogError(f"this query cannot be answered: {str(error).splitlines()[0]}") from None


def _treatments(catalogues: Path) -> Sequence[tuple[Any, ...]]:
    rows = []
    for path in sorted(catalogues.glob("*.yaml")):
        try:
            catalogue = load_catalogue(path)
        except CatalogueError:  # of an older release: its candidates stay without action
            continue
        actions = {action.id: action for action in catalogue.actions}
        for treatment in catalogue.treatments:
            action = actions[treatment.action_id]
            rows.append(
                (
                    path.stem,
                    treatment.id,
                    action.id,
                    action.issue,
                    action.group,
                    action.value,
                    catalogue.context_weights.get((treatment.channel, action.issue), 1.0),
                    action.lever,
                )
            )
    return rows
