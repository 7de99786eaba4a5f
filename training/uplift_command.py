"""`nba uplift`: learns from the hold-outs of the log what showing changes, and registers it beside a version.

Imports what it needs when it runs, since every `nba` command loads this module.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from training.pipeline import CHECKOUT
from training.terminal import for_tables

if TYPE_CHECKING:
    from training.uplift import Effect

DEFAULT_VAR = CHECKOUT / "var"
DEFAULT_MLFLOW = f"sqlite:///{CHECKOUT / 'mlruns' / 'mlflow.db'}"
DEFAULT_CATALOGUE = CHECKOUT / "service" / "catalogue.yaml"


def register(app: typer.Typer) -> None:
    """Add the command to `nba`."""
    app.command("uplift")(uplift)


def uplift(
    model: Annotated[str, typer.Option(help="Number of the version that the effect model joins.")],
    log: Annotated[Path | None, typer.Option("--from", help="Lake with the log; NBA_VAR/lake.")] = None,
    policy: Annotated[Path, typer.Option(envvar="NBA_CATALOGUE", help="Catalogue in use.")] = DEFAULT_CATALOGUE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what was learned, register nothing.")] = False,
    var: Annotated[Path, typer.Option(envvar="NBA_VAR", help="Folder of the catalogues of then.")] = DEFAULT_VAR,
    mlflow_uri: Annotated[str, typer.Option(envvar="NBA_MLFLOW_URI", help="MLflow registry.")] = DEFAULT_MLFLOW,
) -> None:
    """Learn from nba against the hold-outs what showing each action changes; a new challenger if anything is known."""
    from service.catalogue.loader import load_catalogue
    from training.attributable import attributable_shares
    from training.effect_log import document_of, effect_rows, success_moments
    from training.evaluate_policy import FAR, read_decisions
    from training.responses import catalogues
    from training.uplift import CannotLearn, fit_effect
    from training.uplift_version import register_with_effect
    from training.version_scorer import NoSuchVersion, domain_of

    console, lake = for_tables(), log or var / "lake"
    try:
        domain = domain_of(model, mlflow_uri)
        decisions = list(read_decisions(lake, 0.0, FAR))
        newest = max((row.decision_time for row in decisions), default=0.0)
        catalogue_of = catalogues(var / "catalogues", policy)
        catalogue = load_catalogue(policy)
        issue_of = {action.id: action.issue for action in catalogue.actions}
        rows = effect_rows(decisions, success_moments(lake), catalogue, catalogue_of, domain, newest)
        effect = fit_effect(rows)
        show(effect, console)
        for issue, share in attributable_shares(rows, effect.robust, issue_of).items():
            console.print(f"{issue}: share of the responses to what was shown that showing makes: {share}")
        if dry_run:
            return
        if not any(action.is_significant for action in effect.actions.values()):
            console.print("no action's effect is significant: nothing is registered, propensities stay in use")
            return
        document = json.dumps(document_of(effect, rows, issue_of)).encode()
        version = register_with_effect(mlflow_uri, model, effect, document, rows)
        console.print(f"version {version} is version {model} with this effect model; it is the challenger")
    except (CannotLearn, NoSuchVersion) as error:
        Console(stderr=True).print(f"nba: {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def show(effect: Effect, console: Console) -> None:
    """Print what was learned."""
    for learner in effect.qini:
        chosen = "chosen" if learner == effect.learner else ""
        console.print(f"{learner}: Qini {effect.qini[learner]}, AUUC over random {effect.auuc[learner]} {chosen}")
    table = Table(title=f"effect of being shown, 95 % by customer; distilled with correlation {effect.fidelity:.3f}")
    for column in ("action", "rows", "shown", "mean effect", "slope", "p (Holm)", "used"):
        table.add_column(column)
    for name, found in sorted(effect.actions.items(), key=lambda item: item[1].p):
        table.add_row(
            name, f"{found.rows:,}", f"{found.treated:,}", str(found.effect), f"{found.slope:.2f}", f"{found.p:.3g}",
            "uplift" if found.is_significant else "propensity",
        )  # fmt: skip
    console.print(table)
