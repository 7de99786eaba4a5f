"""Consent: which words of a customer hold for a channel and a purpose."""

from __future__ import annotations

import math

import pytest

from service.decision.consent import Said, consent_codes

NOW = 1_770_000_000.0
YES, NO = True, False
Word = tuple[str, str, bool, float] | tuple[str, str, bool, float, float]


def said(*words: Word) -> dict[tuple[str, str], Said]:
    """Return words as kept; each is channel, purpose, granted, days ago, and days until it expires."""
    return {
        (w[0], w[1]): Said(w[2], NOW + w[4] * 86_400 if len(w) > 4 else math.inf, NOW - w[3] * 86_400) for w in words
    }


CASES: dict[str, tuple[list[Word], dict[str, int]]] = {
    "nothing said is unknown": ([], {}),
    "a grant for the channel": ([("app", "marketing", YES, 1)], {"marketing": 1}),
    "a grant for all channels": ([("all", "marketing", YES, 1)], {"marketing": 1}),
    "a grant for another channel": ([("email", "marketing", YES, 1)], {}),
    "a grant for another purpose": ([("app", "partners", YES, 1)], {"partners": 1}),
    "a grant for all purposes names none": ([("app", "all", YES, 1)], {}),
    "an expired grant": ([("app", "marketing", YES, 9, 0)], {}),
    "a grant that expires later": ([("app", "marketing", YES, 9, 1)], {"marketing": 1}),
    "a refusal": ([("app", "marketing", NO, 1)], {"marketing": 0}),
    "an objection to a purpose on all channels": (
        [("app", "marketing", YES, 9), ("all", "marketing", NO, 1)],
        {"marketing": 0},
    ),
    "an objection to everything": (
        [("app", "marketing", YES, 9), ("app", "partners", YES, 9), ("all", "all", NO, 1)],
        {"marketing": 0, "partners": 0, "all": 0},
    ),
    "a channel refused for all purposes": (
        [("app", "marketing", YES, 9), ("app", "all", NO, 1)],
        {"marketing": 0, "all": 0},
    ),
    "a narrower grant after an objection": (
        [("all", "all", NO, 9), ("app", "marketing", YES, 1)],
        {"marketing": 1, "all": 0},
    ),
    "a wide grant does not undo a narrow refusal": (
        [("app", "marketing", NO, 9), ("all", "marketing", YES, 1)],
        {"marketing": 0},
    ),
    "a grant as old as the refusal": (
        [("all", "marketing", NO, 1), ("app", "marketing", YES, 1)],
        {"marketing": 0},
    ),
    "an expired grant after an objection": (
        [("all", "marketing", NO, 9), ("app", "marketing", YES, 5, 0)],
        {"marketing": 0},
    ),
}


@pytest.mark.parametrize(("words", "codes"), CASES.values(), ids=CASES.keys())
def test_what_holds_on_a_channel(words: list[Word], codes: dict[str, int]) -> None:
    """Granted is only what was granted for the purpose and not refused since, or more narrowly."""
    assert consent_codes(said(*words), "app", NOW) == codes
