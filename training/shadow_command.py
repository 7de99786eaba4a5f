"""`nba shadow`: what the challenger says of live decisions. Imports what it needs when it runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from training.pipeline import CHECKOUT
from training.terminal import for_tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.shadow import Comparison

DEFAULT_VAR = CHECKOUT / "var"
DEFAULT_CATALOGUE = CHECKOUT / "service" / "catalogue.yaml"
DAY = 86_400.0
FAR = datetime(2100, 1, 1, tzinfo=UTC)


def register(app: typer.Typer) -> None:
    """Add the command to `nba`."""
    app.command("shadow")(shadow)


def shadow(
    log: Annotated[Path | None, typer.Option("--from", help="Lake with the log; NBA_VAR/lake.")] = None,
    model: Annotated[str, typer.Option(help="Version of the challenger; that of the newest shadow.")] = "",
    since: Annotated[datetime | None, typer.Option(help="Only decisions from then on, UTC.")] = None,
    until: Annotated[datetime, typer.Option(help="Only decisions before, UTC.")] = FAR,
    as_of: Annotated[datetime | None, typer.Option(help="Windows ending later are open, UTC; now.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    var: Annotated[Path, typer.Option(envvar="NBA_VAR", help="Folder of the catalogues of then.")] = DEFAULT_VAR,
    catalogue: Annotated[Path, typer.Option(envvar="NBA_CATALOGUE", help="Catalogue in use.")] = DEFAULT_CATALOGUE,
) -> None:
    """Compare the challenger with what was served, where NBA_SHADOW_SHARE had it score live decisions as well."""
    from training.responses import catalogues
    from training.shadow import NoShadows, compare

    try:
        found = compare(
            log or var / "lake",
            _seconds(since) if since is not None else 0.0,
            _seconds(until),
            catalogues(var / "catalogues", catalogue),
            model=model,
            as_of=_seconds(as_of or datetime.now(UTC)),
        )
    except NoShadows as error:
        Console(stderr=True).print(f"nba: {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    console = for_tables()
    if as_json:
        console.print_json(json.dumps(asdict(found)))
        return
    for line in told(found):
        console.print(line, highlight=False, soft_wrap=True)


def told(found: Comparison) -> Iterator[str]:
    """Yield a comparison in lines for people; intervals of 95 % by customer."""
    from training.drift import reading

    champions = ", ".join(f"{version} ({count:,})" for version, count in found.champions.items())
    yield f"challenger {found.model} beside {champions}"
    yield f"decisions compared: {found.decisions:,} of {found.customers:,} customers, {found.candidates:,} candidates"
    yield f"another first choice, by the same draw: {found.first_differs or 'not known'}"
    yield f"rank correlation within a decision, mean: {found.rank_correlation or 'not known'}"
    yield f"propensity, challenger minus champion, mean: {found.difference}"
    yield f"PSI of propensities: {found.psi:.4f} ({reading(found.psi)})"
    if found.answered is None:
        yield "log loss: nothing of what was shown is answered yet"
        return
    answered = found.answered
    yield f"log loss over {answered.treatments:,} answered treatments, {answered.positives:,} positive:"
    yield f"  champion {answered.champion}; challenger {answered.challenger}"
    verdict = "better" if answered.gain.low > 0 else "worse" if answered.gain.high < 0 else "no different by this much"
    yield f"  champion minus challenger {answered.gain}: the challenger is {verdict}"


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
