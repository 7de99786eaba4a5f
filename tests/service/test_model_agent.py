"""The agent: a sound champion becomes a bundle, an unsound one never does."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from features.contract import LAYOUT, REGISTERED_MODEL
from service.adapters.bundle_dir import BundleDir, read_plan
from service.adapters.feast_plan import resolve_plan
from service.adapters.model_check import check_in_child
from service.model_agent import FEATURE_REPO, FETCHED, follow, sync_once
from service.ports import BundleRefused
from tests.small_world import SmallWorld, feast_environment

Damage = Callable[[Path], None]


def _edit(name: str, change: Callable[[bytes], bytes]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        before = path.read_bytes()
        after = change(before)
        if after == before:
            raise AssertionError(f"the damage to {name} changes nothing")
        path.write_bytes(after)

    return damage


def _middle(content: bytes, run: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + run + content[middle + len(run) :]


def _golden(change: Callable[[dict[str, list[float]]], None]) -> Damage:
    def edit(content: bytes) -> bytes:
        document = json.loads(content)
        change(document)
        return json.dumps(document).encode()

    return _edit("golden.json", edit)


def _shift(document: dict[str, list[float]]) -> None:
    document["raw"][3] += 1e-6


def _swap(content: bytes) -> bytes:
    """Swap two inputs of the model's header."""
    head, names, rest = content.partition(b"feature_names=")
    listed, newline, rest = rest.partition(b"\n")
    columns = listed.split(b" ")
    columns[10], columns[11] = columns[11], columns[10]
    return head + names + b" ".join(columns) + newline + rest


DAMAGES = {
    "cut short": _edit("model.txt", lambda c: c[: len(c) // 2]),
    "cut within the last tree": _edit(
        "model.txt", lambda c: c[: c.find(b"end of trees") - 400] + c[c.find(b"end of trees") :]
    ),
    "a run of NUL bytes": _edit("model.txt", lambda c: _middle(c, bytes(30))),
    "digits overwritten": _edit("model.txt", lambda c: c.replace(b"leaf_value=", b"leaf_value=9", 1)),
    "columns swapped": _edit("model.txt", _swap),
    "foreign objective": _edit(
        "model.txt", lambda c: c.replace(b"objective=binary sigmoid:1", b"objective=regression", 1)
    ),
    "not a model": _edit("model.txt", lambda c: b"\x80\x04\x95pickle"),
    "golden scores of another": _golden(_shift),
    "contract of another": _edit("contract.json", lambda c: c.replace(b"spend_trend", b"spend_bend")),
    "calibrator turned round": _edit("calibrator.json", lambda c: c.replace(b'"slope": ', b'"slope": -', 1)),
}


@pytest.fixture
def folder(small_world: SmallWorld, tmp_path: Path) -> Path:
    """A candidate as fetched from the registry."""
    target = tmp_path / "candidate"
    target.mkdir()
    for name in FETCHED:
        shutil.copy(small_world.models / small_world.digest / name, target / name)
    return target


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_an_unsound_model_is_refused_and_this_process_lives(folder: Path, damage: Damage) -> None:
    """Whatever a bad model does to the process that loads it, here it is a sentence."""
    damage(folder)
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        check_in_child(folder, wall_seconds=20)


def test_a_check_that_takes_too_long_is_ended(folder: Path) -> None:
    """The clock on the wall stops a process that hangs."""
    with pytest.raises(ValueError, match="longer than"):
        check_in_child(folder, wall_seconds=0.05)


@pytest.fixture
def damaged_champion(small_world: SmallWorld) -> Iterator[tuple[str, str]]:
    """The next version, champion, with a model file that was cut; afterwards all is as before."""
    client = MlflowClient(small_world.mlflow_uri, small_world.mlflow_uri)
    first = client.get_model_version(REGISTERED_MODEL, "1")
    location = client.get_logged_model(first.source.removeprefix("models:/")).artifact_location
    path = Path(urlsplit(location).path) / "model.lgb"
    sound = path.read_bytes()
    path.write_bytes(sound[: len(sound) // 3])
    version = client.create_model_version(REGISTERED_MODEL, location, first.run_id).version
    client.set_registered_model_alias(REGISTERED_MODEL, "champion", version)
    yield str(version), small_world.digest
    path.write_bytes(sound)
    client.set_registered_model_alias(REGISTERED_MODEL, "champion", "1")
    client.delete_model_version(REGISTERED_MODEL, version)


def test_a_damaged_champion_leaves_the_bundle_in_use(
    small_world: SmallWorld, damaged_champion: tuple[str, str], tmp_path: Path
) -> None:
    """It is refused with a reason that stays on record, is not tried again, and the old bundle goes on serving."""
    version, digest = damaged_champion
    models = Path(shutil.copytree(small_world.models, tmp_path / "models"))
    with pytest.raises(BundleRefused, match=rf"{REGISTERED_MODEL}/{version}: .*whole LightGBM text model"):
        sync_once(models, small_world.mlflow_uri, small_world.feast_registry)
    assert BundleDir(models).current() == digest
    refused = json.loads((models / "refused.json").read_text())
    assert [mark.split()[0] for mark in refused] == [f"{REGISTERED_MODEL}/{version}"]
    assert sync_once(models, small_world.mlflow_uri, small_world.feast_registry) == digest
    assert BundleDir(models).load(digest).model_version == f"{REGISTERED_MODEL}/1"


def test_the_same_champion_gives_the_same_bundle(small_world: SmallWorld, tmp_path: Path) -> None:
    """Made anew elsewhere from the same version, a bundle has the same digest; made already, it is left alone."""
    made = sync_once(tmp_path / "models", small_world.mlflow_uri, small_world.feast_registry)
    assert made == small_world.digest
    before = (tmp_path / "models" / made / "manifest.json").stat().st_mtime_ns
    assert sync_once(tmp_path / "models", small_world.mlflow_uri, small_world.feast_registry) == made
    assert (tmp_path / "models" / made / "manifest.json").stat().st_mtime_ns == before


def test_a_bundle_that_was_damaged_on_disk_is_made_again(small_world: SmallWorld, tmp_path: Path) -> None:
    """The agent heals what a serving process would refuse."""
    models = Path(shutil.copytree(small_world.models, tmp_path / "models"))
    (models / small_world.digest / "golden.json").write_bytes(b"{}")
    assert sync_once(models, small_world.mlflow_uri, small_world.feast_registry) == small_world.digest
    assert BundleDir(models).load(small_world.digest).digest == small_world.digest


def test_without_a_champion_there_is_no_bundle(tmp_path: Path, small_world: SmallWorld) -> None:
    """An empty registry is no error: there is just nothing to serve yet."""
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    assert sync_once(tmp_path / "models", empty, small_world.feast_registry) is None


def test_the_agent_outlives_a_registry_that_is_away(small_world: SmallWorld, tmp_path: Path) -> None:
    """Unreachable MLflow is a log line; the loop ends only when it is told to."""
    stop = threading.Event()
    arguments = (tmp_path / "models", f"sqlite:///{tmp_path}/no/such/folder/mlflow.db", small_world.feast_registry)
    loop = threading.Thread(target=follow, args=arguments, kwargs={"every_seconds": 0.01, "stop": stop})
    loop.start()
    loop.join(1.0)
    assert loop.is_alive()
    stop.set()
    loop.join(30.0)
    assert not loop.is_alive()


def test_the_plan_reads_every_fact_where_feast_writes_it(small_world: SmallWorld) -> None:
    """Each fact and view has its field, and a customer's key is made of parts that Feast itself gave."""
    with feast_environment(small_world.var) as registry:
        plan = read_plan(resolve_plan(FEATURE_REPO, registry))
    assert sorted(plan.fields.values()) == sorted(LAYOUT.facts)
    assert sorted(plan.timestamps.values()) == sorted(view.name for view in LAYOUT.views)
    assert b"customer_id" in plan.key_prefix
    assert plan.key_suffix.endswith(b"nba")
