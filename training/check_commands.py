"""The commands `nba dataset check` and `nba doctor data`: is this fit to learn from, and are these tables fit to load?

Exit code 1 where something is wrong, so that a pipeline stops. Imports what it needs when it runs, since every `nba`
command loads this module.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.pipeline import CHECKOUT
from training.terminal import for_tables

if TYPE_CHECKING:
    import pyarrow as pa

    from training.findings import Finding

DEFAULT_VAR = CHECKOUT / "var"
EXAMPLE_TABLES = Path(__file__).with_name("example_tables.yaml")
dataset_app = typer.Typer(help="The rows that models learn from.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to `nba`."""
    app.add_typer(dataset_app, name="dataset")
    for group in app.registered_groups:
        if group.name == "doctor" and group.typer_instance is not None:
            group.typer_instance.command("data")(doctor_data)


@dataset_app.callback()
def dataset() -> None:
    """The rows that models learn from."""


@dataset_app.command("check")
def check(
    table: Annotated[Path | None, typer.Argument(help="Parquet or CSV; none: the rows that `nba train` makes.")] = None,
    label: Annotated[str, typer.Option(help="Column of 0 and 1: what came of it.")] = "label",
    customer: Annotated[str, typer.Option(help="Column: who.")] = "customer_id",
    moment: Annotated[str, typer.Option(help="Column: when it was shown or looked at; none to leave out.")] = "",
    action: Annotated[str, typer.Option(help="Column: what was shown; none to leave out.")] = "",
    control: Annotated[str, typer.Option(help="What stands in it where nothing was shown.")] = "none",
    probability: Annotated[str, typer.Option(help="Column: probability of what was shown.")] = "",
    ignore: Annotated[str, typer.Option(help="Columns that are no inputs, with commas.")] = "",
    key: Annotated[str, typer.Option(help="Columns that tell two offers at one moment apart, with commas.")] = "",
    var: Annotated[Path, typer.Option(envvar="NBA_VAR", help="Folder of the history.")] = DEFAULT_VAR,
) -> None:
    """Look for leakage, duplicates, missing arms and too few positives, and say what to do about each."""
    from training.dataset_check import Roles, check_dataset

    if table is None:
        from training.dataset import LOGGED

        ignored: tuple[str, ...] = ("row_id", "issue", "member", "campaign_type", "known_at", "group", *LOGGED)
        roles = Roles("label", "customer_id", "moment", "offer", key=("campaign_id",), ignored=ignored)
        rows = _training_rows(var / "history")
    else:
        roles = Roles(label, customer, moment, action, control, probability, _names(key), _names(ignore))
        rows = _read(table)
    _end(check_dataset(rows, roles))


def doctor_data(
    folder: Annotated[Path | None, typer.Argument(help="Folder of Parquet or CSV tables; none: var/history.")] = None,
    tables: Annotated[Path | None, typer.Option(help="Declaration; tables.yaml in the folder by default.")] = None,
    var: Annotated[Path, typer.Option(envvar="NBA_VAR", help="Folder of the history.")] = DEFAULT_VAR,
) -> None:
    """Look at source tables by row: types, keys, references, time zones, gaps; exit code 1 when something is wrong."""
    from training.source_check import check_sources
    from training.source_tables import DeclarationError

    try:
        found = check_sources(folder or var / "history", tables or (EXAMPLE_TABLES if folder is None else None))
    except DeclarationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    _end(found)


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def _training_rows(history: Path) -> pa.Table:
    """Return the example's labelled rows with their inputs; what an issue asks of a member is one offer."""
    import pyarrow as pa

    if not (history / "lines.parquet").is_file():
        typer.echo(f"there is no history in {history}; name a table, or run `nba prepare` first", err=True)
        raise typer.Exit(1)
    # Point-in-time joins read the lake alone: what the definitions expand must be there, and no online store is asked.
    needed = {"NBA_FEAST_REDIS": "127.0.0.1:1", "NBA_FEAST_REGISTRY": f"sqlite:///{history.parent / 'registry.db'}"}
    for name, value in {**needed, "NBA_VAR": str(history.parent)}.items():
        os.environ.setdefault(name, value)
    from training.dataset import build_dataset, feast_facts, label_rows, monthly_moments

    dataset = build_dataset(label_rows(history, monthly_moments(history)), feast_facts())
    parts = (dataset.rows[name].to_pylist() for name in ("issue", "member"))
    offers = [" ".join(part for part in offer if part) for offer in zip(*parts, strict=True)]
    table = dataset.rows.append_column("offer", pa.array(offers))
    for i, name in enumerate(dataset.names):
        table = table.append_column(f"input: {name}", pa.array(dataset.inputs[:, i], from_pandas=True))
    return table


def _read(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    if not path.is_file():
        typer.echo(f"{path} is not there; give a Parquet or CSV file", err=True)
        raise typer.Exit(1)
    try:
        return csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    except pa.ArrowInvalid as error:
        typer.echo(f"{path} cannot be read: {str(error).splitlines()[0]}; give a Parquet or CSV file", err=True)
        raise typer.Exit(1) from None


def _end(found: list[Finding]) -> None:
    from training.findings import is_usable, show

    show(found, for_tables())
    raise typer.Exit(0 if is_usable(found) else 1)
