"""A decision that was made can be asked for again: the same trace, from the journal, from the lake, or bare."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from service.catalogue.loader import load_catalogue
from service.past import NO_CATALOGUE, look_back, past_view
from tests.served import Served
from tests.service.rows import decision_row

HOUSEHOLD = "31"


@pytest.fixture(scope="module")
def answered(served: Served) -> Any:
    """A decision of which all was told when it was made."""
    return served.decide(HOUSEHOLD, explain="full", context={"device": "web"})


def check_same(past: Any, answered: Any) -> None:
    """Check that the trace from the log is the trace of the moment."""
    assert past["versions"] == answered["versions"]
    assert (past["arm"], past["customer_id"]) == (answered["arm"], HOUSEHOLD)
    assert past["recomputed"] is True, past["recomputed_why"]
    assert past["asked"]["context"] == {"device": 2.0}
    assert len(past["trace"]) == len(answered["trace"]) > 30
    for then, now in zip(answered["trace"], past["trace"], strict=True):
        assert now == then


def test_a_decision_is_told_again_from_the_journal_and_from_the_lake(served: Served, answered: Any) -> None:
    """At once, and when the worker has moved it into the lake and trimmed the journal, its trace is what it was."""
    path = f"/v1/decisions/{answered['decision_id']}"
    for _ in range(8):
        status, past = served.call("GET", path)
        assert status == 200
        check_same(past, answered)
        time.sleep(0.5)
    assert list((served.var / "lake" / "decisions").glob(f"p{answered['decision_id'][:2]}-*.parquet"))


def test_a_past_decision_is_explained_in_full(served: Served, answered: Any) -> None:
    """What each fact contributed is told afterwards too, and adds up to the log-odds of the logged propensity."""
    status, past = served.call("GET", f"/v1/decisions/{answered['decision_id']}?explain=full")
    assert status == 200
    explanation = past["explanation"]
    assert explanation["status"] == "available", explanation
    assert [e["action_id"] for e in explanation["actions"]] == [a["action_id"] for a in answered["actions"]]
    for told, action in zip(explanation["actions"], answered["actions"], strict=True):
        if told["of"] != "propensity":
            continue
        total = told["base_log_odds"] + sum(c["log_odds"] for c in told["contributions"]) + told["all_others_log_odds"]
        assert 1 / (1 + math.exp(-total)) == pytest.approx(action["propensity"], abs=1e-9)
    assert served.call("GET", f"/v1/decisions/{answered['decision_id']}?explain=all")[0] == 422
    assert "explanation" not in served.call("GET", f"/v1/decisions/{answered['decision_id']}")[1]


def test_an_answer_says_whether_it_is_explained(served: Served) -> None:
    """`explain: full` has the contributions, or within its deadline says why not; other answers do not speak of it."""
    seen = set()
    for _ in range(20):
        explanation = served.decide(HOUSEHOLD, explain="full", dry_run=True)["explanation"]
        seen.add(explanation["status"])
        assert explanation["status"] == "available" or explanation["why"]
    assert seen <= {"available", "unavailable"}
    assert served.decide(HOUSEHOLD, dry_run=True).get("explanation") is None


def test_a_decision_that_never_was_is_unknown(served: Served) -> None:
    """Neither a well-formed foreign id nor a text that is no id is found, and a dry run leaves no decision behind."""
    dry = served.decide(HOUSEHOLD, dry_run=True)["decision_id"]
    for decision_id in ("07-" + "0" * 32, "no-such-thing", dry):
        status, problem = served.call("GET", f"/v1/decisions/{decision_id}")
        assert (status, problem["status"]) == (404, 404)


def test_the_catalogue_of_then_is_kept(served: Served, answered: Any) -> None:
    """Every catalogue that served lies under its version, so that its decisions keep their words."""
    kept = served.var / "catalogues" / f"{answered['versions']['catalogue']}.yaml"
    assert load_catalogue(kept).version == answered["versions"]["catalogue"]


def test_without_the_catalogue_of_then_the_numbers_remain() -> None:
    """Where catalogue or feature contract are gone, candidates come as logged, each with stage, place and numbers."""
    past = past_view(look_back(decision_row("c-1", 1_514_786_400.0), None, None))
    assert (past["recomputed"], past["recomputed_why"]) == (False, NO_CATALOGUE)
    deli, cheese = past["trace"]
    assert (deli["stage"], deli["factors"]) == ("not_selected", {"propensity": 0.01, "priority": None})
    assert (cheese["stage"], cheese["rank"], cheese["selection_probability"]) == ("ranked", 1, 0.9)
