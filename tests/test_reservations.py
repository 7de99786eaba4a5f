"""No cap is passed by one: parallel decisions for one customer, over four channels and two serving processes."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.served import Served, free_port, process, wait_until

PARALLEL = 64
CHANNELS = ("app", "email", "mailer", "till")
CAPS = {
    "marketing_week": {"scope": "marketing", "counted": "impression", "limit": 7, "days": 7},
    "all_day": {"scope": "all", "counted": "decision", "limit": 12, "calendar": "day"},
    "email_messages": {
        "scope": "marketing", "channels": ["email"], "counted": "decision", "unit": "message", "limit": 2, "days": 7,
    },
    "each_action": {"scope": {"action": "*"}, "counted": "decision", "limit": 1, "days": 14},
    "each_group": {"scope": {"group": "*"}, "counted": "decision", "limit": 3, "calendar": "week"},
    "home": {"placements": ["app_home"], "counted": "decision", "limit": 2, "calendar": "month"},
    "upsell": {"scope": {"issue": "upsell"}, "counted": "impression", "limit": 4, "days": 1},
}  # fmt: skip
Contact = dict[str, Any]


def passed(contacts: list[Contact]) -> list[str]:
    """Return the caps that a customer's reservations pass, counted by hand; all lie within every window."""
    marketing = [c for c in contacts if c["is_marketing"]]
    largest = {
        "marketing_week": len(marketing),
        "all_day": len(contacts),
        "email_messages": len({c["decision_id"] for c in marketing if c["channel"] == "email"}),
        "each_action": max(Counter(c["action_id"] for c in marketing).values(), default=0),
        "each_group": max(Counter(c["group"] for c in marketing).values(), default=0),
        "home": sum(c["placement"] == "app_home" for c in contacts),
        "upsell": sum(c["issue"] == "upsell" for c in contacts),
    }
    return [name for name, count in largest.items() if count > CAPS[name]["limit"]]


class Wire:
    """One kept connection to a serving process."""

    def __init__(self, base: str) -> None:
        self._address = urlsplit(base).hostname, urlsplit(base).port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, path: str, body: object = None, key: str = "", *, is_lost: bool = False) -> tuple[int, Any]:
        """Call it; a lost reply is one that nobody stays to read."""
        if self._streams is not None and self._streams[0].at_eof():
            self.close()  # it hung up while nothing was asked
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        data = b"" if body is None else json.dumps(body).encode()
        head = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "Host: nba", f"Content-Length: {len(data)}"]
        head += ["Content-Type: application/json"] if data else []
        head += [f"Idempotency-Key: {key}"] if key else []
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + data)
        await writer.drain()
        if is_lost:
            await asyncio.sleep(0.002)
            self.close()
            return 0, None
        status = int((await reader.readline()).split()[1])
        length = 0
        while (line := await reader.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return status, json.loads(await reader.readexactly(length))

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


@pytest.fixture(scope="module")
def two(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two serving processes on one state, under a catalogue of these caps and no rules."""
    folder = tmp_path_factory.mktemp("two")
    document = yaml.safe_load((Path(__file__).parents[1] / "service" / "catalogue.yaml").read_text(encoding="utf-8"))
    document["caps"] = {name: {**cap, "reason": name} for name, cap in CAPS.items()}
    document["experiment"]["arms"] = {"nba": 1.0}
    for section in ("rules", "quiet_hours", "cool_offs", "quotas"):
        document.pop(section, None)
    catalogue = folder / "catalogue.yaml"
    catalogue.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    ports = [free_port(), free_port()]
    environments = [{**served.env, "NBA_PORT": str(port), "NBA_CATALOGUE": str(catalogue)} for port in ports]
    first, second = (folder / f"serve{k}.log" for k in range(2))
    with process(environments[0], first, "serve"), process(environments[1], second, "serve"):
        found = [Served(f"http://127.0.0.1:{port}", served.var, served.env) for port in ports]
        for one, log in zip(found, (first, second), strict=True):
            wait_until(lambda one=one: one.call("GET", "/readyz")[0] == 200, 60, log)
        yield [one.base for one in found]


async def rush(bases: list[str], customers: list[str], seed: int) -> Counter[str]:
    """Ask PARALLEL times at once for each customer, some with one key twice, some without waiting; check every cap."""
    chance = random.Random(seed)
    wires = [Wire(bases[k % 2]) for k in range(PARALLEL)]
    tally: Counter[str] = Counter()
    for customer in customers:
        consents = [
            {
                "event_id": f"{customer}-{channel}",
                "customer_id": customer,
                "type": "consent_changed",
                "properties": {"channel": channel, "purpose": "marketing", "granted": True, "source": "test"},
            }
            for channel in CHANNELS
        ]
        zone = {"time_zone": chance.choice(("Asia/Tokyo", "America/Santiago", "Europe/Lisbon"))}
        told = {"event_id": f"{customer}-z", "customer_id": customer, "type": "time_zone_changed", "properties": zone}
        assert (await wires[0].call("/v1/events", [*consents, told]))[0] == 202
        asked = []
        for k, wire in enumerate(wires):
            body = {"customer_id": customer, "channel": CHANNELS[k // 2 % len(CHANNELS)], "limit": chance.randint(1, 3)}
            # Neighbours, on different processes, ask the same under one key; every eighth is not there for the reply.
            if k % 2 and k % 8 < 4:
                body = asked[-1][1]
            asked.append((wire, body, f"{customer}-{k // 2}" if k % 8 < 4 else "", k % 8 == 7))
        replies = await asyncio.gather(
            *(wire.call("/v1/decisions", body, key, is_lost=is_lost) for wire, body, key, is_lost in asked)
        )
        check_keys(asked, replies)
        contacts = await settled(wires[0], customer, tally)
        tally["passed"] += len(passed(contacts))
        check_answers([body for _, body in replies if body], contacts, tally)
    for wire in wires:
        wire.close()
    return tally


def check_keys(asked: list[Any], replies: list[tuple[int, Any]]) -> None:
    """Check that the same question under one key is one decision, whichever process was asked."""
    by_key: dict[str, set[str]] = {}
    for (_, _, key, is_lost), (status, body) in zip(asked, replies, strict=True):
        assert is_lost or status == 200, body
        if key:
            by_key.setdefault(key, set()).add(body["decision_id"])
    assert {len(ids) for ids in by_key.values()} == {1}


async def settled(wire: Wire, customer: str, tally: Counter[str]) -> list[Contact]:
    """Return the customer's reservations once those of lost replies have come too."""
    before: list[Contact] | None = None
    while True:
        _, known = await wire.call(f"/v1/customers/{customer}")
        contacts: list[Contact] = known["contacts"]
        if contacts == before:
            return contacts
        before = contacts
        await asyncio.sleep(0.01)
        tally["looks"] += 1


def check_answers(answers: list[Any], contacts: list[Contact], tally: Counter[str]) -> None:
    """Check that each action shown was reserved under its decision, and nothing more under it."""
    reserved: dict[str, set[str]] = {}
    for contact in contacts:
        reserved.setdefault(contact["decision_id"], set()).add(contact["action_id"])
    for answer in {a["decision_id"]: a for a in answers}.values():
        shown = {action["action_id"] for action in answer["actions"]}
        if "log_unavailable" in answer["degraded_reasons"]:
            tally["unlogged"] += 1
            assert all(action["issue"] == "service" for action in answer["actions"])
        else:
            assert shown == reserved.get(answer["decision_id"], set())
            tally["shown"] += len(shown)
    tally["decisions"] += len(answers)
    tally["full"] += sum(contact["is_marketing"] for contact in contacts) == CAPS["marketing_week"]["limit"]


def test_no_cap_is_passed_by_one(two: list[str]) -> None:
    """64 at once for each of 12 customers: no cap is passed, and what is shown is what was reserved."""
    tally = asyncio.run(rush(two, [f"rush-{k}" for k in range(12)], seed=1))
    assert tally["passed"] == 0
    assert tally["unlogged"] == 0
    assert tally["full"] >= 10, "too little was asked for to press the caps"


@pytest.mark.prove
def test_no_cap_is_passed_by_one_for_a_thousand_customers(two: list[str]) -> None:
    """64 at once for each of 1,000 customers: no cap is passed, and what is shown is what was reserved."""
    tally = asyncio.run(rush(two, [f"thousand-{k}" for k in range(1_000)], seed=2))
    print(f"{1_000 * PARALLEL:,} decisions asked over {len(CHANNELS)} channels and two processes: {dict(tally)}")
    assert tally["passed"] == 0
    assert tally["full"] >= 900, "too little was asked for to press the caps"
