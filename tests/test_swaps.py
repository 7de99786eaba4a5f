"""Bundles and catalogues are swapped under load: no request fails, and every answer is from exactly one version."""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.version import describe_contract
from service.adapters.bundle_dir import read_checked, set_current, write_bundle
from service.adapters.scoring import Golden
from service.catalogue.loader import load_catalogue
from service.decision.calibration import Calibrator
from tests.fragile import Answer, Caller, OwnServer
from tests.served import Served
from tests.service.decision.worlds import CATALOGUE
from tests.small_world import SmallWorld
from tests.test_degraded import consents, copy_of_models, service

CONNECTIONS = 3
HOUSEHOLDS = [str(n) for n in range(1, 41)]
COMBINATIONS = [(0, 0), (1, 1), (0, 1), (1, 0)]
MARK = "Anew! "
Oracle = dict[tuple[int, int], dict[str, dict[tuple[str, str], float]]]
"""(bundle, catalogue) -> household -> (action, treatment) -> propensity."""


@dataclass
class Rig:
    """A service whose bundle and catalogue are each one of two: other calibration, other words and context."""

    port: int
    models: Path
    catalogue: Path
    bundles: tuple[str, str]
    texts: tuple[str, str]
    versions: tuple[str, str]
    allowed: set[tuple[int, int]] = field(default_factory=set)
    now: tuple[int, int] = (0, 0)

    def swap_to(self, combination: tuple[int, int]) -> None:
        """Make one bundle and one catalogue current and wait until they serve."""
        self.allowed = {self.now, (combination[0], self.now[1]), (self.now[0], combination[1]), combination}
        set_current(self.models, self.bundles[combination[0]])
        replace(self.catalogue, self.texts[combination[1]])
        caller, end = Caller(self.port), time.monotonic() + 30
        while time.monotonic() < end:
            ready = caller.call("GET", "/readyz").body
            if self.combination_of(ready) == combination:
                caller.close()
                self.allowed, self.now = {combination}, combination
                return
            time.sleep(0.01)
        raise AssertionError(f"{ready} serves, not {combination}")

    def combination_of(self, versions: dict[str, Any]) -> tuple[int, int]:
        """Return which bundle and which catalogue an answer says it is from; ValueError for any other."""
        digests = tuple(digest[:12] for digest in self.bundles)
        return digests.index(versions["model"].rpartition("@")[2]), self.versions.index(versions["catalogue"])


def replace(path: Path, text: str) -> None:
    """Replace a file in one step."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def other_bundle(models: Path, digest: str) -> str:
    """Write a second sound bundle beside a first one: the same trees under another calibration."""
    _, files = read_checked(models / digest, digest)
    document = json.loads(files["calibrator.json"])
    for line in document["issues"].values():
        line["intercept"] -= 0.5
    golden = Golden.from_document(json.loads(files["golden.json"]))
    issues = golden.rows[:, describe_contract()["model_inputs"].index("issue")]
    scores = Calibrator.from_document(document).apply(golden.raw, issues)
    files["calibrator.json"] = json.dumps(document).encode()
    files["golden.json"] = json.dumps(Golden(golden.rows, golden.raw, scores).document()).encode()
    return write_bundle(models, files, "nba-propensity/2", "elsewhere")


def other_catalogue(text: str) -> str:
    """Return the catalogue with other words, and with a context that is numbered the other way round."""
    marked = re.sub(r"(headline: \"?)", rf"\1{MARK}", text)
    turned = marked.replace("device: [ios, android, web]", "device: [web, android, ios]")
    if turned.count(MARK) < 4 or turned == marked:
        raise AssertionError("the catalogue is written otherwise than this test knows")
    return turned


@pytest.fixture(scope="module")
def rig(served: Served, small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("swaps")
    store = OwnServer(folder / "store")
    store.start()
    embedded = json.loads((served.var / "redis" / "server.json").read_text())
    store.copy_hashes(f"redis://:{embedded['password']}@127.0.0.1:{embedded['port']}/0")
    var = copy_of_models(small_world, folder / "var")
    bundles = (small_world.digest, other_bundle(var / "models", small_world.digest))
    first = CATALOGUE.read_text(encoding="utf-8")
    texts, catalogue = (first, other_catalogue(first)), folder / "catalogue.yaml"
    versions = []
    for text in texts[::-1]:
        replace(catalogue, text)
        versions.insert(0, load_catalogue(catalogue).version)
    patient = {f"NBA_{name}_DEADLINE_MS": "3000" for name in ("GATHER", "RECORD", "INTAKE")}
    try:
        with service(var, store.url, NBA_CATALOGUE=str(catalogue), NBA_RELOAD_SECONDS="0.02", **patient) as port:
            rig = Rig(port, var / "models", catalogue, bundles, texts, (versions[0], versions[1]))
            rig.swap_to((0, 0))
            caller = Caller(port)
            consents(caller, HOUSEHOLDS)
            caller.close()
            yield rig
    finally:
        store.kill()


@pytest.fixture(scope="module")
def oracle(rig: Rig) -> Oracle:
    """What each combination says of each household when nothing else happens."""
    caller = Caller(rig.port)
    found: Oracle = {}
    for combination in COMBINATIONS:
        rig.swap_to(combination)
        found[combination] = {h: propensities(traced(caller, h)) for h in HOUSEHOLDS}
    caller.close()
    learnt = [k for h in HOUSEHOLDS for k in found[0, 0][h] if not k[0].startswith("service")]
    changed = sum(p != found[1, 0][h].get(k) for h in HOUSEHOLDS for k, p in found[0, 0][h].items())
    assert len(HOUSEHOLDS) < changed <= len(learnt), "the two models can be told apart, by what they learnt"
    return found


def traced(caller: Caller, household: str) -> Answer:
    """Ask for a whole trace, of which nothing is kept."""
    return caller.decide(household, dry_run=True, explain="full", context={"device": "web"})


def propensities(answer: Answer) -> dict[tuple[str, str], float]:
    """Return the propensity of every candidate that was scored."""
    return {
        (row["action_id"], row["treatment_id"]): row["factors"]["propensity"]
        for row in answer.body["trace"]
        if row.get("factors")
    }


class Loader(threading.Thread):
    """One connection that asks again and again and checks each answer."""

    def __init__(self, rig: Rig, oracle: Oracle, start: int) -> None:
        super().__init__()
        self.rig, self.oracle, self.households = rig, oracle, itertools.cycle(HOUSEHOLDS[start:] + HOUSEHOLDS[:start])
        self.enough = threading.Event()
        self.wrong: list[str] = []
        self.seconds: list[float] = []
        self.seen: set[tuple[int, int]] = set()

    def run(self) -> None:
        """Ask on one kept connection until it is enough, or something is wrong."""
        caller = Caller(self.rig.port)
        for n in itertools.count():
            household, before = next(self.households), self.rig.allowed
            if self.enough.is_set() or self.wrong:
                break
            try:
                answer = traced(caller, household) if n % 4 == 0 else caller.decide(household)
                self._check(household, answer, before | self.rig.allowed)
            except Exception as error:  # whatever it is, it is what this test is about
                self.wrong.append(f"{type(error).__name__}: {error}")
        caller.close()

    def _check(self, household: str, answer: Answer, allowed: set[tuple[int, int]]) -> None:
        self.seconds.append(answer.seconds)
        if answer.status != 200 or answer.body["degraded"]:
            self.wrong.append(f"{answer.status} {str(answer.body)[:200]}")
            return
        combination = self.rig.combination_of(answer.body["versions"])
        self.seen.add(combination)
        if combination not in allowed:
            self.wrong.append(f"{combination} answered while {allowed} served")
        expected = self.oracle[combination][household]
        if "trace" in answer.body and not propensities(answer).items() <= expected.items():  # caps leave less
            self.wrong.append(f"{household}: the trace is not of {combination}")
        for action in answer.body["actions"]:
            words = json.dumps(action["content"])
            if (MARK in words) != (combination[1] == 1):
                self.wrong.append(f"{household}: {words} is not of catalogue {combination[1]}")
            if action["propensity"] != expected[action["action_id"], action["treatment_id"]]:
                self.wrong.append(f"{household}: {action['action_id']} has a propensity not of {combination}")


def swap_under_load(rig: Rig, oracle: Oracle, swaps: int) -> None:
    """Swap so many times while connections ask, then check what they saw."""
    loaders = [Loader(rig, oracle, 7 * n) for n in range(CONNECTIONS)]
    for loader in loaders:
        loader.start()
    try:
        time.sleep(1.0)
        still = [s for loader in loaders for s in loader.seconds]
        for n in range(swaps):
            rig.swap_to(COMBINATIONS[(n + 1) % len(COMBINATIONS)])
            if any(loader.wrong for loader in loaders):
                break
    finally:
        for loader in loaders:
            loader.enough.set()
            loader.join()
    assert not [wrong for loader in loaders for wrong in loader.wrong][:5]
    took = [s for loader in loaders for s in loader.seconds][len(still) :]
    print(
        f"{swaps} swaps under {len(took)} requests on {CONNECTIONS} connections: "
        f"p50 {np.percentile(took, 50) * 1e3:.1f} ms, "
        f"p99 {np.percentile(took, 99) * 1e3:.1f} ms, slowest {max(took) * 1e3:.1f} ms; "
        f"before: p50 {np.percentile(still, 50) * 1e3:.1f} ms, p99 {np.percentile(still, 99) * 1e3:.1f} ms"
    )
    assert [wrong for loader in loaders for wrong in loader.wrong] == []
    assert set().union(*(loader.seen for loader in loaders)) >= set(COMBINATIONS)


def test_swaps_lose_and_mix_nothing(rig: Rig, oracle: Oracle) -> None:
    """Twenty swaps of bundle and catalogue: every answer is a 200 with words and propensities of the one it names."""
    swap_under_load(rig, oracle, 20)


@pytest.mark.prove
def test_two_hundred_swaps_lose_and_mix_nothing(rig: Rig, oracle: Oracle) -> None:
    """Two hundred swaps are as harmless as twenty."""
    swap_under_load(rig, oracle, 200)


@pytest.mark.parametrize("cut", [0, 0.3, 0.9])
def test_a_broken_catalogue_changes_nothing(rig: Rig, oracle: Oracle, cut: float) -> None:
    """A catalogue that was cut is refused, the one in use goes on, and a whole one is taken."""
    rig.swap_to((0, 0))
    text = rig.texts[1]
    replace(rig.catalogue, text[: int(len(text) * cut)] + "\n  : [")
    caller = Caller(rig.port)
    for household in HOUSEHOLDS[:20]:
        answer = traced(caller, household)
        assert rig.combination_of(answer.body["versions"]) == (0, 0)
        assert propensities(answer).items() <= oracle[0, 0][household].items()
        time.sleep(0.01)
    caller.close()
    rig.swap_to((0, 1))


def test_a_damaged_bundle_changes_nothing_until_it_is_made_anew(rig: Rig, oracle: Oracle) -> None:
    """A current bundle with one bit flipped is refused and the old one serves; made anew, it serves."""
    rig.swap_to((0, 0))
    model = rig.models / rig.bundles[1] / "model.txt"
    sound = model.read_bytes()
    manifest, files = read_checked(rig.models / rig.bundles[1], rig.bundles[1])
    model.write_bytes(sound[:5000] + bytes([sound[5000] ^ 1]) + sound[5001:])
    set_current(rig.models, rig.bundles[1])
    caller = Caller(rig.port)
    for household in HOUSEHOLDS[:20]:
        answer = traced(caller, household)
        assert rig.combination_of(answer.body["versions"]) == (0, 0)
        assert propensities(answer).items() <= oracle[0, 0][household].items()
        time.sleep(0.01)
    caller.close()
    assert write_bundle(rig.models, files, manifest["model_version"], manifest["source"]) == rig.bundles[1]
    rig.swap_to((1, 0))


def test_a_process_that_starts_on_a_damaged_bundle_takes_the_one_before(
    small_world: SmallWorld, tmp_path: Path
) -> None:
    """Where the current bundle is damaged, a new process boots from the youngest sound one beside it."""
    var = copy_of_models(small_world, tmp_path / "var")
    second = other_bundle(var / "models", small_world.digest)
    (var / "models" / second / "golden.json").write_bytes(b"{}")
    set_current(var / "models", second)
    with service(var, None) as port:
        caller = Caller(port)
        assert caller.call("GET", "/readyz").body["model"].endswith(small_world.digest[:12])
        assert caller.decide("1").status == 200
        caller.close()
