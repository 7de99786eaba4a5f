"""All that is held of one customer, as plain data, for the customer: what an erasure would remove."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.adapters import redis_keys as keys
from service.adapters.connection import Link
from service.adapters.eraser import entries_of, other_files
from service.adapters.lake_tables import row_of
from service.adapters.lake_upkeep import count_rows
from service.decision.record import partition_of
from service.lake_files import files

TABLES = ("decisions", "outcomes", "events", "shadows")


async def logged_of(customer_id: str, link: Link, lake: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the log, in the lake and still in the journal, each once. Raises StoreUnavailable."""
    partition = partition_of(customer_id)
    waiting = await entries_of(link, keys.of_partition(partition, "journal"), {customer_id})
    found: dict[str, list[dict[str, Any]]] = {}
    for table in TABLES:
        is_theirs = pc.field("customer_id") == customer_id
        found[table] = [
            row for path in files(lake, table) for row in pq.read_table(path, filters=is_theirs).to_pylist()
        ]
    seen = {row["journal_id"] for rows in found.values() for row in rows}
    for entry in waiting:
        table, row = row_of(*entry)
        if entry.id not in seen and table in found:
            found[table].append(row)
    return found


def files_with(customer_id: str, var: Path, lake: Path) -> dict[str, int]:
    """Return how many rows the other Parquet files have of the customer, by file."""
    is_theirs = pc.field("customer_id") == customer_id
    counted = {path: count_rows(path, is_theirs, ["customer_id"]) for path in other_files(var, lake)}
    return {str(path.relative_to(var) if path.is_relative_to(var) else path): n for path, n in counted.items() if n}
