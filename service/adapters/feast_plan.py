"""Resolves Feast's feature service into a read plan: the key of a customer's hash and the field of each fact.

Asks Feast itself for every byte, so that serving processes can read its Redis layout without importing it. Imports
Feast inside its functions: whoever calls them pays the seconds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from features.contract import FEATURE_SERVICE, JOIN_KEY, LAYOUT

PLACEHOLDERS = {"NBA_FEAST_REDIS": "localhost:6379"}
"""Variables of feature_store.yaml that a plan does not need, since it opens no connection."""


def resolve_plan(feature_repo: Path, registry: str) -> dict[str, Any]:
    """Resolve the plan as the JSON-able data of plan.json.

    Args:
        feature_repo: Folder of feature_store.yaml.
        registry: SQLAlchemy URL of Feast's registry.

    Raises:
        ValueError: where the registry's feature service does not hold exactly the contract's facts.
    """
    from feast import FeatureStore
    from feast.infra.online_stores.helpers import _mmh3
    from feast.infra.online_stores.redis import _versioned_fv_name

    config = load_config(feature_repo, {**PLACEHOLDERS, **os.environ, "NBA_FEAST_REGISTRY": registry})
    store = FeatureStore(config=config)
    prefix, suffix = _key_parts(config.project, config.entity_key_serialization_version)
    fields: dict[str, str] = {}
    timestamps: dict[str, str] = {}
    found: dict[str, set[str]] = {}
    for projection in store.get_feature_service(FEATURE_SERVICE).feature_view_projections:
        stored_name = _versioned_fv_name(store.get_feature_view(projection.name), config)
        timestamps[f"_ts:{stored_name}".encode().hex()] = projection.name
        found[projection.name] = {feature.name for feature in projection.features}
        for feature in projection.features:
            field = _mmh3(f"{stored_name}:{feature.name}").hex()
            if field in fields:
                raise ValueError(f"facts {fields[field]} and {feature.name} hash to one field; rename one of them")
            fields[field] = feature.name
    expected = {view.name: {fact.name for fact in view.facts} for view in LAYOUT.views}
    if found != expected:
        names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise ValueError(f"Feast's registry differs from the feature contract in {', '.join(names)}: run `nba apply`")
    return {"key_prefix": prefix.hex(), "key_suffix": suffix.hex(), "fields": fields, "timestamps": timestamps}


def load_config(feature_repo: Path, variables: Mapping[str, str]) -> Any:
    """Load feature_store.yaml with its variables expanded; the environment is as before afterwards."""
    from feast.repo_config import load_repo_config

    with _environment(variables):
        return load_repo_config(feature_repo, feature_repo / "feature_store.yaml")


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _key_parts(project: str, version: int) -> tuple[bytes, bytes]:
    """Find what comes before and after (length, id) in a key, from the key that Feast makes for one id."""
    from feast.infra.online_stores.helpers import _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    def key_of(customer_id: str) -> bytes:
        entity = EntityKey(join_keys=[JOIN_KEY], entity_values=[Value(string_val=customer_id)])
        key: bytes = _redis_key(project, entity, entity_key_serialization_version=version)
        return key

    probe, other = "\N{SNOWMAN}probe", "x"
    prefix, found, suffix = key_of(probe).partition(_sized(probe))
    if not found or key_of(other) != prefix + _sized(other) + suffix:
        raise ValueError(
            "Feast lays out its keys in another way than this version knows; entity keys must be version 3"
        )
    return prefix, suffix


def _sized(customer_id: str) -> bytes:
    text = customer_id.encode()
    return len(text).to_bytes(4, "little") + text
