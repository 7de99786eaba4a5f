"""Looks at an adopter's source tables before facts are made of them: types, keys, references, times, gaps, by row.

Decides what a declared table must be like (`training.source_tables`). It must not know what the tables mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from features.layout import SECONDS_PER_DAY
from training.findings import SHOWN_ROWS, Finding
from training.source_tables import DECLARATION, KINDS, Table, read_declaration
from training.sources import connect

REMEDIES: Mapping[str, str] = {
    "text": "write it as text: ids lose their leading zeros as numbers",
    "integer": "write whole numbers",
    "number": "write numbers with a point, without signs of currency",
    "flag": "write true and false",
    "moment": "write the instant with its time zone, in UTC; a local time without one cannot be placed",
    "date": "write it as a date, or declare it a moment",
}
EARLIEST = "1971-01-01"
"""Before this a moment is a zero that was meant as missing."""


def check_sources(folder: Path, declaration: Path | None = None, now: datetime | None = None) -> list[Finding]:
    """Look at every declared table of a folder: `<table>.parquet` or `<table>.csv`.

    Args:
        declaration: `tables.yaml` of the folder by default. now: What lies later is in the future.

    Raises:
        DeclarationError: The declaration cannot be used.
    """
    tables = read_declaration(declaration or folder / DECLARATION)
    found: list[Finding] = []
    with connect(threads=1) as con:
        there = {table.name: table for table in tables if _open(con, folder, table)}
        for table in tables:
            if table.name not in there:
                said = f"neither {table.name}.parquet nor {table.name}.csv is in {folder}"
                found.append(Finding(table.name, "wrong", said, "put it there or leave it out of the declaration"))
                continue
            found += _check_table(con, table, there, now or datetime.now(UTC))
    return found


def _open(con: duckdb.DuckDBPyConnection, folder: Path, table: Table) -> bool:
    """Read the table's file with the number of each row, if there is one."""
    for suffix, read in (("parquet", "read_parquet"), ("csv", "read_csv")):
        path = folder / f"{table.name}.{suffix}"
        if path.is_file():
            source = "'" + str(path).replace("'", "''") + "'"
            if suffix == "csv":
                source += f", types = {_texts_of(con, source, table)}"
            query = f"SELECT row_number() OVER () AS __row, * FROM {read}({source})"
            con.execute(f"CREATE TEMP TABLE {_quoted(table.name)} AS {query}")
            return True
    return False


def _texts_of(con: duckdb.DuckDBPyConnection, source: str, table: Table) -> dict[str, str]:
    """Return the columns of a CSV file that are declared texts: guessed, an id would be read as a number."""
    there = {str(row[0]) for row in con.execute(f"DESCRIBE SELECT * FROM read_csv({source})").fetchall()}
    return {name: "VARCHAR" for name, kind in table.columns.items() if kind == "text" and name in there}


def _check_table(
    con: duckdb.DuckDBPyConnection, table: Table, there: Mapping[str, Table], now: datetime
) -> Iterator[Finding]:
    types = {str(name): str(kind) for name, kind, *_ in con.execute(f"DESCRIBE {_quoted(table.name)}").fetchall()}
    counted = con.execute(f"SELECT count(*) FROM {_quoted(table.name)}").fetchall()[0][0]
    good: dict[str, str] = {}
    for column, kind in table.columns.items():
        if column not in types:
            yield Finding(table.name, "wrong", f"there is no column {column!r}", "add it or correct the declaration")
        elif types[column].partition("(")[0] not in KINDS[kind]:
            yield Finding(table.name, "wrong", f"{column!r} is {types[column]}, declared {kind}", REMEDIES[kind])
        else:
            good[column] = kind
    if not counted:
        yield Finding(table.name, "wrong", "it has no row", "write its rows")
        return
    bad = 0
    for finding in _rows(con, table, there, good, now):
        bad += finding.status == "wrong"
        yield finding
    if not bad and len(good) == len(table.columns):
        yield Finding(table.name, "ok", f"{counted:,} rows, {len(good)} columns as declared")


def _rows(
    con: duckdb.DuckDBPyConnection, table: Table, there: Mapping[str, Table], good: Mapping[str, str], now: datetime
) -> Iterator[Finding]:
    for column in dict.fromkeys((*table.key, *table.required)):
        if column in good:
            is_missing = f"{_quoted(column)} IS NULL"
            if good[column] == "text":
                is_missing += f" OR trim({_quoted(column)}) = ''"
            yield from _found(con, table, is_missing, f"{column!r} is missing", "fill it in or drop the rows")
    if table.key and all(column in good for column in table.key):
        key = ", ".join(map(_quoted, table.key))
        is_repeat = f"__row NOT IN (SELECT min(__row) FROM {_quoted(table.name)} GROUP BY {key})"
        yield from _found(con, table, is_repeat, f"the key ({', '.join(table.key)}) is repeated", "keep one row a key")
    for column, target in table.references.items():
        other, _, key = target.partition(".")
        if column in good and other in there:
            known = f"SELECT {_quoted(key)}::VARCHAR FROM {_quoted(other)} WHERE {_quoted(key)} IS NOT NULL"
            is_orphan = f"{_quoted(column)} IS NOT NULL AND {_quoted(column)}::VARCHAR NOT IN ({known})"
            yield from _found(
                con, table, is_orphan, f"{column!r} is not in {target}", f"add those to {other} or drop them"
            )
    for column, kind in good.items():
        if kind == "number":
            is_odd = f"isnan({_quoted(column)}::DOUBLE) OR isinf({_quoted(column)}::DOUBLE)"
            yield from _found(
                con, table, is_odd, f"{column!r} is NaN or infinite", "write nothing where nothing is known"
            )
        if kind in ("moment", "date"):
            yield from _times(con, table, column, kind, now)
    if table.moment in good:
        yield from _gaps(con, table)


def _times(con: duckdb.DuckDBPyConnection, table: Table, column: str, kind: str, now: datetime) -> Iterator[Finding]:
    name = _quoted(column)
    early, late = f"{name} < '{EARLIEST}'", f"{name} > '{now.isoformat()}'::TIMESTAMPTZ"
    yield from _found(con, table, early, f"{column!r} is before 1971", "write nothing where the time is unknown")
    yield from _found(
        con, table, late, f"{column!r} is in the future", "correct the clock or the time zone it came with"
    )
    if kind == "moment":
        of_day = (
            f"SELECT count(*), count(DISTINCT epoch({name})::BIGINT % 86400), any_value(epoch({name})::BIGINT % 86400)"
        )
        n, kinds, second = con.execute(f"{of_day} FROM {_quoted(table.name)} WHERE {name} IS NOT NULL").fetchall()[0]
        if n >= 20 and kinds == 1:
            clock = f"{second // 3600:02d}:{second // 60 % 60:02d} UTC"
            said = f"every {column!r} is at {clock}: these are dates, written as instants"
            yield Finding(
                table.name, "warning", said, "say when on that day it was known, at the earliest its local end"
            )


def _gaps(con: duckdb.DuckDBPyConnection, table: Table) -> Iterator[Finding]:
    name = _quoted(table.moment)
    ordered = f"SELECT {name} AS later, lag({name}) OVER (ORDER BY {name}) AS earlier FROM {_quoted(table.name)}"
    longer = f"SELECT earlier::DATE, later::DATE, epoch(later) - epoch(earlier) AS apart FROM ({ordered})"
    query = f"{longer} WHERE apart > ? ORDER BY apart DESC"
    gaps = con.execute(query, [table.gap_days * SECONDS_PER_DAY]).fetchall()
    if gaps:
        before, at, _ = gaps[0]
        said = f"{len(gaps)} gaps of more than {table.gap_days:g} days in {table.moment!r}"
        said += f"; the longest from {before} to {at}"
        remedy = "load what is missing, or declare gap_days: silence that is a hole looks like customers who left"
        yield Finding(table.name, "warning", said, remedy)


def _found(con: duckdb.DuckDBPyConnection, table: Table, which: str, said: str, remedy: str) -> Iterator[Finding]:
    where = f"FROM {_quoted(table.name)} WHERE {which}"
    n = con.execute(f"SELECT count(*) {where}").fetchall()[0][0]
    if n:
        rows = con.execute(f"SELECT __row {where} ORDER BY __row LIMIT {SHOWN_ROWS}").fetchall()
        yield Finding(table.name, "wrong", f"{said} in {n:,} rows", remedy, tuple(int(row) for (row,) in rows))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
