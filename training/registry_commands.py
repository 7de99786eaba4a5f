"""Commands on the versions of the model: list them, let one through the gate, take one back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from training.gate import Verdict
from training.pipeline import CHECKOUT
from training.promotion import CHALLENGER, CHAMPION, PromotionError, Registry
from training.terminal import for_tables
from training.tracking import quiet_mlflow

MlflowUri = Annotated[str, typer.Option(envvar="NBA_MLFLOW_URI", help="MLflow tracking and registry.")]
DEFAULT_MLFLOW = f"sqlite:///{CHECKOUT / 'mlruns' / 'mlflow.db'}"
console = Console(stderr=True)


def register(app: typer.Typer) -> None:
    """Add the commands to `nba`."""
    app.command("versions")(versions)
    app.command("promote")(promote)
    app.command("rollback")(rollback)


def versions(mlflow_uri: MlflowUri = DEFAULT_MLFLOW) -> None:
    """List who moved the champion, when and why."""
    with quiet_mlflow():
        registry = Registry(mlflow_uri)
        champion, challenger, moves = registry.version_of(CHAMPION), registry.version_of(CHALLENGER), registry.moves()
    table = Table(title=f"champion {champion or 'none'}, newest challenger {challenger or 'none'}")
    for name in ("at", "version", "before", "who", "why", "the gate had"):
        table.add_column(name)
    for move in moves:
        said = [str(move[name]) for name in ("at", "version", "before", "who", "why")]
        table.add_row(*said, "; ".join(move["refusals"]))
    for_tables().print(table)


def promote(
    version: Annotated[str, typer.Argument(help="Number of the version; the newest challenger if not given.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Promote in spite of the gate; needs --who and --why.")
    ] = False,
    who: Annotated[str, typer.Option(help="Who moves it.")] = "",
    why: Annotated[str, typer.Option(help="Why.")] = "",
    mlflow_uri: MlflowUri = DEFAULT_MLFLOW,
) -> None:
    """Compare a version with the champion on the same held-out rows, and make it champion if nothing is against it."""
    if force and not (who and why):
        raise typer.BadParameter("--force needs --who and --why: both are written down")
    try:
        with console.status("Comparing on the held-out rows"), quiet_mlflow():
            registry = Registry(mlflow_uri)
            chosen = version or registry.version_of(CHALLENGER) or ""
            if not chosen:
                raise PromotionError("no version has the alias challenger; `nba train` makes one")
            verdict = _verdict(registry, chosen, forced=force)
    except PromotionError as error:
        raise typer.BadParameter(str(error)) from error
    for_tables().print(_compared(chosen, verdict))
    for refusal in verdict.refusals:
        typer.echo(f"against it: {refusal}")
    if verdict.refusals and not force:
        typer.echo(f"refused: version {chosen} stays as it is; --force --who NAME --why REASON overrides", err=True)
        raise typer.Exit(1)
    move = registry.promote(chosen, who or "nba promote", why or "let through the gate", verdict)
    typer.echo(f"version {move.version} is the champion, before it was {move.before or 'none'}")


def _verdict(registry: Registry, version: str, *, forced: bool) -> Verdict:
    try:
        return registry.verdict(version)
    except PromotionError as error:
        if not forced:
            raise
        return Verdict((str(error),), {})


def _compared(version: str, verdict: Verdict) -> Table:
    table = Table(title=f"version {version} on its held-out rows")
    for name in ("issue", "rows", "positives", "AUC", "champion", "log loss", "champion", "gain (95 % interval)",
                 "slope", "predicted / observed"):  # fmt: skip
        table.add_column(name, justify="left" if name == "issue" else "right")
    for issue, found in verdict.measures.items():
        gain = ""
        if "gain" in found:
            gain = f"{found['gain']:+.1%} ({found['gain_low']:+.1%} to {found['gain_high']:+.1%})"
        table.add_row(
            issue, f"{found['rows']:,.0f}", f"{found['positives']:,.0f}", _three(found, "auc"),
            _three(found, "champion.auc"), _three(found, "log_loss"), _three(found, "champion.log_loss"), gain,
            _three(found, "slope"), _three(found, "predicted_ratio"),
        )  # fmt: skip
    return table


def _three(found: Mapping[str, float], name: str) -> str:
    return f"{found[name]:.3f}" if name in found else ""


def rollback(
    who: Annotated[str, typer.Option(help="Who moves it.")],
    why: Annotated[str, typer.Option(help="Why.")],
    mlflow_uri: MlflowUri = DEFAULT_MLFLOW,
) -> None:
    """Make the version champion that was it before, and write down who did it and why."""
    try:
        with quiet_mlflow():
            move = Registry(mlflow_uri).roll_back(who, why)
    except PromotionError as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(f"version {move.version} is the champion again, instead of {move.before}; agents follow within a minute")
