"""`nba evaluate`: judges a catalogue with a model on the log. Decides how the answer is laid out; imports what it needs
when it runs, since every `nba` command loads this module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from training.pipeline import CHECKOUT
from training.terminal import for_tables

if TYPE_CHECKING:
    from training.bootstrap import Interval
    from training.evaluate_policy import PolicyEvaluation

REWARDS = ("conversion", "value")
NO_MODEL = "none"
DAY = 86_400.0
DEFAULT_VAR = CHECKOUT / "var"
DEFAULT_MLFLOW = f"sqlite:///{CHECKOUT / 'mlruns' / 'mlflow.db'}"
DEFAULT_CATALOGUE = CHECKOUT / "service" / "catalogue.yaml"


def register(app: typer.Typer) -> None:
    """Add the command to `nba`."""
    app.command("evaluate")(evaluate_command)


def evaluate_command(
    policy: Annotated[Path, typer.Option(envvar="NBA_CATALOGUE", help="Catalogue to judge.")] = DEFAULT_CATALOGUE,
    model: Annotated[str, typer.Option(help="Version number, alias, folder of a bundle, or none.")] = "champion",
    log: Annotated[Path | None, typer.Option("--from", help="Lake with the log; NBA_VAR/lake.")] = None,
    reward: Annotated[str, typer.Option(help="conversion, or value: weighted by the action's value.")] = "conversion",
    first_slot: Annotated[bool, typer.Option("--first-slot", help="Judge first slots alone.")] = False,
    days: Annotated[float, typer.Option(help="Only the newest days of the log; 0 for all.")] = 0.0,
    as_of: Annotated[datetime | None, typer.Option(help="Windows ending later are open, UTC; the log's end.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    var: Annotated[Path, typer.Option(envvar="NBA_VAR", help="Folder of the catalogues of then.")] = DEFAULT_VAR,
    mlflow_uri: Annotated[str, typer.Option(envvar="NBA_MLFLOW_URI", help="MLflow registry.")] = DEFAULT_MLFLOW,
) -> None:
    """Estimate from the log what a catalogue with a model would have earned, before it goes live."""
    if reward not in REWARDS:
        raise typer.BadParameter(f"--reward is {' or '.join(REWARDS)}, not {reward!r}")
    from service.catalogue.loader import load_catalogue
    from training.evaluate_policy import FAR, evaluate_policy, read_decisions
    from training.off_policy import CannotAnswer
    from training.responses import catalogues
    from training.version_scorer import NoSuchVersion, make_scorer_of

    console = for_tables()
    lake = log or var / "lake"
    try:
        catalogue = load_catalogue(policy)
        make_scorer = None if model == NO_MODEL else make_scorer_of(model, mlflow_uri)
        newest = max((row.decision_time for row in read_decisions(lake, 0.0, FAR)), default=0.0) if days else 0.0
        found = evaluate_policy(
            lake,
            catalogue,
            make_scorer,
            catalogues(var / "catalogues", policy),
            reward=reward,
            as_of=None if as_of is None else as_of.replace(tzinfo=UTC).timestamp(),
            since=newest - days * DAY if days else 0.0,
            first_slot=first_slot,
            model=model,
        )
    except (CannotAnswer, NoSuchVersion) as error:
        Console(stderr=True).print(f"nba: {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    if as_json:
        console.print_json(json.dumps(found.document(), allow_nan=True))
    else:
        show(found, console)


def show(found: PolicyEvaluation, console: Console) -> None:
    """Print an evaluation for people."""
    from training.evaluate_policy import ALL
    from training.off_policy import ESTIMATORS

    first = found.by_issue[ALL]
    support = first.support
    console.print(
        f"catalogue {found.catalogue} with model {found.model} on {support.decisions:,} of {found.rows:,} decisions of "
        f"{support.customers:,} customers; reward: {found.reward}, slots: {found.slots}; arms: {_listed(found.arms)}"
    )
    if support.excluded:
        console.print(f"left out: {_listed(support.excluded)}")
    if found.unknown_caps:
        console.print(f"caps that the log kept no room for, taken as not binding: {', '.join(found.unknown_caps)}")
    sizes = ", ".join(f"{size:,.1f}" for size in support.effective)
    console.print(
        f"effective sample size by slot {sizes}; largest weight {support.largest_weight:.2f}, clipped "
        f"{support.clipped:.0%}; mean weight {support.mean_weight:.3f} +- {support.mean_weight_error:.3f}; "
        f"off the log's support {support.off_support:.2%}"
    )
    table = Table(title="mean reward of a decision, 95 % intervals by customer")
    for column in ("issue", "logged (arm nba)", *ESTIMATORS, "gain over logged", "verdict"):
        table.add_column(column)
    for issue, judged in found.by_issue.items():
        cells = [_cell(judged.estimates.get(name)) for name in ESTIMATORS]
        gain = judged.gains.get(judged.judged_by)
        table.add_row(issue, _cell(judged.logged), *cells, _cell(gain), f"{judged.verdict} ({judged.judged_by or '-'})")
    console.print(table)
    for name, reason in first.refused.items():
        console.print(f"{name} is not given: {reason}")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _cell(found: Interval | None) -> str:
    return "-" if found is None else f"{found.value:.5f}\n[{found.low:.5f}, {found.high:.5f}]"
