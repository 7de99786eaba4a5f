"""Contact policy of the core: what each kind of cap, cool-off and quiet hours leaves room for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.catalogue.loader import load_catalogue
from service.decision.contact_policy import UNBOUND, CapTable
from service.decision.engine import compile_catalogue, decide
from service.decision.model import Cap, Catalogue, Contacts, Decisions, LocalTimes, QuietHours, Request, Stage
from service.decision.trace import trace
from tests.service.decision.worlds import COLUMNS, NOW, SMALL, described, keys_for, showing

DAY = 86_400.0
BASE = load_catalogue(SMALL)
FISH, CAKE, HOURS = "fish", "cake", "hours"
Told = tuple[str, str, float] | tuple[str, str, float, str]


def history(*told: Told, placement: str = "home") -> Contacts:
    """Return contacts of one customer: kind, action, days ago and, if it matters, decision."""
    return Contacts(
        np.zeros(len(told), np.int64),
        np.array([NOW - t[2] * DAY for t in told]),
        tuple(t[0] for t in told),
        tuple(t[3] if len(t) > 3 else f"d{k}" for k, t in enumerate(told)),
        tuple(showing(t[1], "app", placement) for t in told),
    )


def cap(scope: str = "marketing", scope_id: str = "", limit: int = 1, **terms: Any) -> Cap:
    """Return a cap of a week on decisions."""
    terms = {"counted": "decision", "window_seconds": 7 * DAY, "channels": (), "reason": "full", **terms}
    return Cap("cap", scope, scope_id, limit=limit, **terms)


def limited(*policies: Cap | QuietHours, **terms: Any) -> Catalogue:
    """Return the small catalogue without rules, under these policies."""
    caps = tuple(policy for policy in policies if isinstance(policy, Cap))
    quiet = tuple(policy for policy in policies if isinstance(policy, QuietHours))
    return replace(BASE, rules=(), caps=caps, quiet_hours=quiet, **terms)


def run(
    catalogue: Catalogue, contacts: Contacts | None = None, local: LocalTimes | None = None, **asked: Any
) -> Decisions:
    """Decide for one customer on the app."""
    batch = replace(described({"facts": {"baskets_count": 3}}), contacts=contacts or Contacts.none(), local=local)
    compiled = compile_catalogue(catalogue, COLUMNS)
    return decide(batch, Request("app", **asked), compiled, None, NOW, keys_for(1))


def excluded(catalogue: Catalogue, contacts: Contacts | None = None, local: LocalTimes | None = None) -> set[str]:
    """Return the actions that the contact policy excludes."""
    decisions = run(catalogue, contacts, local)
    out = np.flatnonzero(decisions.stages[0] == Stage.CONTACT_POLICY)
    return {BASE.actions[decisions.actions[c]].id for c in out}


MARKETING = {action.id for action in BASE.actions if action.is_marketing and action.id != "summer"}


@pytest.mark.parametrize(
    ("policy", "told", "out"),
    [
        (cap(), [("decision", FISH, 1)], MARKETING),
        (cap(), [("decision", HOURS, 1)], set()),
        (cap(), [("decision", FISH, 8)], set()),
        (cap(), [("decision", FISH, -0.01)], MARKETING),
        (cap("all"), [("decision", HOURS, 1)], MARKETING | {HOURS, "help"}),
        (cap("issue", "cross_sell"), [("decision", FISH, 1)], MARKETING - {"win_back"}),
        (cap("issue", "service"), [("decision", HOURS, 1)], {HOURS, "help"}),
        (cap("issue", "*"), [("decision", "win_back", 1)], {"win_back"}),
        (cap("group", "sweet"), [("decision", CAKE, 1)], {CAKE, "rare", "dear"}),
        (cap("action", "*"), [("decision", CAKE, 1)], {CAKE}),
        (cap("treatment", "*"), [("decision", CAKE, 1)], {CAKE}),
        (cap("treatment", "cake.email"), [("decision", CAKE, 1)], set()),
        (cap(counted="conversion"), [("conversion", FISH, 1)], MARKETING),
        (cap(counted="click"), [("decision", FISH, 1), ("impression", FISH, 1)], set()),
        (cap(limit=2), [("decision", FISH, 1, "x"), ("decision", CAKE, 1, "x")], MARKETING),
        (cap(limit=2, unit="message"), [("decision", FISH, 1, "x"), ("decision", CAKE, 1, "x")], set()),
        (cap(limit=2, unit="message"), [("decision", FISH, 1, "x"), ("decision", CAKE, 2, "y")], MARKETING),
        (cap(counted="impression", unit="message"), [("impression", FISH, 1, "x")], MARKETING),
        (cap(channels=("email",)), [("decision", FISH, 1)], set()),
        (cap("action", "*", counted="reject", window_seconds=30 * DAY), [("reject", FISH, 29)], {FISH}),
        (cap("issue", "*", counted="accept"), [("accept", FISH, 6)], MARKETING - {"win_back"}),
    ],
)  # fmt: skip
def test_what_a_cap_leaves(policy: Cap, told: list[Told], out: set[str]) -> None:
    """A cap excludes what is of its scope once its limit of what it counts is reached in its window."""
    assert excluded(limited(policy), history(*told)) == out


def test_what_was_shown_counts_as_what_it_was_then() -> None:
    """An action that the catalogue no longer has, or has in another group, counts by the words of its own day."""
    gone = history(("decision", "gone", 1))
    gone = replace(gone, showings=(gone.showings[0]._replace(issue="cross_sell", group="sweet"),))
    assert excluded(limited(cap("group", "sweet")), gone) == {CAKE, "rare", "dear"}
    moved = history(("decision", CAKE, 1))
    moved = replace(moved, showings=(moved.showings[0]._replace(group="fresh"),))
    assert excluded(limited(cap("group", "*")), moved) == {FISH}


@pytest.mark.parametrize(
    ("calendar", "days_ago", "is_out"),
    [
        ("day", 0.2, True), ("day", 0.3, False),
        ("week", 4.2, True), ("week", 4.3, False),
        ("month", 29.2, True), ("month", 29.3, False),
    ],
)  # fmt: skip
def test_calendar_windows_open_with_the_local_day(calendar: str, days_ago: float, is_out: bool) -> None:
    """Where the day opened 0.25 days ago, the week 4.25 and the month 29.25, what came before does not count."""
    starts = np.array([[NOW - 0.25 * DAY], [NOW - 4.25 * DAY], [NOW - 29.25 * DAY]])
    local = LocalTimes(starts, np.array([0.25 * DAY]))
    policy = cap(calendar=calendar, window_seconds=0.0)
    assert (excluded(limited(policy), history(("decision", FISH, days_ago)), local) == MARKETING) == is_out


def test_the_first_moment_of_a_day_belongs_to_it() -> None:
    """A contact at midnight sharp counts today."""
    local = LocalTimes(np.full((3, 1), NOW - DAY / 4), np.array([DAY / 4]))
    policy = cap(calendar="day", window_seconds=0.0)
    assert excluded(limited(policy), history(("decision", FISH, 0.25)), local) == MARKETING


def quiet(starts: float, ends: float, scope: str = "marketing", **terms: Any) -> QuietHours:
    """Return quiet hours from one hour to another."""
    return QuietHours(
        "night", scope, terms.get("scope_id", ""), starts * 3600, ends * 3600, terms.get("channels", ()), ""
    )


@pytest.mark.parametrize(
    ("policy", "hour", "out"),
    [
        (quiet(21, 8), 20.999, set()),
        (quiet(21, 8), 21, MARKETING),
        (quiet(21, 8), 0, MARKETING),
        (quiet(21, 8), 7.999, MARKETING),
        (quiet(21, 8), 8, set()),
        (quiet(12, 14), 11, set()),
        (quiet(12, 14), 13, MARKETING),
        (quiet(12, 14), 14, set()),
        (quiet(0, 9), 3, MARKETING),
        (quiet(0, 24, channels=("email",)), 3, set()),
        (quiet(21, 8, "all"), 22, MARKETING | {HOURS, "help"}),
        (quiet(21, 8, "issue", scope_id="service"), 22, {HOURS, "help"}),
    ],
)  # fmt: skip
def test_quiet_hours(policy: QuietHours, hour: float, out: set[str]) -> None:
    """From the first hour to before the last, over midnight too; what is no marketing is exempt unless it is named."""
    local = LocalTimes(np.zeros((3, 1)), np.array([hour * 3600]))
    assert excluded(limited(policy), local=local) == out


@pytest.mark.parametrize(
    ("told", "channel_seconds", "counts"),
    [
        ([("decision", FISH, 0.02)], {}, True),
        ([("decision", FISH, 0.03)], {}, False),
        ([("decision", FISH, 0.03)], {"app": DAY}, True),
        ([("decision", FISH, 0.02)], {"app": 60.0}, False),
        ([("decision", FISH, 0.02)], {"email": 60.0}, True),
        ([("decision", FISH, 0.02, "x"), ("impression", FISH, 0.01, "x")], {}, True),
        ([("decision", FISH, 3.0, "x"), ("impression", FISH, 2.0, "x")], {}, True),
    ],
)  # fmt: skip
def test_a_decision_counts_as_an_impression_until_it_lapses(
    told: list[Told], channel_seconds: dict[str, float], counts: bool
) -> None:
    """For half an hour, or as long as the catalogue says for the channel; an impression takes its place."""
    catalogue = limited(cap(counted="impression", limit=1), reservations=channel_seconds)
    assert (excluded(catalogue, history(*told)) == MARKETING) == counts
    two = limited(cap(counted="impression", limit=2), reservations=channel_seconds)
    assert excluded(two, history(*told)) == set()


def test_a_cap_on_a_placement_closes_that_placement_only() -> None:
    """What fits another placement goes there; what fits only the full one is excluded by the cap."""
    catalogue = limited(cap("all", placements=("home",), limit=1))
    told = history(("decision", CAKE, 1))
    decisions = run(catalogue, told)
    assert [choice.placement for choice in decisions.chosen[0]] == ["side"]
    assert excluded(catalogue, told) == {"win_back"}
    entries = trace(decisions, compile_catalogue(catalogue, COLUMNS), 0)
    [entry] = [entry for entry in entries if entry["action_id"] == "win_back"]
    assert (entry["stage"], entry["cap"]) == ("contact_policy", "cap")
    only_home = run(catalogue, told, placements=(("home", 2),))
    assert only_home.chosen == ((),)
    assert excluded(catalogue, replace(told, showings=(showing(CAKE, "app", "side"),))) == set()


def test_a_cap_on_a_placement_counts_within_an_answer() -> None:
    """With room for one at home, an answer places one there although there are two slots."""
    catalogue = limited(cap("all", placements=("home",), limit=1))
    assert [choice.placement for choice in run(catalogue).chosen[0]] == ["home", "side"]


def test_one_message_may_carry_many_actions() -> None:
    """A cap on messages leaves an answer all its slots, where the same cap on actions leaves one."""
    assert len(run(limited(cap("all"))).chosen[0]) == 1
    assert len(run(limited(cap("all", unit="message"))).chosen[0]) == 3


def test_room_alone_decides() -> None:
    """A decision from the room that was counted is the decision from contacts and clock, whatever they are now."""
    catalogue = limited(cap("group", "*"), cap("action", "*", limit=2), quiet(0, 24, "action", scope_id="help"))
    compiled = compile_catalogue(catalogue, COLUMNS)
    batch = replace(
        described({"facts": {"baskets_count": 3}}), contacts=history(("decision", CAKE, 1), ("decision", FISH, 1))
    )
    first = decide(batch, Request("app"), compiled, None, NOW, keys_for(1))
    empty = replace(batch, contacts=Contacts.none(), local=LocalTimes(np.zeros((3, 1)), np.array([1.0])))
    again = decide(empty, Request("app"), compiled, None, NOW, keys_for(1), room=first.room)
    assert (again.chosen, again.stages.tolist()) == (first.chosen, first.stages.tolist())
    assert (again.reasons == first.reasons).all()
    assert first.room.min() == 0
    assert first.room.max() <= UNBOUND
    assert decide(empty, Request("app"), compiled, None, NOW, keys_for(1)).stages.tolist() != first.stages.tolist()


def test_what_used_up_is_named() -> None:
    """The policies that left no room on some counter are told, each once."""
    table = CapTable.of(limited(cap("group", "*"), quiet(0, 24)))
    told = history(("decision", CAKE, 1), ("decision", FISH, 1))
    room = table.room(told, "app", NOW, LocalTimes.utc(NOW, 1))[0]
    assert [policy.id for policy in table.used_up(room)] == ["cap", "night"]
    assert table.used_up(np.ones_like(room)) == []


def test_customers_of_a_batch_have_their_own_clocks() -> None:
    """Where it is night for one and noon for another, only one of them is left in peace."""
    table = CapTable.of(limited(quiet(21, 8)))
    local = LocalTimes(np.zeros((3, 2)), np.array([22.0 * 3600, 12.0 * 3600]))
    assert table.room(Contacts.none(), "app", NOW, local).tolist() == [[0], [UNBOUND]]
