"""`nba report`: one HTML page on the health of the log. Imports what it needs when it runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.pipeline import CHECKOUT

DEFAULT_VAR = CHECKOUT / "var"
DEFAULT_CATALOGUE = CHECKOUT / "service" / "catalogue.yaml"
DAY = 86_400.0


def register(app: typer.Typer) -> None:
    """Add the command to `nba`."""
    app.command("report")(report)


def report(
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    log: Annotated[Path | None, typer.Option("--from", help="Lake with the log; NBA_VAR/lake.")] = None,
    days: Annotated[float, typer.Option(help="Only the newest days of the log; 0 for all.")] = 0.0,
    as_of: Annotated[datetime | None, typer.Option(help="Windows ending later are open, UTC; the log's end.")] = None,
    inbound: Annotated[str, typer.Option(help="Channels in which the customer comes to us.")] = "app,till",
    var: Annotated[Path, typer.Option(envvar="NBA_VAR", help="Folder of the catalogues of then.")] = DEFAULT_VAR,
    catalogue: Annotated[Path, typer.Option(envvar="NBA_CATALOGUE", help="Catalogue in use.")] = DEFAULT_CATALOGUE,
) -> None:
    """Write one self-contained page: lift by arm, funnel, choice, ranking and calibration over time, drift, health."""
    from training.evaluate_policy import FAR, read_decisions
    from training.log_figures import log_figures
    from training.off_policy import CannotAnswer
    from training.report_page import page
    from training.responses import catalogues, responses

    lake = log or var / "lake"
    try:
        rows = [row for row in read_decisions(lake, 0.0, FAR) if not row.dry_run]
        if not rows:
            raise CannotAnswer("the log has no decision yet: ask for some, and let the worker write the lake")
        newest = max(row.decision_time for row in rows)
        since = newest - days * DAY if days else 0.0
        rows = [row for row in rows if row.decision_time >= since]
        catalogue_of = catalogues(var / "catalogues", catalogue)
        now = newest if as_of is None else as_of.replace(tzinfo=UTC).timestamp()
        table = responses(lake, since, FAR, catalogue_of, as_of=now)
        versions = {row.catalogue_version for row in rows}
        action_of = {t.id: t.action_id for version in versions for t in catalogue_of(version).treatments}
        figures = log_figures(lake, rows, table, action_of, inbound.split(","))
    except CannotAnswer as error:
        Console(stderr=True).print(f"nba: {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    out.write_text(page(figures), encoding="utf-8")
    Console().print(f"{figures.decisions:,} decisions in {out}", highlight=False)
