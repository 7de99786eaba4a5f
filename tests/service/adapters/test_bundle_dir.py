"""Bundles: whole or refused, whatever happened to their files."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.adapters.bundle_dir import MANIFEST, BundleDir, read_checked, set_current, write_bundle
from service.decision.record import BUNDLE_FILES
from service.ports import BundleRefused
from tests.small_world import SmallWorld


@pytest.fixture
def models(small_world: SmallWorld, tmp_path: Path) -> Path:
    """A copy of the small world's bundles that a test may damage."""
    return Path(shutil.copytree(small_world.models, tmp_path / "models"))


def _files(models: Path, digest: str) -> dict[str, bytes]:
    return read_checked(models / digest, digest)[1]


def _with(models: Path, digest: str, name: str, change: Callable[[Any], Any]) -> str:
    """Write a bundle, whole by its digests, in which one JSON document was changed."""
    files = _files(models, digest)
    document = json.loads(files[name])
    files[name] = json.dumps(change(document) or document).encode()
    return write_bundle(models, files, "nba-propensity/9", "elsewhere")


def test_a_bundle_of_the_agent_loads(small_world: SmallWorld) -> None:
    """What the agent wrote is named by `current`, loads, and says what it is."""
    source = BundleDir(small_world.models)
    assert source.current() == small_world.digest
    bundle = source.load(small_world.digest)
    assert bundle.model_version == "nba-propensity/1"
    assert bundle.digest == small_world.digest
    assert len(bundle.plan.fields) == len(set(bundle.plan.fields.values())) > 50


@pytest.mark.parametrize("name", [*BUNDLE_FILES, MANIFEST])
@pytest.mark.parametrize("damage", ["cut", "flipped", "nul", "missing"])
def test_a_damaged_file_is_refused(models: Path, small_world: SmallWorld, name: str, damage: str) -> None:
    """Cut short, one bit flipped, a run of NUL bytes, or gone: refused before anything is made of it."""
    path = models / small_world.digest / name
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if damage == "cut":
        path.write_bytes(content[:middle])
    elif damage == "flipped":
        content[middle] ^= 1
        path.write_bytes(content)
    elif damage == "nul":
        content[middle : middle + 30] = bytes(30)
        path.write_bytes(content)
    else:
        path.unlink()
    with pytest.raises(BundleRefused, match=small_world.digest):
        BundleDir(models).load(small_world.digest)


def test_another_feature_contract_is_refused(models: Path, small_world: SmallWorld) -> None:
    """A model trained on other ratios must not read this code's columns; the message says what differs."""
    digest = _with(models, small_world.digest, "contract.json", lambda d: d["features"]["ratios"].pop() and None)
    with pytest.raises(BundleRefused, match="another feature contract: ratios differs"):
        BundleDir(models).load(digest)


def test_swapped_inputs_are_refused(models: Path, small_world: SmallWorld) -> None:
    """The same columns in another order are another contract."""

    def swap(document: dict[str, Any]) -> None:
        inputs = document["features"]["model_inputs"]
        inputs[3], inputs[4] = inputs[4], inputs[3]

    with pytest.raises(BundleRefused, match="model_inputs differs"):
        BundleDir(models).load(_with(models, small_world.digest, "contract.json", swap))


def test_a_plan_that_misses_a_fact_is_refused(models: Path, small_world: SmallWorld) -> None:
    """Every fact of the contract is read, or the bundle is not served."""
    digest = _with(models, small_world.digest, "plan.json", lambda d: d["fields"].popitem() and None)
    with pytest.raises(BundleRefused, match="one to one"):
        BundleDir(models).load(digest)


@pytest.mark.parametrize(("part", "message"), [("raw", "scores differ"), ("probabilities", "probabilities differ")])
def test_golden_rows_that_do_not_come_out_are_refused(
    models: Path, small_world: SmallWorld, part: str, message: str
) -> None:
    """A score that is off by a millionth stops the bundle."""

    def shift(document: dict[str, Any]) -> None:
        document[part][5] += 1e-6

    with pytest.raises(BundleRefused, match=message):
        BundleDir(models).load(_with(models, small_world.digest, "golden.json", shift))


def test_a_bundle_without_a_needed_key_is_refused_in_one_sentence(models: Path, small_world: SmallWorld) -> None:
    """Whatever is wrong inside a document comes out as a refusal, never as a bare error."""
    digest = _with(models, small_world.digest, "cold_start.json", lambda d: d["facts"].popitem() and None)
    with pytest.raises(BundleRefused, match="KeyError"):
        BundleDir(models).load(digest)


@pytest.mark.parametrize("text", ["", "../../etc", "0123", "g" * 32, "\x00" * 32])
def test_current_is_a_digest_or_nothing(tmp_path: Path, text: str) -> None:
    """A `current` that names no digest leads nowhere, least of all out of the folder."""
    (tmp_path / "current").write_text(text)
    assert BundleDir(tmp_path).current() is None


def test_no_bundle_was_ever_made(tmp_path: Path) -> None:
    """A folder that does not exist has no current bundle, and loading an unknown digest is a refusal."""
    assert BundleDir(tmp_path / "none").current() is None
    with pytest.raises(BundleRefused):
        BundleDir(tmp_path / "none").load("0" * 32)


def test_writing_the_same_bundle_again_changes_nothing(models: Path, small_world: SmallWorld) -> None:
    """A bundle is named after its content; a damaged one under its name is set aside and written anew."""
    folder = models / small_world.digest
    manifest = json.loads((folder / MANIFEST).read_bytes())
    files = _files(models, small_world.digest)
    assert write_bundle(models, files, manifest["model_version"], manifest["source"]) == small_world.digest
    (folder / "model.txt").write_bytes(b"damaged")
    assert write_bundle(models, files, manifest["model_version"], manifest["source"]) == small_world.digest
    assert hashlib.sha256((folder / "model.txt").read_bytes()).hexdigest() == manifest["files"]["model.txt"]
    assert not list(models.glob(".new-*"))


def test_current_is_replaced_in_one_step(models: Path, small_world: SmallWorld) -> None:
    """After `set_current` the new digest is named, and no partial file is left."""
    set_current(models, "0" * 32)
    assert BundleDir(models).current() == "0" * 32
    assert not list(models.glob(".current-*"))


def test_loading_a_bundle_imports_none_of_the_heavy_stack(small_world: SmallWorld) -> None:
    """Serving needs neither MLflow, Feast nor pandas, and LightGBM only where lignum is not there."""
    code = (
        "import sys, pathlib; from service.adapters.bundle_dir import BundleDir;"
        f"BundleDir(pathlib.Path({str(small_world.models)!r})).load({small_world.digest!r});"
        "heavy = {'mlflow', 'feast', 'pandas', 'lightgbm', 'sklearn'} & set(sys.modules);"
        "print(sorted(heavy), 'lignum' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[] True", "['lightgbm'] False")
