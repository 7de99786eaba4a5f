"""What a check of data found, how it is told to a person, and whether the data may be used. Knows no data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Status = Literal["ok", "warning", "wrong"]
SHOWN_ROWS = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        rows: The first rows it is about, counted from 1 without a header; empty where it is about the whole.
        remedy: What to do; "" where nothing is to be done.
    """

    check: str
    status: Status
    found: str
    remedy: str = ""
    rows: tuple[int, ...] = ()


def first_rows(is_meant: NDArray[np.bool_]) -> tuple[int, ...]:
    """Return the numbers of the first rows that are meant, counted from 1."""
    return tuple((np.flatnonzero(is_meant)[:SHOWN_ROWS] + 1).tolist())


def is_usable(found: Sequence[Finding]) -> bool:
    """Say whether nothing is wrong; warnings do not count."""
    return all(one.status != "wrong" for one in found)


def show(found: Sequence[Finding], console: Console) -> None:
    """Print the findings as a table, with the rows they are about."""
    table = Table("", "check", "found", "what to do", box=None, padding=(0, 2, 0, 0))
    styles = {"ok": "green", "warning": "yellow", "wrong": "bold red"}
    for one in found:
        rows = f" (first rows: {', '.join(map(str, one.rows))})" if one.rows else ""
        table.add_row(one.status, one.check, escape(one.found + rows), escape(one.remedy), style=styles[one.status])
    console.print(table)
