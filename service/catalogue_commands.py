"""The commands `nba catalogue ...`: check a catalogue, count who its rules reach, compare two, describe the format."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.settings import Settings

if TYPE_CHECKING:
    from service.catalogue.population import Population
    from service.decision.engine import CompiledCatalogue
    from service.decision.model import Request, Scorer

catalogue_app = typer.Typer(no_args_is_help=True, help="Look after the catalogue.")
told = Console(stderr=True)


class CatalogueStop(Exception):
    """Ends a command with one sentence."""


@catalogue_app.command()
def check(path: Annotated[Path | None, typer.Argument(help="Default: the catalogue in use.")] = None) -> None:
    """Load a catalogue as serving would and list everything that is wrong with it."""
    catalogue = _compiled(path or Settings().catalogue).catalogue
    told.print(
        f"nba: catalogue {catalogue.version} is fine: {len(catalogue.actions)} actions, {len(catalogue.treatments)} "
        f"treatments, {len(catalogue.rules)} rules, {len(catalogue.caps)} caps"
    )


@catalogue_app.command()
def schema() -> None:
    """Print the JSON Schema of the catalogue's YAML, for editors."""
    from service.catalogue.schema import catalogue_schema

    typer.echo(json.dumps(catalogue_schema(), indent=2, ensure_ascii=False))


@catalogue_app.command()
def reach(
    rule: Annotated[list[str] | None, typer.Argument(help="Ids of rules.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every rule.")] = False,
    catalogue: Annotated[Path | None, typer.Option(help="Default: the catalogue in use.")] = None,
    channel: Annotated[str, typer.Option(help="What `channel` is; default: the catalogue's first.")] = "",
    context: Annotated[list[str] | None, typer.Option(help="field=value, as a caller would send it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Count the customers that rules are TRUE, FALSE and NULL for, over the latest facts in the lake."""
    from service.catalogue.reach import reach as count
    from service.catalogue.reach import rules_named

    compiled = _compiled(catalogue or Settings().catalogue)
    if not rule and not every:
        raise CatalogueStop("name a rule, or say --all")
    try:
        named = [found for name in rule or () for found in rules_named(compiled.catalogue.rules, name)]
    except KeyError as error:
        raise CatalogueStop(str(error.args[0])) from None
    population, now = _population(compiled)
    rules = list(compiled.catalogue.rules) if every else named
    found = count(compiled, rules, population, _request(compiled, channel, context or ()), now)
    if as_json:
        rows = [{"rule": r.rule.id, **{k: v for k, v in asdict(r).items() if k != "rule"}} for r in found]
        typer.echo(json.dumps(rows))
        return
    stages = list(found[0].by_stage) if found else []
    table = Table("rule", "scope", "passes", "fails", "NULL", "share", *stages, box=None, padding=(0, 2, 0, 0))
    for one in found:
        share = one.passes / max(1, len(population.customer_ids))
        by_stage = [f"{passes}/{customers}" for passes, customers in one.by_stage.values()]
        scope = f"{one.rule.scope} {one.rule.scope_id}".strip()
        counts = (f"{one.passes}", f"{one.fails}", f"{one.unknown}", f"{share:.1%}")
        table.add_row(escape(one.rule.id), escape(scope), *counts, *by_stage)
    # A pipe has no width: a machine or a file gets the table whole.
    Console(width=None if sys.stdout.isatty() else 240).print(table)
    told.print(f"nba: {len(population.customer_ids)} customers, facts from the lake, rules by the serving circuit")


@catalogue_app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="A catalogue.")],
    after: Annotated[Path, typer.Argument(help="Another.")],
    with_reach: Annotated[bool, typer.Option("--reach", help="Decide for everybody under both.")] = False,
) -> None:
    """Say what changes from one catalogue to another and, with --reach, for how many customers."""
    from service.catalogue.difference import difference, effect

    old, new = _compiled(before), _compiled(after)
    changes = difference(old.catalogue, new.catalogue)
    told.print(f"nba: {old.catalogue.version} -> {new.catalogue.version}, {len(changes)} changes")
    for change in changes:
        typer.echo(str(change))
    if not with_reach:
        return
    population, now = _population(new)
    scorers = _scorers(old, new)
    model = "the champion" if scorers[0] is not None else "the catalogue's priors, no model is here"
    told.print(f"nba: {len(population.customer_ids)} customers, no contacts so far, every consent given, {model}")
    for channel in (c for c in new.catalogue.channels if c in old.catalogue.channels):
        found = effect(old, new, scorers, population, channel, now)
        parts = [f"{channel}: {found.differ} of {found.customers} customers would be shown something else"]
        parts += [f"  + {action} to {n}" for action, n in found.gained.items()]
        parts += [f"  - {action} to {n}" for action, n in found.lost.items()]
        typer.echo("\n".join(parts))


def _compiled(path: Path) -> CompiledCatalogue:
    from features.matrix import Columns
    from service.catalogue.loader import load_catalogue
    from service.decision.engine import compile_catalogue

    columns = Columns()
    return compile_catalogue(load_catalogue(path, columns), columns)


def _population(compiled: CompiledCatalogue) -> tuple[Population, float]:
    from service.adapters.clock import WallClock, open_clock
    from service.adapters.latest_facts import NoFacts, latest_facts

    settings = Settings()
    clock = open_clock(settings.var / "clock.json") if settings.clock == "auto" else WallClock()
    now = clock.now()
    try:
        return latest_facts(settings.lake, compiled.columns.layout, now), now
    except NoFacts as error:
        raise CatalogueStop(str(error)) from None


def _scorers(old: CompiledCatalogue, new: CompiledCatalogue) -> tuple[Scorer | None, Scorer | None]:
    from service.adapters.bundle_dir import BundleDir
    from service.ports import BundleRefused

    bundles = BundleDir(Settings().var / "models")
    digest = bundles.current()
    if digest is None:
        return None, None
    try:
        bundle = bundles.load(digest)
    except BundleRefused as error:
        told.print(f"nba: the bundle in use cannot be loaded ({error}), so the catalogue's priors decide")
        return None, None
    return bundle.scorer_for(old), bundle.scorer_for(new)


def _request(compiled: CompiledCatalogue, channel: str, context: tuple[str, ...] | list[str]) -> Request:
    from service.catalogue.problems import suggest
    from service.decision.model import Request

    channels = compiled.catalogue.channels
    if channel and channel not in channels:
        raise CatalogueStop(f"no channel is called {channel!r}; {suggest(channel, channels, ', '.join(channels))}")
    fields = {field.name: field.vocabulary for field in compiled.catalogue.context}
    values: dict[str, float] = {}
    for given in context:
        name, _, value = given.partition("=")
        if name not in fields:
            raise CatalogueStop(f"no context field is called {name!r}; {suggest(name, fields, ', '.join(fields))}")
        values[name] = _code(name, value, fields[name])
    return Request(channel or channels[0], context=values)


def _code(name: str, value: str, vocabulary: tuple[str, ...]) -> float:
    try:
        return float(vocabulary.index(value)) if vocabulary else float(value)
    except ValueError:
        what = f"one of {', '.join(vocabulary)}" if vocabulary else "a number"
        raise CatalogueStop(f"{name} is {value!r}; write {what}") from None
