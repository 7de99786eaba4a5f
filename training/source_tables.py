"""What an adopter declares of the source tables: read from YAML, refused with file, table and field where it is wrong.

The file lies beside the tables: table -> `columns` (name -> text | integer | number | flag | moment | date), `key`,
`required`, `references` (column -> table.column), `moment` (the column that gaps are looked for in) and `gap_days`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

DECLARATION = "tables.yaml"
KINDS: Mapping[str, tuple[str, ...]] = {
    "text": ("VARCHAR",),
    "integer": ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT"),
    "number": ("FLOAT", "DOUBLE", "DECIMAL", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UINTEGER", "UBIGINT"),
    "flag": ("BOOLEAN",),
    "moment": ("TIMESTAMP WITH TIME ZONE",),
    "date": ("DATE",),
}
FIELDS = ("columns", "key", "required", "references", "moment", "gap_days")
GAP_DAYS = 7.0


class DeclarationError(ValueError):
    """The declaration cannot be used; one sentence names file, table and field."""


@dataclass(frozen=True)
class Table:
    """What is declared of one table; see the module."""

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    references: Mapping[str, str] = field(default_factory=dict)
    moment: str = ""
    gap_days: float = GAP_DAYS


def read_declaration(path: Path) -> list[Table]:
    """Read the declaration.

    Raises:
        DeclarationError: It is not there, is no YAML, or says something that cannot be.
    """
    if not path.is_file():
        raise DeclarationError(f"{path} is not there; declare the tables in it, as docs/bring-your-own-data.md shows")
    try:
        document = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise DeclarationError(f"{path} is not YAML: {str(error).splitlines()[0]}; correct it") from None
    if not isinstance(document, dict) or not document:
        raise DeclarationError(f"{path} declares no table; write `<table>: {{columns: {{<name>: text}}}}`")
    tables = [_table(path, str(name), said) for name, said in document.items()]
    columns = {table.name: table.columns for table in tables}
    for table in tables:
        for column, target in table.references.items():
            other, _, key = target.partition(".")
            if column not in table.columns or key not in columns.get(other, {}):
                raise DeclarationError(
                    f"{path}: {table.name}.references: {column} -> {target} names a column that is not declared"
                )
    return tables


def _table(path: Path, name: str, said: Any) -> Table:
    if not isinstance(said, dict) or not isinstance(said.get("columns"), dict):
        raise DeclarationError(f"{path}: {name} has no columns; write `columns: {{<name>: text}}`")
    for unknown in set(said) - set(FIELDS):
        raise DeclarationError(f"{path}: {name}.{unknown} is unknown; use {', '.join(FIELDS)}")
    for column, kind in said["columns"].items():
        if kind not in KINDS:
            raise DeclarationError(f"{path}: {name}.columns.{column}: {kind!r} is none of {', '.join(KINDS)}")
    named = [*said.get("key", ()), *said.get("required", ()), *([said["moment"]] if "moment" in said else [])]
    for column in named:
        if column not in said["columns"]:
            raise DeclarationError(f"{path}: {name} names {column!r}, which is not among its columns; declare it there")
    return Table(
        name, said["columns"], tuple(said.get("key", ())), tuple(said.get("required", ())),
        said.get("references", {}), said.get("moment", ""), float(said.get("gap_days", GAP_DAYS)),
    )  # fmt: skip
