"""A registered version scores in training as its bundle does in serving."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from features.matrix import Columns
from service.adapters.bundle_dir import BundleDir
from service.catalogue.loader import load_catalogue
from service.decision.engine import compile_catalogue
from tests.service.decision.worlds import CATALOGUE, NOW, random_batch
from tests.small_world import SmallWorld
from training.version_scorer import NoSuchVersion, domain_of, make_scorer_of


def test_a_version_and_its_bundle_give_the_same_scores(small_world: SmallWorld) -> None:
    """By number, by alias and from the bundle's folder, scores and evidence are those of the bundle, to the bit."""
    compiled = compile_catalogue(load_catalogue(CATALOGUE), Columns())
    bundle = BundleDir(small_world.models).load(small_world.digest)
    batch = random_batch(30, 2)
    as_of = compiled.columns.as_of(batch.facts, NOW)
    customers = np.repeat(np.arange(30), 5)
    actions = np.tile(np.arange(5), 30)
    serving = bundle.scorer_for(compiled)
    expected = serving.score(batch, as_of, customers, actions, NOW, "app")
    for named in ("1", "champion", str(small_world.models / small_world.digest)):
        scorer = make_scorer_of(named, small_world.mlflow_uri)(compiled)
        assert np.array_equal(scorer.score(batch, as_of, customers, actions, NOW, "app"), expected)
        assert np.array_equal(scorer.evidence, serving.evidence)
        assert scorer.uplift(batch, as_of, customers, actions, NOW, "app") is None
    assert domain_of("1", small_world.mlflow_uri).windows["cross_sell"] == (30.0, 30.0)


def test_a_version_that_cannot_be_had_is_a_sentence(small_world: SmallWorld, tmp_path: Path) -> None:
    """A number that is not there, a file that is missing and another feature contract each say what to do."""
    with pytest.raises(NoSuchVersion, match="there is no version '99'"):
        make_scorer_of("99", small_world.mlflow_uri)
    folder = Path(shutil.copytree(small_world.models / small_world.digest, tmp_path / "bundle"))
    contract = json.loads((folder / "contract.json").read_text())
    (folder / "contract.json").write_text(json.dumps({**contract, "features_version": "older"}))
    with pytest.raises(NoSuchVersion, match="feature contract older"):
        make_scorer_of(str(folder), small_world.mlflow_uri)
    (folder / "cold_start.json").unlink()
    with pytest.raises(NoSuchVersion, match=r"has no cold_start\.json"):
        make_scorer_of(str(folder), small_world.mlflow_uri)
