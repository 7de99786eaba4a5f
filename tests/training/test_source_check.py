"""An adopter's source tables: what is not as declared is told by table, column and row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from service.commands import app
from training import check_commands
from training.check_commands import EXAMPLE_TABLES
from training.findings import Finding, is_usable
from training.source_check import check_sources
from training.source_tables import DeclarationError, read_declaration
from training.sources import write_history

DECLARED = """
customers:
  columns: {customer_id: text, name: text}
  key: [customer_id]
visits:
  columns: {visit_id: integer, customer_id: text, at: moment, amount: number}
  key: [visit_id]
  required: [customer_id, at]
  references: {customer_id: customers.customer_id}
  moment: at
  gap_days: 5
"""
START = datetime(2026, 1, 1, 9, tzinfo=UTC)
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def visits(**changed: object) -> pa.Table:
    """Return 30 visits, 50 hours apart; a change is column -> {row from 0: value}."""
    columns = {
        "visit_id": list(range(30)),
        "customer_id": [f"{i % 3:03d}" for i in range(30)],
        "at": [START + timedelta(hours=50 * i) for i in range(30)],
        "amount": [float(i) for i in range(30)],
    }
    for name, values in changed.items():
        for row, value in values.items():  # type: ignore[attr-defined]
            columns[name][row] = value
    return pa.table(columns)


def checked(folder: Path, table: pa.Table) -> list[Finding]:
    (folder / "tables.yaml").write_text(DECLARED)
    (folder / "customers.csv").write_text("customer_id,name\n000,Ann\n001,Bob\n002,Cy\n")
    pq.write_table(table, folder / "visits.parquet")
    return check_sources(folder, now=NOW)


def test_tables_as_declared_pass(tmp_path: Path):
    """Parquet and CSV beside each other, ids with leading zeros as texts, have nothing wrong or doubtful."""
    assert {one.status for one in checked(tmp_path, visits())} == {"ok"}


@pytest.mark.parametrize(
    ("changed", "said", "rows"),
    [
        ({"customer_id": {4: None}}, "'customer_id' is missing", (5,)),
        ({"customer_id": {4: " "}}, "'customer_id' is missing", (5,)),
        ({"visit_id": {7: 3, 9: 3}}, "the key (visit_id) is repeated", (8, 10)),
        ({"customer_id": {2: "009"}}, "'customer_id' is not in customers.customer_id", (3,)),
        ({"at": {29: datetime(2031, 1, 1, tzinfo=UTC)}}, "'at' is in the future", (30,)),
        ({"at": {0: datetime(1970, 1, 1, tzinfo=UTC)}}, "'at' is before 1971", (1,)),
        ({"amount": {11: float("nan")}}, "'amount' is NaN or infinite", (12,)),
    ],
)
def test_each_fault_is_told_by_row(tmp_path: Path, changed: dict[str, object], said: str, rows: tuple[int, ...]):
    """Missing, repeated, orphaned and impossible values are told with the numbers of their rows."""
    found = [one for one in checked(tmp_path, visits(**changed)) if said in one.found]
    assert [(one.check, one.status, one.rows) for one in found] == [("visits", "wrong", rows)]


def test_nba_doctor_data_ends_with_1_where_a_row_is_wrong(tmp_path: Path):
    """The command takes a folder, names the row and fails; `nba doctor` itself keeps its options."""
    if "dataset" not in {group.name for group in app.registered_groups}:
        check_commands.register(app)
    checked(tmp_path, visits(customer_id={2: "009"}))
    refused = CliRunner().invoke(app, ["doctor", "data", str(tmp_path)], env={"COLUMNS": "200"})
    assert refused.exit_code == 1
    assert "'customer_id' is not in customers.customer_id" in refused.output
    checked(tmp_path, visits())
    assert CliRunner().invoke(app, ["doctor", "data", str(tmp_path)]).exit_code == 0
    assert "--json" in CliRunner().invoke(app, ["doctor", "--help"]).output


def test_times_without_a_zone_are_refused(tmp_path: Path):
    """A timestamp without a time zone is not the instant that was declared."""
    table = visits()
    naive = table["at"].cast(pa.timestamp("us"))
    found = checked(tmp_path, table.set_column(2, "at", naive))
    assert any("declared moment" in one.found and "time zone" in one.remedy for one in found)
    assert not is_usable(found)


def test_dates_written_as_instants_are_doubted(tmp_path: Path):
    """Where every moment has the same time of day, they were dates."""
    same = {i: START + timedelta(days=2 * i) for i in range(30)}
    assert any("these are dates" in one.found for one in checked(tmp_path, visits(at=same)))


def test_gaps_are_told_with_their_ends(tmp_path: Path):
    """A stretch without rows longer than declared is told from when to when."""
    later = {i: START + timedelta(hours=50 * i, days=20) for i in range(15, 30)}
    found = [one for one in checked(tmp_path, visits(at=later)) if "gap" in one.found]
    assert len(found) == 1
    assert "from 2026-01-30 to 2026-02-21" in found[0].found


def test_what_is_not_there_is_told(tmp_path: Path):
    """A missing table and a missing column are each told, and do not stop the look at the others."""
    found = checked(tmp_path, visits().drop_columns(["amount"]))
    assert any("there is no column 'amount'" in one.found for one in found)
    (tmp_path / "visits.parquet").unlink()
    assert any("visits.parquet" in one.found for one in check_sources(tmp_path, now=NOW))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("visits: {columns: {at: instant}}", "visits.columns.at"),
        ("visits: {columns: {at: moment}, keys: [at]}", "visits.keys is unknown"),
        ("visits: {columns: {at: moment}, key: [id]}", "names 'id'"),
        ("visits: {columns: {at: moment}, references: {at: days.day}}", "at -> days.day"),
        ("visits: [", "is not YAML"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_place(tmp_path: Path, text: str, said: str):
    """The sentence names the file and the field."""
    (tmp_path / "tables.yaml").write_text(text)
    with pytest.raises(DeclarationError, match=r"tables\.yaml") as refused:
        read_declaration(tmp_path / "tables.yaml")
    assert said in str(refused.value)


def test_the_examples_tables_are_as_declared(tmp_path: Path):
    """What the example's loader writes passes the example's declaration, save that its first households leave gaps."""
    write_history(tmp_path, customers=60)
    found = check_sources(tmp_path, EXAMPLE_TABLES, now=NOW)
    wrong = [one for one in found if one.status == "wrong"]
    assert not wrong
