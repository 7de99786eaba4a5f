"""A challenger serves its arm and nobody else: one pair of versions an answer, logged so that it can be made again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.adapters.bundle_dir import read_checked, set_challenger, set_current, write_bundle
from tests.fragile import Answer, Caller, OwnServer
from tests.served import Served, wait_until
from tests.service.decision.worlds import CATALOGUE
from tests.small_world import SmallWorld
from tests.test_degraded import consents, copy_of_models, service
from tests.test_swaps import other_bundle, propensities

HOUSEHOLDS = [str(n) for n in range(1, 41)]
ARMS = "arms: {nba: 0.45, challenger: 0.45, random: 0.10}"


@dataclass
class Rig:
    """A service with two sound bundles on disk and an arm for the challenger."""

    caller: Caller
    var: Path
    port: int
    first: str
    second: str

    @property
    def models(self) -> Path:
        """The folder of bundles."""
        return self.var / "models"

    def serves(self, champion: str, challenger: str | None) -> None:
        """Name champion and challenger, and wait until they serve."""
        set_challenger(self.models, None)
        set_current(self.models, champion)
        set_challenger(self.models, challenger)
        self.until(champion, challenger)

    def until(self, champion: str, challenger: str | None) -> None:
        """Wait until these serve."""

        def is_it() -> bool:
            ready = self.caller.call("GET", "/readyz").body
            return [digest_of(ready["model"]), digest_of(ready["challenger"])] == [
                champion[:12],
                challenger[:12] if challenger else "",
            ]

        wait_until(is_it, 20, self.var / "serve.log")

    def traces(self) -> dict[str, Answer]:
        """Ask for everybody's whole trace, of which nothing is kept."""
        return {h: self.caller.decide(h, dry_run=True, explain="full") for h in HOUSEHOLDS}


def digest_of(version: str | None) -> str:
    """Return the start of a bundle's digest that a version tells."""
    return (version or "").rpartition("@")[2]


@pytest.fixture(scope="module")
def rig(served: Served, small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("challenger")
    store = OwnServer(folder / "store")
    store.start()
    embedded = json.loads((served.var / "redis" / "server.json").read_text())
    store.copy_hashes(f"redis://:{embedded['password']}@127.0.0.1:{embedded['port']}/0")
    var = copy_of_models(small_world, folder / "var")
    second = other_bundle(var / "models", small_world.digest)
    shipped = CATALOGUE.read_text(encoding="utf-8")
    catalogue = folder / "catalogue.yaml"
    catalogue.write_text(shipped.replace("arms: {nba: 0.85, holdout: 0.10, random: 0.05}", ARMS), encoding="utf-8")
    assert ARMS in catalogue.read_text()
    set_challenger(var / "models", second)
    patient = {f"NBA_{name}_DEADLINE_MS": "3000" for name in ("GATHER", "RECORD", "INTAKE")}
    try:
        with service(var, store.url, NBA_CATALOGUE=str(catalogue), NBA_RELOAD_SECONDS="0.02", **patient) as port:
            caller = Caller(port)
            consents(caller, HOUSEHOLDS)
            yield Rig(caller, var, port, small_world.digest, second)
            caller.close()
    finally:
        store.kill()


def test_each_arm_has_its_model(rig: Rig) -> None:
    """From the first answer on the challenger's arm has its propensities, and every other arm the champion's."""
    rig.until(rig.first, rig.second)
    both = rig.traces()
    rig.serves(rig.second, None)
    seconds = rig.traces()
    rig.serves(rig.first, None)
    firsts = rig.traces()
    arms = {household: answer.body["arm"] for household, answer in both.items()}
    assert set(arms.values()) == {"nba", "challenger", "random"}
    told_apart = 0
    for household, answer in both.items():
        of_challenger = arms[household] == "challenger"
        assert digest_of(answer.body["versions"]["model"]) == (rig.second if of_challenger else rig.first)[:12]
        expected = propensities((seconds if of_challenger else firsts)[household])
        assert propensities(answer) == expected
        told_apart += propensities(seconds[household]) != propensities(firsts[household])
        assert firsts[household].body["arm"] == ("nba" if of_challenger else arms[household])
    assert told_apart > len(HOUSEHOLDS) // 2


def test_what_the_challenger_decided_can_be_made_again(rig: Rig) -> None:
    """A logged decision of either arm names its own model and recomputes to the bit, also after the challenger left."""
    rig.serves(rig.first, rig.second)
    made = [rig.caller.decide(household).body for household in HOUSEHOLDS]
    assert {answer["arm"] for answer in made} >= {"nba", "challenger"}
    for champion, challenger in ((rig.first, rig.second), (rig.second, None), (rig.first, None)):
        rig.serves(champion, challenger)
        for answer in made[:16]:
            past = rig.caller.call("GET", f"/v1/decisions/{answer['decision_id']}").body
            assert past["recomputed"], past["recomputed_why"]
            assert past["versions"] == answer["versions"]
            of = rig.second if past["arm"] == "challenger" else rig.first
            assert digest_of(past["versions"]["model"]) == of[:12]


def test_a_promoted_challenger_is_the_champion_and_no_challenger(rig: Rig) -> None:
    """The pointer of the challenger never names the champion's bundle: its arm is nba from then on."""
    rig.serves(rig.first, rig.second)
    set_current(rig.models, rig.second)
    rig.until(rig.second, None)
    assert not (rig.models / "challenger").exists()
    (rig.models / "challenger").write_text(rig.second + "\n")  # by whoever did not know
    time.sleep(0.2)
    rig.until(rig.second, None)
    assert "challenger" not in {rig.caller.decide(household, dry_run=True).body["arm"] for household in HOUSEHOLDS}


def test_a_damaged_challenger_disturbs_nobody(rig: Rig) -> None:
    """A challenger's bundle with one bit flipped is refused: its customers are the champion's; made anew, it serves."""
    rig.serves(rig.first, None)
    model = rig.models / rig.second / "model.txt"
    sound = model.read_bytes()
    manifest, files = read_checked(rig.models / rig.second, rig.second)
    model.write_bytes(sound[:5000] + bytes([sound[5000] ^ 1]) + sound[5001:])
    set_challenger(rig.models, rig.second)

    log = rig.var / "serve.log"
    wait_until(lambda: f"challenger {rig.second[:12]} refused" in log.read_text(), 20, log)
    for household in HOUSEHOLDS[:10]:
        answer = rig.caller.decide(household, dry_run=True)
        assert answer.status == 200
        assert digest_of(answer.body["versions"]["model"]) == rig.first[:12]
        assert answer.body["arm"] != "challenger"
    assert write_bundle(rig.models, files, manifest["model_version"], manifest["source"]) == rig.second
    rig.until(rig.first, rig.second)


def test_an_answer_is_from_exactly_one_pair(rig: Rig) -> None:
    """While champion and challenger change places under load, arm and model of every answer fit one pair."""
    pairs: list[tuple[str, str | None]] = [(rig.first, rig.second), (rig.first, None), (rig.second, rig.first)]
    allowed = {
        (("challenger" if is_its else "other"), (challenger if is_its else champion)[:12])  # type: ignore[index]
        for champion, challenger in pairs
        for is_its in ([True, False] if challenger else [False])
    }
    oracle: dict[str, dict[str, dict[tuple[str, str], float]]] = {}
    for digest in (rig.first, rig.second):
        rig.serves(digest, None)
        oracle[digest[:12]] = {h: propensities(answer) for h, answer in rig.traces().items()}
    wrong: list[Any] = []
    enough = threading.Event()
    seen: set[tuple[str, str]] = set()

    def load() -> None:
        caller = Caller(rig.port)
        while not enough.is_set():
            for household in HOUSEHOLDS:
                body = caller.decide(household, dry_run=True, explain="full")
                said = ("challenger" if body.body["arm"] == "challenger" else "other", digest_of(model_of(body)))
                seen.add(said)
                if said not in allowed or propensities(body) != oracle[said[1]][household]:
                    wrong.append((household, said))
        caller.close()

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        for champion, challenger in pairs:
            rig.serves(champion, challenger)
            time.sleep(0.1)
    enough.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert seen == allowed


def model_of(answer: Answer) -> str:
    """Return the version of the model that an answer tells."""
    return str(answer.body["versions"]["model"])
