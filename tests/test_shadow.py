"""The challenger scores live decisions of others, after their answers: no answer changes, and the lake can tell."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.adapters.bundle_dir import set_challenger
from service.adapters.journal_entries import decode_decision, decode_shadow
from service.adapters.parquet_lake import ParquetLake
from service.decision.experiment import CHALLENGER
from service.decision.model import Request
from service.decision.record import PARTITIONS, partition_of
from service.online import Model, decide_all
from service.ports import Gathered, Shadow, StoreUnavailable
from service.shadow import MOST_WAITING, Shadowing, is_shadowed, shadow_of
from tests.fragile import Caller, OwnServer
from tests.served import Served, plain_environment, wait_until
from tests.service.decision.worlds import CATALOGUE, TableScorer
from tests.service.test_pass import BATCH, IDS, NOW, REASONS, SERVING
from tests.small_world import SmallWorld
from tests.test_challenger import ARMS
from tests.test_degraded import consents, copy_of_models, service
from tests.test_swaps import other_bundle

HOUSEHOLDS = [str(n) for n in range(1, 41)]
ROUNDS = 3


@dataclass
class Told:
    """What two services answered to the same questions, and what stands in the journal of the second."""

    without: list[bytes]
    shadowed: list[bytes]
    entries: dict[int, list[tuple[str, str, bytes]]]
    var: Path
    catalogue: Path
    second: str

    def of_kind(self, kind: str) -> list[bytes]:
        """Return the payloads of a kind."""
        return [payload for entries in self.entries.values() for _, k, payload in entries if k == kind]


def ask(port: int) -> list[bytes]:
    """Ask the same questions under the same ids; return the answers as they came."""
    connection, answers = HTTPConnection("127.0.0.1", port, timeout=20), []
    for n in range(ROUNDS):
        for household in HOUSEHOLDS:
            body = json.dumps({"customer_id": household, "channel": "app", "explain": "chosen"})
            headers = {"Content-Type": "application/json", "Idempotency-Key": f"{n}-{household}"}
            connection.request("POST", "/v1/decisions", body, headers)
            answers.append(connection.getresponse().read())
    connection.close()
    return answers


@pytest.fixture(scope="module")
def told(served: Served, small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("shadow")
    catalogue = folder / "catalogue.yaml"
    shipped = CATALOGUE.read_text(encoding="utf-8")
    catalogue.write_text(shipped.replace("arms: {nba: 0.85, holdout: 0.10, random: 0.05}", ARMS), encoding="utf-8")
    embedded = json.loads((served.var / "redis" / "server.json").read_text())
    answers = []
    with ExitStack() as stack:
        for share in ("0", "1"):
            store = OwnServer(folder / f"store-{share}")
            store.start()
            stack.callback(store.kill)
            store.copy_hashes(f"redis://:{embedded['password']}@127.0.0.1:{embedded['port']}/0")
            var = copy_of_models(small_world, folder / f"var-{share}")
            second = other_bundle(var / "models", small_world.digest)
            set_challenger(var / "models", second)
            settings = {f"NBA_{name}_DEADLINE_MS": "3000" for name in ("GATHER", "RECORD", "INTAKE")}
            settings |= {"NBA_CATALOGUE": str(catalogue), "NBA_SHADOW_SHARE": share}
            with service(var, store.url, **settings) as port:
                caller = Caller(port)
                consents(caller, HOUSEHOLDS)
                caller.close()
                answers.append(ask(port))
                if share == "1":
                    wanted = sum(json.loads(a)["arm"] != CHALLENGER for a in answers[1])
                    wait_until(lambda: count(journal(store), "shadow") == wanted, 20, var / "serve.log")  # noqa: B023
        yield Told(answers[0], answers[1], journal(store), var, catalogue, second)


def journal(store: OwnServer) -> dict[int, list[tuple[str, str, bytes]]]:
    """Return what stands in the journal, by partition."""
    found: dict[int, list[tuple[str, str, bytes]]] = {}
    for partition in range(PARTITIONS):
        entries = store.command("XRANGE", f"nba:{{p{partition:02d}}}:journal", "-", "+")
        found[partition] = [(entry_id.decode(), said[b"k"].decode(), said[b"v"]) for entry_id, said in entries]
    return found


def count(entries: dict[int, list[tuple[str, str, bytes]]], kind: str) -> int:
    """Return how many entries are of a kind."""
    return sum(k == kind for of in entries.values() for _, k, _ in of)


def test_no_answer_changes(told: Told) -> None:
    """With every decision shadowed the answers are those of a service without shadows, byte for byte."""
    assert told.shadowed == told.without
    assert len({json.loads(answer)["versions"]["model"] for answer in told.shadowed}) == 2


def test_every_decision_of_others_has_its_shadow(told: Told) -> None:
    """One shadow a decision of another arm, in its customer's partition, over the candidates that were open."""
    rows = {row.decision_id: row for row in map(decode_decision, told.of_kind("decision"))}
    shadows = [decode_shadow(payload) for payload in told.of_kind("shadow")]
    assert {s.decision_id for s in shadows} == {r.decision_id for r in rows.values() if r.arm != CHALLENGER}
    assert len({s.decision_id for s in shadows}) == len(shadows) > len(HOUSEHOLDS)
    differs = 0
    for shadow in shadows:
        row = rows[shadow.decision_id]
        logged = np.frombuffer(row.propensities, "<f8")
        assert shadow.candidates == tuple(np.flatnonzero(~np.isnan(logged)).tolist())
        assert (shadow.customer_id, shadow.bundle_digest) == (row.customer_id, told.second)
        assert row.bundle_digest != told.second
        differs += shadow.propensities != tuple(logged[list(shadow.candidates)].tolist())
    assert differs > len(shadows) // 2
    for partition, entries in told.entries.items():
        shadowed = {decode_shadow(payload).customer_id for _, kind, payload in entries if kind == "shadow"}
        assert {partition_of(customer) for customer in shadowed} <= {partition}


@pytest.mark.prove
def test_the_command_tells_how_the_challenger_differs(told: Told) -> None:
    """`nba shadow` reads from the lake how many decisions were compared and how far the two models are apart."""
    lake = ParquetLake(told.var / "lake")
    for partition, entries in told.entries.items():
        lake.write(partition, entries)
    env = {
        **plain_environment(),
        "NBA_VAR": str(told.var),
    }
    env |= {"NBA_CATALOGUE": str(told.catalogue)}

    def run(*more: str) -> str:
        command = [sys.executable, "-m", "service.cli", "shadow", *more]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = json.loads(run("--json"))
    assert found["decisions"] == count(told.entries, "shadow")
    assert found["model"].endswith(told.second[:12])
    assert sum(found["champions"].values()) == found["decisions"]
    assert 0.0 <= found["first_differs"]["value"] <= 1.0
    assert 0.5 < found["rank_correlation"]["value"] <= 1.0
    assert found["difference"]["high"] < 0.0, "the other calibration says less of everything it learnt"
    assert found["psi"] > 0.0
    assert "another first choice" in run()


class Lost:
    """A log of shadows that is away, or not."""

    def __init__(self) -> None:
        self.appended: list[Shadow] = []
        self.is_away = False

    async def append(self, shadows: Any) -> int:
        """Append, or say that the store is away."""
        if self.is_away:
            raise StoreUnavailable("log_unavailable")
        self.appended += shadows
        return len(shadows)


def test_what_cannot_be_scored_is_dropped_and_counted() -> None:
    """Beyond what may wait, and where the journal is away, shadows are given up; nobody waits and all is counted."""
    challenger = Model(SERVING.bundle, TableScorer(len(SERVING.catalogue.catalogue.actions)))
    serving = replace(SERVING, challenger=challenger)
    decided = decide_all(serving, Gathered(BATCH, REASONS), Request("app"), NOW, IDS)[0]
    assert is_shadowed(decided, 1.0)
    assert not is_shadowed(decided, 0.0)
    assert not is_shadowed(replace(decided, made_in=replace(decided.made_in, serving=SERVING)), 1.0)
    assert not is_shadowed(replace(decided, reselected=True), 1.0)
    counts: dict[str, int] = {}
    log = Lost()
    shadowing = Shadowing(log, 1.0, lambda result, n: counts.update({result: counts.get(result, 0) + n}))
    for _ in range(MOST_WAITING + 5):
        shadowing.watch(decided)
    assert counts == {"dropped": 5}
    asyncio.run(shadowing.score_waiting())
    assert counts == {"dropped": 5, "scored": MOST_WAITING}
    assert log.appended == [shadow_of(decided)] * MOST_WAITING
    log.is_away = True
    shadowing.watch(decided)
    asyncio.run(shadowing.score_waiting())
    assert counts["failed"] == 1


def test_the_share_is_drawn_by_the_decision() -> None:
    """About the stated share of decisions is shadowed, always the same ones, and more of them with a greater share."""
    challenger = Model(SERVING.bundle, TableScorer(len(SERVING.catalogue.catalogue.actions)))
    serving = replace(SERVING, challenger=challenger)
    one = decide_all(serving, Gathered(BATCH, REASONS), Request("app"), NOW, IDS)[0]
    decisions = [replace(one, decision_id=f"00-{n:032x}") for n in range(4000)]
    drawn = {share: {d.decision_id for d in decisions if is_shadowed(d, share)} for share in (0.1, 0.3)}
    assert drawn[0.1] < drawn[0.3]
    assert abs(len(drawn[0.1]) / 4000 - 0.1) < 0.02
