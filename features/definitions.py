"""The Feast repo, generated from the contract: entity, views with push sources over the lake's snapshots, service.

Decides how the contract's facts look to Feast. It must not know how facts come about or what they are used for. Feast
executes this file on `apply` and finds only attributes of the module, hence the last line.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, Float64, String

from features.contract import ENTITY, FEATURE_SERVICE, JOIN_KEY, LAYOUT
from features.layout import Fact, View

OWNER = "nba"


def facts_folder() -> Path:
    """Return where the snapshots lie: under NBA_VAR, else under var/ of this checkout.

    Absolute, as Feast's DuckDB store takes a relative path from the working directory.
    """
    root = os.environ.get("NBA_VAR") or Path(__file__).resolve().parent.parent / "var"
    return Path(root).resolve() / "lake" / "facts"


def feast_objects(folder: Path) -> dict[str, Any]:
    """Build all Feast objects for snapshots under `folder`, by the name of the attribute that Feast shall find."""
    entity = Entity(
        name=ENTITY,
        join_keys=[JOIN_KEY],
        value_type=ValueType.STRING,
        description="A customer; in the example a household.",
        owner=OWNER,
    )
    views = {f"{view.name}_view": _feature_view(view, entity, folder) for view in LAYOUT.views}
    service = FeatureService(
        name=FEATURE_SERVICE,
        features=list(views.values()),
        description="All facts that decisions and models read, as of a moment; columns come of them in matrix.py.",
        owner=OWNER,
    )
    return {"customer": entity, **views, "service": service}


def _feature_view(view: View, entity: Entity, folder: Path) -> FeatureView:
    snapshots = FileSource(
        name=f"{view.name}_snapshots",
        path=str(folder / view.name / "*.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
        description=f"Snapshots and pushed rows of {view.name} in the lake.",
        owner=OWNER,
    )
    return FeatureView(
        name=view.name,
        entities=[entity],
        # Facts do not age by themselves and a household's silence is information: the age limit is the contract's.
        ttl=timedelta(0),
        schema=[_field(fact) for fact in view.facts],
        source=PushSource(name=f"{view.name}_push", batch_source=snapshots, owner=OWNER),
        description=view.description,
        tags={"max_age_days": f"{view.max_age_days:g}"},
        owner=OWNER,
    )


def _field(fact: Fact) -> Field:
    tags = {"kind": fact.kind.value}
    if fact.half_life_days is not None:
        tags["half_life_days"] = f"{fact.half_life_days:g}"
    if fact.per is not None:
        tags["per"] = fact.per
    kind = Array(Float64) if fact.length > 1 else String if fact.vocabulary else Float64
    return Field(name=fact.name, dtype=kind, description=fact.description, tags=tags)


globals().update(feast_objects(facts_folder()))
