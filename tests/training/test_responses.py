"""The table of responses, from a lake as the worker writes it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from service.adapters.journal_entries import KnownDecision, encode, encode_decision
from service.adapters.parquet_lake import ParquetLake
from service.catalogue.loader import load_catalogue
from service.decision.model import Catalogue
from service.decision.record import customer_digest, decision_id_from, partition_of
from service.ports import Event, Outcome
from service.settings import CHECKOUT
from tests.service.rows import decision_row
from training.responses import catalogues, responses

NOW, DAY = 1_770_000_000.0, 86_400.0
SEAFOOD, PET, RECIPES = "cross_sell_seafood", "cross_sell_pet", "service_weekly_recipes"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue(CHECKOUT / "service" / "catalogue.yaml")


class Log:
    """Writes a lake as the worker would, each customer's partition on its own."""

    def __init__(self, folder: Path) -> None:
        self.lake = ParquetLake(folder)
        self.entries: dict[int, list[tuple[str, str, bytes]]] = {}
        self.told = 0

    def _append(self, customer: str, kind: str, payload: bytes, at: float) -> None:
        entries = self.entries.setdefault(partition_of(customer), [])
        entries.append((f"{int(at * 1000)}-{len(entries)}", kind, payload))

    def decide(self, customer: str, *actions: str, day: float = 0.0, withheld: bool = False, **more: Any) -> str:
        """Log a decision that places actions."""
        at = NOW + day * DAY
        treatments = tuple(f"{action}.app" for action in actions)
        placed = tuple((i, "app_home", 0.5) for i in range(len(actions)))
        row = replace(
            decision_row(customer, at, token=round(at * 1e6).to_bytes(16, "big")),
            treatment_ids=treatments, chosen=() if withheld else placed, withheld=placed if withheld else (),
            propensities=b"".join(bytes(8) for _ in actions), priorities=b"".join(bytes(8) for _ in actions),
            stages=bytes(len(actions)), reasons=bytes(4 * len(actions)), uplifts=b"", **more,
        )  # fmt: skip
        self._append(customer, "decision", encode_decision(row), at)
        return row.decision_id

    def tell(self, customer: str, decision_id: str, action: str, kind: str, day: float, **more: Any) -> None:
        """Log an outcome; `heard` says on which day, `orphan` that its decision was unknown."""
        self.told += 1
        heard, orphan, value = more.get("heard", day), more.get("orphan", False), more.get("value")
        outcome = Outcome(f"o{self.told}", decision_id, action, kind, value, NOW + day * DAY)
        offers = ((action, "cross_sell", "x", f"{action}.app", True, "app_home"),)
        known = KnownDecision(customer, customer_digest(customer), NOW, "app", offers)
        payload = encode((None if orphan else known, outcome))
        self._append(customer, "orphan" if orphan else "outcome", payload, NOW + heard * DAY)

    def buy(self, customer: str, aisle: str, day: float, amount: float = 2.0) -> None:
        """Log a purchase."""
        self.told += 1
        lines = [{"aisle": aisle, "quantity": 1, "sales_value": amount}]
        event = Event(f"e{self.told}", customer, "purchase", NOW + day * DAY, {"lines": lines})
        self._append(customer, "event", encode(event), NOW + day * DAY)

    def close(self) -> Path:
        """Write all."""
        for partition, entries in self.entries.items():
            entries.sort(key=lambda entry: int(entry[0].split("-")[0]))
            unique = [(f"{entry_id.split('-')[0]}-{i}", k, v) for i, (entry_id, k, v) in enumerate(entries)]
            self.lake.take_over(partition)
            self.lake.write(partition, unique)
        return self.lake.folder


@pytest.fixture
def table(tmp_path: Path, catalogue: Catalogue) -> Callable[..., list[dict[str, Any]]]:
    """Write a log and return its responses as of a day."""

    def read(log: Log, as_of: float = 100.0, until: float = 50.0, **more: Any) -> list[dict[str, Any]]:
        moment = NOW + as_of * DAY
        found = responses(log.close(), NOW, NOW + until * DAY, lambda version: catalogue, as_of=moment, **more)
        rows: list[dict[str, Any]] = found.to_pylist()
        return rows

    return read


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "lake")


def day_of(moment: Any) -> float:
    """Return a moment as a day of the test."""
    return round((moment.timestamp() - NOW) / DAY, 6)


def test_what_was_never_shown_is_no_row(log: Log, table: Callable[..., list[dict[str, Any]]]) -> None:
    """Of two placed actions only the one with an impression is in the table, however long the window is over."""
    decision = log.decide("a", SEAFOOD, PET)
    log.tell("a", decision, SEAFOOD, "impression", 1.0)
    [row] = table(log)
    assert (row["action_id"], row["response"], row["is_default"]) == (SEAFOOD, 0.0, True)
    assert (day_of(row["shown_at"]), day_of(row["window_end"])) == (1.0, 31.0)
    assert (row["arm"], row["selection_probability"], row["rank"]) == ("nba", 0.5, 1)


def test_a_purchase_converts_the_last_shown(log: Log, table: Callable[..., list[dict[str, Any]]]) -> None:
    """An event that fulfils the rule converts the last shown treatment, with its value; the earlier one assisted."""
    for day in (0.0, 5.0):
        log.tell("a", log.decide("a", SEAFOOD, day=day), SEAFOOD, "impression", day)
    log.buy("a", "deli", 6.0)
    log.buy("a", "seafood", 7.0, 4.5)
    first, last = table(log)
    assert (first["response"], first["is_assisted"]) == (0.0, True)
    assert (last["response"], last["value"], day_of(last["response_at"])) == (1.0, 4.5, 7.0)


def test_an_orphan_finds_its_decision(log: Log, table: Callable[..., list[dict[str, Any]]]) -> None:
    """Outcomes that came before their decision count as any other; a conversion told implies that it was shown."""
    decision = log.decide("a", SEAFOOD, day=1.0)
    log.tell("a", decision, SEAFOOD, "conversion", 2.0, heard=0.5, orphan=True, value=9.0)
    [row] = table(log)
    assert (row["response"], row["value"], row["is_inferred"]) == (1.0, 9.0, True)
    unknown = decision_id_from(b"\7" * 16, "a")
    log.entries.clear()
    log.tell("a", unknown, SEAFOOD, "conversion", 60.0, orphan=True)
    assert len(table(log)) == 1


def test_a_late_positive_revises_the_default(log: Log, table: Callable[..., list[dict[str, Any]]]) -> None:
    """A conversion of day 20 that is heard of on day 40 counts and is late; one of day 40 is noted and does not."""
    for customer, happened in (("a", 20.0), ("b", 40.0)):
        decision = log.decide(customer, SEAFOOD)
        log.tell(customer, decision, SEAFOOD, "impression", 0.0)
        log.tell(customer, decision, SEAFOOD, "conversion", happened, heard=40.0)
    found = {row["customer_id"]: row for row in table(log)}
    assert (found["a"]["response"], found["a"]["is_late"], found["a"]["is_default"]) == (1.0, True, False)
    assert (found["b"]["response"], found["b"]["is_after_window"], found["b"]["is_default"]) == (0.0, True, True)


def test_the_default_outcome_and_the_positive_are_the_actions_own(
    log: Log, table: Callable[..., list[dict[str, Any]]], catalogue: Catalogue, tmp_path: Path
) -> None:
    """With `none` silence is no answer; where a click is the positive, a purchase is none."""
    [pet] = [action for action in catalogue.actions if action.id == PET]
    [seafood] = [action for action in catalogue.actions if action.id == SEAFOOD]
    changed = (replace(pet, default_outcome="none"), replace(seafood, positive="click"))
    other = replace(catalogue, actions=tuple({a.id: a for a in (*catalogue.actions, *changed)}.values()))
    decision = log.decide("a", SEAFOOD, PET)
    for action in (SEAFOOD, PET):
        log.tell("a", decision, action, "impression", 0.0)
    log.buy("a", "seafood", 1.0)
    found = responses(log.close(), NOW, NOW + DAY, lambda version: other, as_of=NOW + 90 * DAY).to_pylist()
    assert {row["action_id"]: row["response"] for row in found} == {SEAFOOD: 0.0, PET: None}


def test_held_out_customers_answer_what_they_were_not_shown(
    log: Log, table: Callable[..., list[dict[str, Any]]]
) -> None:
    """With `withheld`, the treatments of the hold-out are answered by what their customers did anyway."""
    log.decide("a", SEAFOOD, withheld=True, arm="holdout")
    log.decide("b", SEAFOOD, withheld=True, arm="holdout")
    log.buy("a", "seafood", 3.0)
    assert table(log) == []
    found = table(Log(log.lake.folder), withheld=True)
    assert [(row["customer_id"], row["response"], row["is_withheld"]) for row in found] == [
        ("a", 1.0, True),
        ("b", 0.0, True),
    ]


def test_decisions_outside_the_time_are_left_out(log: Log, table: Callable[..., list[dict[str, Any]]]) -> None:
    """`since` belongs to the time, `until` does not; a window beyond `as_of` is open."""
    for day in (0.0, 9.0, 10.0):
        log.tell("a", log.decide("a", PET, day=day), PET, "impression", day)
    found = table(log, as_of=31.0, until=10.0)
    assert [(day_of(row["decision_time"]), row["is_open"], row["response"]) for row in found] == [
        (0.0, False, 0.0),
        (9.0, True, None),
    ]


def test_the_command_writes_the_table(log: Log, tmp_path: Path) -> None:
    """`nba responses` writes the table of a time and says in one line what it holds."""
    decision = log.decide("a", SEAFOOD)
    log.tell("a", decision, SEAFOOD, "impression", 0.0)
    log.buy("a", "seafood", 1.0)
    log.close()
    out = tmp_path / "responses.parquet"
    asked = ("--since", "2026-01-01", "--until", "2026-12-31", "--out", str(out), "--var", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "responses", *asked], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1 treatments, 1 positive (0 told late), 0 negative" in " ".join(done.stderr.split())
    assert pq.read_table(out)["response"].to_pylist() == [1.0]


def test_an_empty_lake_has_no_responses(tmp_path: Path, catalogue: Catalogue) -> None:
    """Before anything was logged the table is there and empty."""
    found = responses(tmp_path, NOW, NOW + DAY, catalogues(tmp_path, CHECKOUT / "service" / "catalogue.yaml"))
    assert found.num_rows == 0
    assert {"response", "shown_at", "selection_probability"} <= set(found.column_names)
