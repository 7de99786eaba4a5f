"""Forgetting a customer through a whole service: by HTTP and by command, with the receipt within the minute."""

from __future__ import annotations

import json
import time

import pytest

from tests.served import Served

CUSTOMER = "205"
"""Nobody that another test of this session asks about."""
LINE = {"aisle": "cheese", "quantity": 1.0, "sales_value": 2.0, "retail_disc": 0.5}


def wait_for_receipt(served: Served, receipt_id: str) -> dict[str, object]:
    """Return the receipt once it is done."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        status, receipt = served.call("GET", f"/v1/erasures/{receipt_id}")
        assert status == 200
        if receipt["status"] == "done":
            return dict(receipt)
        time.sleep(0.2)
    raise AssertionError("no receipt within 60 s")


def test_a_customer_is_forgotten_within_a_minute(served: Served) -> None:
    """A known customer who was decided for is unknown after the receipt, and what is held of them is nothing."""
    answer = served.decide(CUSTOMER)
    assert served.call("GET", f"/v1/customers/{CUSTOMER}")[0] == 200
    held = json.loads(served.run("export", "customer", CUSTOMER).stdout)
    assert held["online"]["is_known"]
    assert held["log"]["decisions"]
    assert held["files"]
    status, said = served.call("DELETE", f"/v1/customers/{CUSTOMER}")
    assert (status, said["status"]) == (202, "pending")
    receipt = wait_for_receipt(served, said["receipt_id"])
    assert receipt["removed"]["facts"] == 1  # type: ignore[index]
    assert served.call("GET", f"/v1/customers/{CUSTOMER}")[0] == 404
    assert served.call("GET", f"/v1/decisions/{answer['decision_id']}")[0] == 404
    held = json.loads(served.run("export", "customer", CUSTOMER).stdout)
    assert not any(held["log"].values())
    assert held["files"] == {}
    event = {"event_id": "late", "customer_id": CUSTOMER, "type": "purchase", "properties": {"lines": [LINE]}}
    assert served.call("POST", "/v1/events", event)[1]["status"] == "erased"
    assert served.decide(CUSTOMER)["degraded_reasons"] == ["cold_start"]
    assert f'"{CUSTOMER}"' not in (served.var.parent / "worker.log").read_text()


@pytest.mark.prove
def test_the_command_prints_the_receipt(served: Served) -> None:
    """`nba forget` waits for the worker and prints what was removed where; an unknown receipt is a 404."""
    done = served.run("forget", "18")
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    assert (receipt["status"], receipt["asked_by"]) == ("done", "nba forget")
    assert served.call("GET", f"/v1/erasures/{receipt['receipt_id']}")[1] == receipt
    assert served.call("GET", "/v1/erasures/00-" + "0" * 32)[0] == 404
    assert served.call("GET", "/v1/erasures/none")[0] == 422
