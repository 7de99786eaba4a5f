"""Damaged and unfit model versions: none becomes a bundle, none takes a process down, the old one goes on serving."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mlflow import MlflowClient

from features.contract import REGISTERED_MODEL
from service.adapters.bundle_dir import current_digest
from service.adapters.model_check import check_in_child
from service.decision.record import FILES_TAG, files_digest
from service.model_agent import FETCHED, sync_once
from service.ports import BundleRefused
from tests.fragile import Caller
from tests.small_world import SmallWorld
from tests.test_degraded import copy_of_models, service

Damage = Callable[[bytes, random.Random], bytes]


def cut(text: bytes, seeded: random.Random) -> bytes:
    """Lose the end."""
    return text[: seeded.randrange(len(text))]


def flip(text: bytes, seeded: random.Random) -> bytes:
    """Turn a few bits."""
    damaged = bytearray(text)
    for _ in range(seeded.choice([1, 1, 1, 8, 64])):
        damaged[seeded.randrange(len(text))] ^= 1 << seeded.randrange(8)
    return bytes(damaged)


def zero(text: bytes, seeded: random.Random) -> bytes:
    """Lose a run of bytes to NUL, as a disk does."""
    start, length = seeded.randrange(len(text)), seeded.choice([1, 30, 512, 4096])
    return text[:start] + bytes(len(text[start : start + length])) + text[start + length :]


def swap_names(text: bytes, seeded: random.Random) -> bytes:
    """Name two inputs the other way round."""
    names = _header(text, b"feature_names").split(b" ")
    a, b = seeded.sample(range(len(names)), 2)
    names[a], names[b] = names[b], names[a]
    return text.replace(b"feature_names=" + _header(text, b"feature_names"), b"feature_names=" + b" ".join(names))


def swap_columns(text: bytes, seeded: random.Random) -> bytes:
    """Split on one column where another was meant, under the right names: what no header shows."""
    used = [int(n) for line in re.findall(rb"split_feature=(.*)", text) for n in line.split()]
    often = sorted(set(used), key=used.count, reverse=True)[:6]
    a, b = seeded.sample(often, 2)
    turned = {str(a).encode(): str(b).encode(), str(b).encode(): str(a).encode()}

    def turn(match: re.Match[bytes]) -> bytes:
        return b"split_feature=" + b" ".join(turned.get(n, n) for n in match[1].split(b" "))

    return re.sub(rb"split_feature=(.*)", turn, text)


def other_objective(text: bytes, seeded: random.Random) -> bytes:
    """Be a model of something else."""
    other = seeded.choice([b"regression", b"poisson", b"lambdarank", b"binary sigmoid:2", b"cross_entropy", b""])
    return text.replace(b"objective=binary sigmoid:1", b"objective=" + other, 1)


def fewer_columns(text: bytes, seeded: random.Random) -> bytes:
    """Know fewer inputs than there are, or more."""
    names = _header(text, b"feature_names").split(b" ")
    less = names[: -seeded.randrange(1, 4)] if seeded.random() < 0.5 else [*names, b"one_more"]
    head = b"feature_names=" + b" ".join(less)
    counted = re.sub(rb"max_feature_idx=\d+", b"max_feature_idx=%d" % (len(less) - 1), text, count=1)
    return counted.replace(b"feature_names=" + _header(text, b"feature_names"), head, 1)


def sick_leaves(text: bytes, seeded: random.Random) -> bytes:
    """Hold a leaf that is no number."""
    trees = re.findall(rb"leaf_value=.*", text)
    tree = seeded.choice(trees)
    leaves = tree.removeprefix(b"leaf_value=").split(b" ")
    leaves[seeded.randrange(len(leaves))] = seeded.choice([b"nan", b"inf", b"-inf", b"1e300", b"-nan"])
    return text.replace(tree, b"leaf_value=" + b" ".join(leaves), 1)


AT_REST: tuple[Damage, ...] = (cut, flip, zero)
"""Happen to a file after it was registered: its version's tag knows what it was."""
AT_BIRTH: tuple[Damage, ...] = (swap_names, swap_columns, other_objective, fewer_columns, sick_leaves)
"""Were registered like that, under a tag of their own."""


def _header(text: bytes, name: bytes) -> bytes:
    found = re.search(rb"^" + name + rb"=(.*)$", text, re.MULTILINE)
    if found is None:
        raise AssertionError(name)
    return found[1]


@dataclass
class Rig:
    """An agent's folder with a sound bundle, a service on it, and a registry that takes damaged versions."""

    world: SmallWorld
    models: Path
    port: int
    tmp: Path
    versions: list[str] = field(default_factory=list)

    @property
    def sound(self) -> dict[str, bytes]:
        """The files of the sound version."""
        return {name: (self.world.models / self.world.digest / name).read_bytes() for name in FETCHED}

    def register(self, model: bytes, *, is_signed: bool) -> None:
        """Make a version with this model the champion; signed: under the digest of its own files."""
        files = {**self.sound, "model.txt": model}
        folder = self.tmp / f"version-{len(self.versions)}"
        folder.mkdir()
        for name, artifact in FETCHED.items():
            (folder / artifact).write_bytes(files[name])
        client = MlflowClient(self.world.mlflow_uri, self.world.mlflow_uri)
        tags = {FILES_TAG: files_digest(files if is_signed else self.sound)}
        version = str(client.create_model_version(REGISTERED_MODEL, folder.as_uri(), tags=tags).version)
        self.versions.append(version)
        client.set_registered_model_alias(REGISTERED_MODEL, "champion", version)

    def sync(self) -> str | None:
        """Let the agent look once."""
        return sync_once(self.models, self.world.mlflow_uri, self.world.feast_registry)

    def check_serving(self) -> None:
        """See that the sound model is current and serves."""
        assert current_digest(self.models) == self.world.digest
        caller = Caller(self.port)
        answer = caller.decide("1", dry_run=True)
        caller.close()
        assert answer.status == 200
        assert answer.body["versions"]["model"].endswith(self.world.digest[:12])


@pytest.fixture
def rig(small_world: SmallWorld, tmp_path: Path) -> Iterator[Rig]:
    var = copy_of_models(small_world, tmp_path / "var")
    with service(var, None, NBA_RELOAD_SECONDS="0.02") as port:
        rig = Rig(small_world, var / "models", port, tmp_path)
        try:
            yield rig
        finally:
            client = MlflowClient(small_world.mlflow_uri, small_world.mlflow_uri)
            client.set_registered_model_alias(REGISTERED_MODEL, "champion", "1")
            for version in rig.versions:
                client.delete_model_version(REGISTERED_MODEL, version)


def refuse_many(rig: Rig, count: int) -> None:
    """Let the agent meet so many damaged versions, one kind after the other."""
    sound = rig.sound["model.txt"]
    kinds = [(damage, False) for damage in AT_REST] + [(damage, True) for damage in AT_BIRTH]
    for n in range(count):
        damage, is_signed = kinds[n % len(kinds)]
        damaged = damage(sound, random.Random(n))
        assert damaged != sound, damage.__name__
        rig.register(damaged, is_signed=is_signed)
        with pytest.raises(BundleRefused, match=rf"{REGISTERED_MODEL}/{rig.versions[-1]}: "):
            rig.sync()
        rig.check_serving()


def survive_many(rig: Rig, count: int) -> tuple[int, int]:
    """Load so many files damaged at rest, whose digest nobody kept, in the checking child; return refused, passed."""
    folder = rig.tmp / "candidate"
    shutil.copytree(rig.world.models / rig.world.digest, folder)
    refused = 0
    for n in range(count):
        (folder / "model.txt").write_bytes(AT_REST[n % len(AT_REST)](rig.sound["model.txt"], random.Random(1000 + n)))
        with suppress(ValueError):
            check_in_child(folder, wall_seconds=8)
            continue
        refused += 1
    rig.check_serving()
    return refused, count - refused


def test_no_damaged_version_is_served(rig: Rig) -> None:
    """Cut, bits flipped, NUL runs, swapped columns, foreign objective, other inputs, sick leaves: all refused."""
    refuse_many(rig, 16)


def test_the_sound_version_is_served_again(rig: Rig) -> None:
    """A rig that refuses everything proves nothing: the sound files under a new version become a bundle that serves."""
    rig.register(rig.sound["model.txt"], is_signed=True)
    made = rig.sync()
    assert made not in (None, rig.world.digest)
    assert current_digest(rig.models) == made


def test_training_leaves_a_digest_of_its_files(rig: Rig) -> None:
    """What training registered carries the tag, and the tag is of the very files that the agent fetches."""
    version = MlflowClient(rig.world.mlflow_uri, rig.world.mlflow_uri).get_model_version(REGISTERED_MODEL, "1")
    fetched = {**rig.sound}
    location = MlflowClient(rig.world.mlflow_uri).get_logged_model(version.source.removeprefix("models:/"))
    folder = Path(location.artifact_location.removeprefix("file://"))
    fetched = {name: (folder / artifact).read_bytes() for name, artifact in FETCHED.items()}
    assert version.tags[FILES_TAG] == files_digest(fetched)


@pytest.mark.prove
def test_none_of_a_hundred_damaged_versions_is_served(rig: Rig) -> None:
    """A hundred seeded damages, each as champion: none is activated, and the old one answers after each."""
    refuse_many(rig, 100)


@pytest.mark.prove
def test_a_hundred_damaged_files_harm_the_checking_child_only(rig: Rig) -> None:
    """Without a digest that tells, a damaged file may kill or hang the child that loads it, and nothing else."""
    refused, passed = survive_many(rig, 100)
    print(f"of 100 files damaged at rest, without a digest: {refused} refused, {passed} not told from sound ones")
    assert refused > 50
