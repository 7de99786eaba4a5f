"""Texts by locale, and the fallback where nothing was ranked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from service.catalogue.loader import load_catalogue
from service.content import fallback_of, in_locale
from service.decision.engine import compile_catalogue, decide
from service.decision.model import Request
from tests.service.decision.worlds import COLUMNS, NOW, SMALL, described

CONTENT = {"en": {"headline": "Hello"}, "es": {"headline": "Hola"}, "pt-BR": {"headline": "Oi"}}
TINY = compile_catalogue(load_catalogue(SMALL), COLUMNS)
ASKING = Request("app", issues=("retention",))


@pytest.mark.parametrize(
    ("asked", "spoken"),
    [(None, "en"), ("es", "es"), ("es-MX", "es"), ("ES-mx", "es"), ("pt-BR", "pt-BR"), ("pt", "en"), ("fr-CA", "en"),
     ("pt-BR-x-old", "pt-BR"), ("", "en")],
)  # fmt: skip
def test_nearest_locale(asked: str | None, spoken: str) -> None:
    """A locale is served by itself, else by its language, else by the default; the answer says which."""
    assert in_locale(CONTENT, asked, "en") == (spoken, CONTENT[spoken])


@pytest.mark.parametrize(
    ("case", "request_", "reason"),
    [
        ({"facts": {"baskets_count": 9}}, ASKING, "the request asks for other issues"),
        ({"facts": {"baskets_count": 9}}, Request("app", limit=0), "others were placed"),
        ({"consent": "refused"}, Request("app", limit=0), "no consent to marketing on this channel"),
    ],
)
def test_fallback_says_why_nothing_was_ranked(case: dict[str, object], request_: Request, reason: str) -> None:
    """Where nothing is ranked the catalogue's fallback comes with where most candidates ended, in words."""
    decisions = decide(described(case), request_, TINY, None, NOW, np.array([7], np.uint64))
    assert decisions.chosen == ((),)
    found = fallback_of(decisions, TINY, 0, "en-GB")
    assert found is not None
    assert (found["action_id"], found["treatment_id"], found["placement"]) == ("hours", "hours.app", "home")
    assert found["locale"] == "en"
    assert found["reason"] in (reason, "outside its dates of validity")


def test_no_fallback_beside_ranked_actions_nor_of_what_is_paused() -> None:
    """Beside ranked actions there is no fallback, nor where it is paused or the catalogue has none."""
    case = {"facts": {"baskets_count": 9}}
    key = np.array([7], np.uint64)
    assert fallback_of(decide(described(case), Request("app"), TINY, None, NOW, key), TINY, 0, None) is None
    paused = described({**case, "paused": [["action", "hours"]]})
    assert fallback_of(decide(paused, ASKING, TINY, None, NOW, key), TINY, 0, None) is None
    without = replace(TINY, catalogue=replace(TINY.catalogue, fallback=""))
    assert fallback_of(decide(described(case), ASKING, without, None, NOW, key), without, 0, None) is None
