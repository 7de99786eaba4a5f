"""Where tables are printed: as wide as a terminal is, and wide enough for all words where there is none."""

from __future__ import annotations

from rich.console import Console

WIDTH = 160
"""Columns of a pipe or file, which have no width of their own."""


def for_tables() -> Console:
    """Return a console on the standard output."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)
