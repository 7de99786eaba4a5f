"""`nba log`: look into the log, keep it small, mend what the worker set aside. Decides how answers are written."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
import time
from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.settings import Settings

log_app = typer.Typer(
    no_args_is_help=True, help="Look into the log of decisions, outcomes and events, and keep it small."
)
console = Console(stderr=True)
FOLLOW_SECONDS = 1.0


class Form(StrEnum):
    """How rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


class View(StrEnum):
    """What can be looked at."""

    DECISIONS = "decisions"
    CANDIDATES = "candidates"
    OUTCOMES = "outcomes"
    EVENTS = "events"
    SWITCHES = "switches"
    SHADOWS = "shadows"


FormOption = Annotated[Form, typer.Option("--format", help="table for people; csv; json: an object a line.")]
TAIL = {
    View.DECISIONS: "decision_time, decision_id, customer_id, channel, arm, "
    "list_transform(chosen, lambda c: c.treatment_id) AS chosen, degraded_reasons",
    View.CANDIDATES: "decision_time, decision_id, treatment_id, stage, rank, propensity, priority, "
    "selection_probability",
    View.OUTCOMES: "occurred_at, outcome_id, decision_id, action_id, type, value, is_orphan",
    View.EVENTS: "occurred_at, event_id, customer_id, type, properties, flags",
    View.SWITCHES: '"at", scope, scope_id, paused, who, why',
    View.SHADOWS: "decision_time, decision_id, model_version, first_candidate, propensities",
}


@log_app.command()
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT over decisions, candidates, outcomes, events, shadows...")],
    form: FormOption = Form.TABLE,
) -> None:
    """Ask the log in SQL (DuckDB); it cannot be written this way."""
    names, rows = _ask(sql)
    write_rows(names, rows, form)


@log_app.command()
def tail(
    view: Annotated[View, typer.Argument(help="What to look at.")] = View.DECISIONS,
    count: Annotated[int, typer.Option("-n", min=1, help="How many of the last rows.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what the worker writes, until Ctrl-C.")] = False,
    form: FormOption = Form.TABLE,
) -> None:
    """Show the last rows of a table, in the order of their logging; the worker writes them within NBA_LAKE_SECONDS."""
    order = "ORDER BY logged_at DESC, partition, journal_id DESC"
    names, rows = _ask(f"SELECT logged_at, {TAIL[view]} FROM {view} {order} LIMIT {count}")
    shown = list(reversed(rows))
    write_rows(names, shown, form)
    while follow:
        time.sleep(FOLLOW_SECONDS)
        since = f"WHERE logged_at >= '{shown[-1][0].isoformat()}'" if shown else ""
        new = [
            row for row in _ask(f"SELECT logged_at, {TAIL[view]} FROM {view} {since} {order}")[1] if row not in shown
        ]
        if new:
            write_rows(names, new[::-1], form, is_first=False)
            shown = (shown + new[::-1])[-max(count, len(new)) :]


@log_app.command()
def compact() -> None:
    """Put the log's files together, one for a day; readers and workers go on meanwhile."""
    from service.adapters.lake_upkeep import compact as put_together

    settings = Settings()
    done = put_together(settings.lake, time.time(), whole=True)
    said = ", ".join(f"{one.table} {one.before} -> {one.after} files" for one in done)
    console.print(f"nba: {said or 'nothing to put together'}")


@log_app.command()
def prune() -> None:
    """Let go of days that are older than NBA_RETENTION_DAYS says."""
    from service.adapters.lake_upkeep import prune as let_go

    settings = Settings()
    if not settings.retention_days:
        console.print("nba: everything is kept; name tables and days, e.g. NBA_RETENTION_DAYS='{\"decisions\": 400}'")
        return
    lost = let_go(settings.lake, {str(t): days for t, days in settings.retention_days.items()}, time.time())
    said = ", ".join(f"{table} {count} files" for table, count in lost.items())
    console.print(f"nba: let go of {said}" if lost else "nba: nothing is older than NBA_RETENTION_DAYS")


@log_app.command()
def poison(
    apply: Annotated[bool, typer.Option("--apply", help="Put all of them back into the journal.")] = False,
    form: FormOption = Form.TABLE,
) -> None:
    """List the entries that the worker set aside with their errors, or give them to it once more."""

    async def work() -> tuple[list[tuple[Any, ...]], int]:
        from contextlib import AsyncExitStack

        from service.adapters.connection import Link
        from service.adapters.poison import apply_again, set_aside
        from service.bootstrap import redis_urls

        async with AsyncExitStack() as stack:
            link = Link(redis_urls(Settings(), stack)[1])
            stack.push_async_callback(link.close)
            found = await set_aside(link)
            return [tuple(one) for one in found], await apply_again(link, found) if apply else 0

    found, applied = asyncio.run(work())
    if apply:
        console.print(f"nba: {applied} entries are in the journal again; what still cannot be used comes back here")
    else:
        write_rows(["partition", "id", "journal_id", "kind", "bytes", "error"], [one[:6] for one in found], form)


def write_rows(names: Sequence[str], rows: Sequence[Sequence[Any]], form: Form, *, is_first: bool = True) -> None:
    """Write rows to stdout.

    Args:
        is_first: With the names of the columns, where the form has a line for them.
    """
    if form is Form.JSON:
        for row in rows:
            sys.stdout.write(json.dumps(dict(zip(names, map(plain, row), strict=True)), default=str) + "\n")
    elif form is Form.CSV:
        writer = csv.writer(sys.stdout)
        if is_first:
            writer.writerow([guarded(name) for name in names])
        writer.writerows([guarded(_cell(value)) for value in row] for row in rows)
    else:
        table = Table(*(names if is_first else [""] * len(names)), box=None, padding=(0, 2, 0, 0), show_header=is_first)
        for row in rows:
            table.add_row(*(escape(str(_cell(value))) for value in row))
        Console().print(table)
    sys.stdout.flush()


def guarded(cell: Any) -> Any:
    """Keep a spreadsheet from reading a text as a formula: an apostrophe before = + - @, tab and carriage return."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list | tuple):
        return json.dumps(plain(value), default=str)
    return "" if value is None else plain(value)


def plain(value: Any) -> Any:
    """Return what JSON can write: bytes as hex, moments in ISO 8601, no NaN."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


def _ask(sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    from service.adapters.log_views import ask, open_log

    settings = Settings()
    with open_log(settings.lake, settings.var / "catalogues") as con:
        return ask(con, sql)
