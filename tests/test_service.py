"""The service as its callers see it: over HTTP, with real stores, a real model and a real worker."""

from __future__ import annotations

import itertools
import json
import re
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest

from service.decision.record import DEGRADED_REASONS
from tests.conftest import NOW
from tests.served import Served

CHANNELS = ("app", "email", "mailer", "till")
numbers = itertools.count()


@pytest.fixture(scope="module")
def households(served: Served) -> list[str]:
    """All households of the world, with consent granted on every channel."""
    lines = pq.read_table(served.var / "history" / "lines.parquet", columns=["customer_id"])
    found = sorted(lines["customer_id"].unique().to_pylist())
    grants = [consent(h, channel, granted=True) for h in found for channel in CHANNELS]
    for start in range(0, len(grants), 1000):
        status, receipts = served.call("POST", "/v1/events", grants[start : start + 1000])
        assert status == 202
        assert {r["status"] for r in receipts} == {"accepted"}
    return found


@pytest.fixture(scope="module")
def fresh(households: list[str]) -> Callable[[], str]:
    """Give each test a household that no other test has touched."""
    left = iter(households)
    return lambda: next(left)


def consent(customer: str, channel: str, *, granted: bool) -> dict[str, Any]:
    properties = {"channel": channel, "purpose": "marketing", "granted": granted, "source": "test"}
    return {
        "event_id": f"c-{next(numbers)}",
        "customer_id": customer,
        "type": "consent_changed",
        "properties": properties,
    }


def basket(customer: str, aisle: str) -> dict[str, Any]:
    line = {
        "aisle": aisle, "quantity": 1.0, "sales_value": 5.0, "retail_disc": 0.0, "coupon_disc": 0.0,
        "coupon_match_disc": 0.0, "is_private": False, "is_promoted": False,
    }  # fmt: skip
    return {
        "event_id": f"b-{next(numbers)}",
        "customer_id": customer,
        "type": "purchase",
        "properties": {"lines": [line]},
    }


def nba_arm(served: Served, fresh: Callable[[], str]) -> tuple[str, dict[str, Any]]:
    """Return a household in the arm nba that is shown marketing, with that dry decision."""
    for _ in range(40):
        customer = fresh()
        answer = served.decide(customer, dry_run=True, explain="full")
        if answer["arm"] == "nba" and any(a["issue"] != "service" for a in answer["actions"]):
            return customer, answer
    raise AssertionError("no household in the arm nba is shown marketing")


def test_a_decision_ranks_and_explains(served: Served, fresh: Callable[[], str]) -> None:
    """A decision has ranked actions with probability and reasons, and a trace with every candidate exactly once."""
    _, answer = nba_arm(served, fresh)
    assert [a["rank"] for a in answer["actions"]] == list(range(1, len(answer["actions"]) + 1))
    assert answer["degraded"] is False
    for action in answer["actions"]:
        assert 0 < action["selection_probability"] <= 1
        assert 0 <= action["propensity"] <= 1
        assert action["reasons"]
        assert action["content"]
    treatments = [row["treatment_id"] for row in answer["trace"]]
    assert len(treatments) == len(set(treatments)) > 30
    ranked = {row["treatment_id"] for row in answer["trace"] if row["stage"] == "ranked"}
    assert ranked == {a["treatment_id"] for a in answer["actions"]}
    excluded = [row for row in answer["trace"] if row["stage"] in ("eligibility", "applicability", "suitability")]
    assert excluded
    assert all(row["reason"] for row in excluded)


def test_explain_none_is_lean(served: Served, fresh: Callable[[], str]) -> None:
    """Without explanation there is neither trace nor reason."""
    answer = served.decide(fresh(), dry_run=True, explain="none")
    assert "trace" not in answer
    assert all(a["reasons"] == [] for a in answer["actions"])


def test_an_unknown_customer_is_a_cold_start_without_marketing(served: Served) -> None:
    """Who is unknown gets an answer that says so, and nothing that needs consent."""
    answer = served.decide("nobody-knows-me", explain="full")
    assert answer["degraded"] is True
    assert answer["degraded_reasons"] == ["cold_start"]
    assert {a["issue"] for a in answer["actions"]} == {"service"}
    assert {row["stage"] for row in answer["trace"] if row["issue"] != "service"} == {"no_consent"}
    status, problem = served.call(
        "POST", "/v1/decisions", {"customer_id": "nobody", "channel": "app", "require_known": True}
    )
    assert (status, problem["type"]) == (404, "urn:nba:problem:unknown-customer")


def test_refused_consent_acts_on_the_next_decision(served: Served, fresh: Callable[[], str]) -> None:
    """An objection is an event, and the next decision on that channel shows no marketing; other channels go on."""
    customer, _ = nba_arm(served, fresh)
    assert served.call("POST", "/v1/events", consent(customer, "app", granted=False))[0] == 202
    assert {a["issue"] for a in served.decide(customer)["actions"]} <= {"service"}
    assert "no_consent" not in {
        row["stage"] for row in served.decide(customer, "email", dry_run=True, explain="full")["trace"]
    }


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"channel": "app"}, "customer_id"),
        ({"customer_id": "1", "channel": "fax"}, "channel"),
        ({"customer_id": 1, "channel": "app"}, "customer_id"),
        ({"customer_id": "1", "channel": "app", "limit": 0}, "limit"),
        ({"customer_id": "1", "channel": "app", "colour": "red"}, "(key)"),
        ({"customer_id": "1", "channel": "app", "placements": [{"name": "moon", "count": 1}]}, "placements[0].name"),
        ({"customer_id": "1", "channel": "app", "context": {"no_such": 1.0}}, "context"),
        ({"customer_id": "1", "channel": "app", "issues": ["loyalty"]}, "issues[0]"),
    ],
)
def test_problems_name_the_field(served: Served, body: dict[str, Any], field: str) -> None:
    """What is not valid is answered with an RFC 9457 problem that names the field."""
    status, problem = served.call("POST", "/v1/decisions", body)
    assert status == 422
    assert problem["status"] == 422
    assert problem["errors"][0]["field"] == field
    assert {"type", "title", "detail"} <= set(problem)


def test_bodies_that_are_no_json(served: Served) -> None:
    """No JSON is a 400, half a surrogate pair a 422, another type a 415, too large a 413, an unknown route a 404."""
    assert served.call("POST", "/v1/decisions", b"hello")[0] == 400
    assert served.call("POST", "/v1/decisions", b'{"customer_id": "\\ud800", "channel": "app"}')[0] == 422
    assert served.call("POST", "/v1/decisions", b"{}", Content_Type="text/plain")[0] == 415
    assert served.call("POST", "/v1/decisions", b" " * 70_000)[0] == 413
    status, problem = served.call("GET", "/v1/nothing")
    assert (status, problem["status"]) == (404, 404)


def test_outcomes_find_their_decision(served: Served, fresh: Callable[[], str]) -> None:
    """Accepted once, then a duplicate; other content is a conflict; a foreign action 422; an unknown one is parked."""
    customer, _ = nba_arm(served, fresh)
    decision = served.decide(customer)
    outcome = {
        "outcome_id": f"o-{next(numbers)}",
        "decision_id": decision["decision_id"],
        "action_id": decision["actions"][0]["action_id"],
        "type": "impression",
    }
    assert served.call("POST", "/v1/outcomes", outcome)[1]["status"] == "accepted"
    status, receipt = served.call("POST", "/v1/outcomes", outcome)
    assert (status, receipt["status"], receipt["duplicate"]) == (202, "duplicate", True)
    assert served.call("POST", "/v1/outcomes", {**outcome, "type": "click"})[0] == 409
    foreign = {**outcome, "outcome_id": f"o-{next(numbers)}", "action_id": "no_such_action"}
    status, problem = served.call("POST", "/v1/outcomes", foreign)
    assert (status, problem["errors"][0]["field"]) == (422, "action_id")
    orphan = {**outcome, "outcome_id": f"o-{next(numbers)}", "decision_id": "07-" + "0" * 32}
    assert served.call("POST", "/v1/outcomes", orphan)[1]["status"] == "orphan"


def counted(served: Served, name: str) -> dict[str, float]:
    """Return a counter's series by their labels."""
    text = served.call("GET", "/metrics")[1]
    found = re.findall(rf"^{name}\{{(.*)\}} ([0-9.e+]+)$", text, re.M)
    return {labels: float(value) for labels, value in found}


def test_every_answer_to_an_outcome_is_counted(served: Served, fresh: Callable[[], str]) -> None:
    """Each receipt's status has its counter, and late and skewed moments have theirs and are said in the receipt."""
    customer, _ = nba_arm(served, fresh)
    decision = served.decide(customer)
    known = {"decision_id": decision["decision_id"], "action_id": decision["actions"][0]["action_id"], "type": "click"}
    first = {"outcome_id": f"o-{next(numbers)}", **known}
    told = [
        first,
        first,
        {**first, "type": "accept"},
        {**first, "outcome_id": f"o-{next(numbers)}", "action_id": "no_such_action"},
        {**first, "outcome_id": f"o-{next(numbers)}", "decision_id": "07-" + "1" * 32},
        {**first, "outcome_id": f"o-{next(numbers)}", "type": "bought"},
        {**first, "outcome_id": f"o-{next(numbers)}", "occurred_at": "2017-01-01T00:00:00Z"},
        {**first, "outcome_id": f"o-{next(numbers)}", "occurred_at": "2030-01-01T00:00:00Z"},
    ]
    names = ("nba_outcomes_total", "nba_intake_flagged_total")
    before = {name: counted(served, name) for name in names}
    _, receipts = served.call("POST", "/v1/outcomes", told)
    statuses = ["accepted", "duplicate", "conflict", "foreign_action", "orphan", "invalid", "accepted", "accepted"]
    assert [receipt["status"] for receipt in receipts] == statuses
    assert [receipt.get("flags") for receipt in receipts[-2:]] == [["late"], ["clock_skew"]]
    after = {name: counted(served, name) for name in names}
    grown = {
        labels: value - before[name].get(labels, 0.0)
        for name in names
        for labels, value in after[name].items()
        if value != before[name].get(labels, 0.0)
    }
    assert grown == {
        'result="accepted"': 3, 'result="duplicate"': 1, 'result="conflict"': 1, 'result="foreign_action"': 1,
        'result="orphan"': 1, 'result="invalid"': 1,
        'flag="late",kind="outcome"': 1, 'flag="clock_skew",kind="outcome"': 1,
    }  # fmt: skip


def test_a_list_has_a_receipt_for_each(served: Served, fresh: Callable[[], str]) -> None:
    """In a list one bad item does not refuse the others, and its receipt names the place and the field."""
    good = consent(fresh(), "app", granted=True)
    status, receipts = served.call("POST", "/v1/events", [good, {"event_id": "x", "type": "purchase"}])
    assert status == 202
    assert [r["status"] for r in receipts] == ["accepted", "invalid"]
    assert receipts[1]["detail"].startswith("[1].customer_id")


def test_an_event_moves_the_next_decision(served: Served, fresh: Callable[[], str]) -> None:
    """A purchase reaches the facts through journal, fold and Feast's push, and changes what the next decision sees."""
    customer = fresh()
    before = served.call("GET", f"/v1/customers/{customer}")[1]
    assert served.call("POST", "/v1/events", basket(customer, "seafood"))[0] == 202
    count = before["views"]["purchases"]["columns"]["baskets_count"]
    for _ in range(100):
        after = served.call("GET", f"/v1/customers/{customer}")[1]
        is_counted = after["views"]["purchases"]["columns"]["baskets_count"] == count + 1
        days = after["views"]["aisle_history"]["columns"].get("days_since_aisle_purchase__seafood")
        if is_counted and days is not None and days < 1:
            break
        time.sleep(0.05)
    assert is_counted
    assert days == pytest.approx(0.0, abs=1e-6)
    trace = served.decide(customer, dry_run=True, explain="full")["trace"]
    seafood = [row for row in trace if row["action_id"].startswith("cross_sell_seafood")]
    assert seafood
    assert all(row["stage"] not in ("ranked", "not_selected") for row in seafood)


def test_an_idempotency_key_repeats_the_answer(served: Served, fresh: Callable[[], str]) -> None:
    """A retry under the same key gets the same answer to the byte and takes no second cap; another request a 409."""
    customer, _ = nba_arm(served, fresh)
    body = {"customer_id": customer, "channel": "app"}
    first = served.call("POST", "/v1/decisions", body, Idempotency_Key=f"k-{customer}")
    assert served.call("POST", "/v1/decisions", body, Idempotency_Key=f"k-{customer}") == first
    contacts = served.call("GET", f"/v1/customers/{customer}")[1]["contacts"]
    assert len(contacts) == len(first[1]["actions"])
    other = {**body, "limit": 1}
    assert served.call("POST", "/v1/decisions", other, Idempotency_Key=f"k-{customer}")[0] == 409


def test_a_shown_action_is_capped_next_time(served: Served, fresh: Callable[[], str]) -> None:
    """What was shown and seen is held back by its frequency cap, and the trace names the cap."""
    customer, _ = nba_arm(served, fresh)
    decision = served.decide(customer, limit=1, issues=["upsell", "cross_sell", "retention"])
    shown = decision["actions"][0]["action_id"]
    ids = {"outcome_id": f"o-{next(numbers)}", "decision_id": decision["decision_id"]}
    outcome = {**ids, "action_id": shown, "type": "impression"}
    assert served.call("POST", "/v1/outcomes", outcome)[0] == 202
    trace = served.decide(customer, dry_run=True, explain="full")["trace"]
    rows = [row for row in trace if row["action_id"] == shown]
    assert {row["stage"] for row in rows} == {"contact_policy"}
    assert all(row["cap"] and row["reason"] for row in rows)


def test_a_switch_acts_on_the_next_request(served: Served, fresh: Callable[[], str]) -> None:
    """A paused action is gone from the very next decision and back after it is resumed."""
    customer, answer = nba_arm(served, fresh)
    action = next(a["action_id"] for a in answer["actions"] if a["issue"] != "service")
    order = {"paused": True, "who": "test", "why": "to see it"}
    assert served.call("PUT", f"/v1/switches/action/{action}", order)[0] == 200
    trace = served.decide(customer, dry_run=True, explain="full")["trace"]
    assert {row["stage"] for row in trace if row["action_id"] == action} == {"switched_off"}
    assert served.call("PUT", f"/v1/switches/action/{action}", {**order, "paused": False})[0] == 200
    trace = served.decide(customer, dry_run=True, explain="full")["trace"]
    assert "switched_off" not in {row["stage"] for row in trace}


def test_every_decision_and_outcome_reaches_the_lake_once(served: Served, fresh: Callable[[], str]) -> None:
    """What was answered is in the decision log, once, with facts as served and every candidate."""
    customer, _ = nba_arm(served, fresh)
    ids = {served.decide(customer)["decision_id"] for _ in range(3)}
    for _ in range(100):
        files = list((served.var / "lake" / "decisions").glob("*.parquet"))
        rows = [row for f in files for row in pq.read_table(f).to_pylist() if row["decision_id"] in ids]
        if len(rows) >= len(ids):
            break
        time.sleep(0.1)
    assert sorted(row["decision_id"] for row in rows) == sorted(ids)
    assert all(len(row["treatment_ids"]) == len(row["propensities"]) > 30 for row in rows)


def test_api_and_batch_are_bit_equal(served: Served, households: list[str], tmp_path: Any) -> None:
    """For 200 households, with the same facts, contacts, now and random key, API and batch are equal to the bit."""
    served.set_clock(NOW + 9 * 3600)  # in the morning: at night no marketing goes out by e-mail
    some = households[-200:]
    assert len(some) == 200
    listed, out = tmp_path / "customers.txt", tmp_path / "decisions.parquet"
    listed.write_text("\n".join(some))
    done = served.run(
        "batch", "--channel", "email", "--out", str(out), "--customers", str(listed), "--run-id", "nightly"
    )
    assert done.returncode == 0, done.stderr
    batch: dict[str, list[dict[str, Any]]] = {customer: [] for customer in some}
    for row in pq.read_table(out).to_pylist():
        batch[row["customer_id"]].append(row)
    compared = 0
    for customer in some:
        status, answer = served.call(
            "POST", "/v1/decisions",
            {"customer_id": customer, "channel": "email", "dry_run": True, "limit": 100}, Idempotency_Key="nightly",
        )  # fmt: skip
        assert status == 200
        rows = [row for row in batch[customer] if row["rank"]]
        assert {row["decision_id"] for row in batch[customer]} == {answer["decision_id"]}
        assert {row["arm"] for row in batch[customer]} == {answer["arm"]}
        assert len(rows) == len(answer["actions"])
        for row, action in zip(rows, answer["actions"], strict=True):
            for name in (
                "rank",
                "action_id",
                "treatment_id",
                "placement",
                "priority",
                "propensity",
                "selection_probability",
            ):
                assert row[name] == action[name], (customer, name)
                compared += 1
    assert compared > 1000
    assert {row["propensity_source"] for row in answer["actions"]} <= {"model", "group", "prior"}
    served.set_clock(NOW)


def test_health_metrics_and_documentation(served: Served) -> None:
    """livez, readyz, Prometheus metrics, the OpenAPI document and its page are there."""
    assert served.call("GET", "/livez") == (200, {"status": "alive"})
    status, ready = served.call("GET", "/readyz")
    assert (status, ready["status"], ready["store"]) == (200, "ready", "up")
    served.decide("nobody-knows-me", dry_run=True)
    text = served.call("GET", "/metrics")[1]
    assert 'nba_degraded_total{reason="cold_start"}' in text
    assert "nba_model_info{" in text
    document = served.call("GET", "/openapi.json")[1]
    assert {"/v1/decisions", "/v1/outcomes", "/v1/events", "/v1/customers/{customer_id}"} <= set(document["paths"])
    answer = document["components"]["schemas"]["DecisionAnswer"]["properties"]
    assert answer["degraded_reasons"]["items"]["enum"] == list(DEGRADED_REASONS)
    with urllib.request.urlopen(f"{served.base}/docs") as page:
        assert b"swagger" in page.read().lower()


def test_the_customer_page_says_what_is_known(served: Served, fresh: Callable[[], str]) -> None:
    """Facts come with their age and maximum age; the journey stage is in words; an unknown customer is a 404."""
    status, known = served.call("GET", f"/v1/customers/{fresh()}")
    assert status == 200
    assert known["journey"]["stage"] in ("new", "active", "loyal", "lapsing", "lapsed", "returned")
    assert known["views"]["purchases"]["age_days"] >= 0
    assert any(c["channel"] == "app" and c["granted"] for c in known["consents"])
    assert served.call("GET", "/v1/customers/never-seen-anywhere")[0] == 404


def test_logs_hold_no_customer(served: Served, fresh: Callable[[], str]) -> None:
    """Neither customer ids nor bodies reach the log."""
    served.decide("canary-customer-4711")
    served.call("POST", "/v1/decisions", {"customer_id": "canary-customer-4711", "channel": "canary-channel"})
    for log in served.var.parent.glob("*.log"):
        assert "canary" not in log.read_text()


def test_port_taken_is_one_sentence(served: Served) -> None:
    """A second service on the same port ends with one sentence that says how to go on."""
    done = served.run("serve")
    assert done.returncode == 1
    assert "is taken by another program" in done.stderr
    assert "NBA_PORT=" in done.stderr
    assert "Traceback" not in done.stderr


def test_off_loopback_needs_a_key(served: Served) -> None:
    """The service refuses to listen to the world without an API key."""
    served.env["NBA_HOST"] = "0.0.0.0"
    try:
        done = served.run("serve")
    finally:
        del served.env["NBA_HOST"]
    assert done.returncode == 1
    assert "NBA_API_KEY" in done.stderr


def test_json_answers_are_strict(served: Served, fresh: Callable[[], str]) -> None:
    """No NaN or Infinity is ever written."""
    answer = json.dumps(served.decide(fresh(), dry_run=True, explain="full"))
    assert "NaN" not in answer
    assert "Infinity" not in answer
