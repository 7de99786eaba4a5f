"""The command `nba simulate`: policies in a world with known truth, with progress, a table and plots."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from features.contract import UTC_OFFSET_HOURS
from training.books import Day
from training.pipeline import CHECKOUT
from training.terminal import for_tables

if TYPE_CHECKING:
    from training.simulator import Setting

START = "2017-06-05"
"""A Monday with five months of real past behind it, and 210 days of it ahead."""
CATALOGUE = CHECKOUT / "service" / "catalogue.yaml"


def register(app: typer.Typer) -> None:
    """Add the command to `nba`."""

    @app.command("simulate")
    def simulate(
        policy: Annotated[
            str, typer.Option(help="Policies, separated by commas, or `all`: see training/policies.py.")
        ] = "nba,random,propensity,best_single,oracle",
        days: Annotated[int, typer.Option(min=1, max=210, help="How many days; every 30th the policies learn.")] = 180,
        seeds: Annotated[
            str, typer.Option(help="Of world and luck; several, separated by commas, give intervals.")
        ] = "1",
        households: Annotated[int | None, typer.Option(min=50, help="Take so many of them; all if not given.")] = None,
        catalogue: Annotated[Path, typer.Option(help="Whose actions are offered.")] = CATALOGUE,
        var: Annotated[Path, typer.Option(envvar="NBA_VAR", help="Folder of everything that is written.")] = (
            CHECKOUT / "var"
        ),
        out: Annotated[
            Path | None, typer.Option(help="Folder of plots and figures; by default var/simulation.")
        ] = None,
        url: Annotated[str, typer.Option(help="Drive a running service instead, from the end of the history on.")] = "",
        api_key: Annotated[str, typer.Option(envvar="NBA_API_KEY", help="Where the service asks for one.")] = "",
    ) -> None:
        """Let policies loose on a world whose truth is known: made-up responses of the real households."""
        from training.simulation_report import plots, table, verdicts, write_days

        chosen, progress, folder = _policies(policy), Console(stderr=True), out or var / "simulation"
        about = {"days": days, "seeds": _seeds(seeds), "households": households}
        if url:
            setting = _setting(var / "history", catalogue, _end(var / "history"), days, _seeds(seeds)[0], households)
            runs = [_over_http(setting, url, var / "clock.json", api_key, progress)]
        else:
            runs = []
            for seed in _seeds(seeds):
                runs.append(simulated(var / "history", catalogue, chosen, days, seed, households, progress))
                write_days(runs, folder, about)  # of a run that is cut short, the seeds that were done are kept
        for_tables().print(table(runs))
        for line in verdicts(runs):
            typer.echo(line)
        for path in [write_days(runs, folder, about), *plots(runs[0], folder)]:
            typer.echo(str(path))


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of whole numbers, such as 1,2,3") from None


def _policies(text: str) -> list[str]:
    from training.policies import POLICIES

    names = list(POLICIES) if text == "all" else [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in POLICIES]
    if unknown:
        raise typer.BadParameter(f"there is no policy {unknown[0]!r}; choose from {', '.join(POLICIES)}, or all")
    return names


def _setting(history: Path, catalogue: Path, start: datetime, days: int, seed: int, households: int | None) -> Setting:
    from features.matrix import Columns
    from service.catalogue.loader import load_catalogue
    from service.decision.engine import compile_catalogue
    from training.simulator import Setting

    if not (history / "lines.parquet").exists():
        raise typer.BadParameter(f"{history} has no history; run `nba load` first")
    return Setting(history, compile_catalogue(load_catalogue(catalogue), Columns()), start, days, seed, households)


def _local(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=timezone(timedelta(hours=UTC_OFFSET_HOURS)))


def _end(history: Path) -> datetime:
    """Return the first local midnight after the last transaction."""
    from training.backfill import snapshot_moments

    last = snapshot_moments(history)[-1].astimezone(timezone(timedelta(hours=UTC_OFFSET_HOURS)))
    return last.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def simulated(
    history: Path, catalogue: Path, policies: list[str], days: int, seed: int, households: int | None, console: Console
) -> dict[str, list[Day]]:
    """Run each policy in the same setting and return its days."""
    from training.policies import make_policy
    from training.simulator import Simulation

    runs: dict[str, list[Day]] = {}
    with _progress(console) as progress:
        task = progress.add_task("Reading the real past", total=None)
        setting = _setting(history, catalogue, _local(START), days, seed, households)
        progress.remove_task(task)
        for name in policies:
            task = progress.add_task(name, total=days)
            runs[name] = []
            for day in Simulation(setting, make_policy(name, setting)).run():
                runs[name].append(day)
                progress.advance(task)
    return runs


def _over_http(setting: Setting, url: str, clock: Path, api_key: str, console: Console) -> dict[str, list[Day]]:
    from training.simulate_http import HttpSimulation, ServiceRefused

    run: list[Day] = []
    with _progress(console) as progress:
        task = progress.add_task(f"the service at {url}", total=setting.days)
        try:
            for day in HttpSimulation(setting, url, clock, api_key).run():
                run.append(day)
                progress.advance(task)
        except ServiceRefused as error:
            raise typer.BadParameter(str(error)) from error
    return {"service": run}
