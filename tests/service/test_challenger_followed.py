"""The agent follows the challenger as it follows the champion, and never at the champion's cost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from features.contract import REGISTERED_MODEL
from service import model_agent
from service.adapters.bundle_dir import BundleDir, challenger_digest, current_digest, prune_bundles
from service.model_agent import sync_challenger, sync_once
from service.ports import BundleRefused
from tests.small_world import SmallWorld


class Registry:
    """A second version in the small world's registry, and an agent's folder of bundles."""

    def __init__(self, world: SmallWorld, folder: Path) -> None:
        self.world, self.models = world, Path(shutil.copytree(world.models, folder / "models"))
        self.client: Any = MlflowClient(world.mlflow_uri, world.mlflow_uri)
        first = self.client.get_model_version(REGISTERED_MODEL, "1")
        self.location = self.client.get_logged_model(first.source.removeprefix("models:/")).artifact_location
        self.version = str(
            self.client.create_model_version(REGISTERED_MODEL, self.location, first.run_id, tags=first.tags).version
        )

    def alias(self, name: str, version: str | None) -> None:
        """Give an alias to a version, or take it away."""
        if version is None:
            self.client.delete_registered_model_alias(REGISTERED_MODEL, name)
        else:
            self.client.set_registered_model_alias(REGISTERED_MODEL, name, version)

    def look(self) -> tuple[str | None, str | None]:
        """Look once, as the agent does; return the bundles in use."""
        for sync in (sync_once, sync_challenger):
            sync(self.models, self.world.mlflow_uri, self.world.feast_registry)
        return current_digest(self.models), challenger_digest(self.models)

    @property
    def model(self) -> Path:
        """The model's text, which both versions share."""
        return Path(urlsplit(self.location).path) / "model.lgb"


@pytest.fixture
def registry(small_world: SmallWorld, tmp_path: Path) -> Iterator[Registry]:
    """The registry with a challenger; afterwards all is as before."""
    registry = Registry(small_world, tmp_path)
    before = registry.client.get_model_version_by_alias(REGISTERED_MODEL, "challenger").version
    sound = registry.model.read_bytes()
    registry.alias("challenger", registry.version)
    yield registry
    registry.model.write_bytes(sound)
    registry.alias("champion", "1")
    registry.alias("challenger", str(before))
    registry.client.delete_model_version(REGISTERED_MODEL, registry.version)


def test_a_challenger_is_followed_to_the_throne_and_back(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, small_world: SmallWorld
) -> None:
    """Beside the champion it has a bundle of its own; promoted it is the champion alone; rolled back it is one again.

    A bundle that is there is not fetched a second time.
    """
    current, challenger = registry.look()
    assert current == small_world.digest
    assert challenger not in (None, current)
    assert BundleDir(registry.models).load(str(challenger)).model_version == f"{REGISTERED_MODEL}/{registry.version}"
    monkeypatch.setattr(model_agent, "_fetch_checked", lambda *told: pytest.fail("it was fetched again"))
    assert registry.look() == (current, challenger)
    registry.alias("champion", registry.version)
    assert registry.look() == (challenger, None)
    monkeypatch.undo()
    registry.alias("champion", "1")
    assert registry.look() == (current, challenger)
    registry.alias("challenger", None)
    assert registry.look() == (current, None)


def test_the_challengers_bundle_is_not_pruned(registry: Registry) -> None:
    """However old it is: it is in use."""
    current, challenger = registry.look()
    assert prune_bundles(registry.models, keep=0, younger_seconds=0.0, now=4e9) == ()
    assert registry.look() == (current, challenger)


def test_a_refused_challenger_costs_the_champion_nothing(registry: Registry) -> None:
    """Refused with a reason on record, once; nobody is the challenger then, and the champion goes on."""
    current, _ = registry.look()
    third = Registry(registry.world, registry.models.parent / "third")
    registry.model.write_bytes(registry.model.read_bytes()[:5000])
    registry.alias("challenger", third.version)
    try:
        with pytest.raises(BundleRefused, match=f"{REGISTERED_MODEL}/{third.version}: "):
            registry.look()
        assert (current_digest(registry.models), challenger_digest(registry.models)) == (current, None)
        refused = json.loads((registry.models / "refused.json").read_text())
        assert [mark.split()[0] for mark in refused] == [f"{REGISTERED_MODEL}/{third.version}"]
        assert registry.look() == (current, None)
    finally:
        registry.client.delete_model_version(REGISTERED_MODEL, third.version)
