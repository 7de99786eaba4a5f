"""An answer is written field by field as it reads: what is put into bytes beforehand changes nothing of it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from service.answer import answer_of, as_data
from service.api import schemas
from service.catalogue.loader import load_catalogue
from service.content import fallback_of, in_locale
from service.decision.engine import CompiledCatalogue, compile_catalogue
from service.decision.experiment import ARMS
from service.decision.model import Choice, Evidence, Experiment, Exploration, Request
from service.decision.record import decision_id_from
from service.decision.trace import factors
from service.online import Decided, Serving, decide_all
from service.ports import Bundle, Gathered
from tests.service.decision.worlds import CATALOGUE, COLUMNS, NOW, TableScorer, random_batch
from tests.service.rows import plan_by_hand

N = 50
REQUESTS = (
    Request("app"),
    Request("email", limit=2),
    Request("app", (("app_home", 2),), issues=("upsell", "retention"), limit=5),
    Request("till"),
    Request("mailer", limit=0),
)
LOCALES = (None, "es", "ES-mx", "pt-BR", "xx", "en-GB")


def world(strategy: str, *, with_uplift: bool) -> tuple[CompiledCatalogue, Serving]:
    """The shipped catalogue with all arms, texts in two languages for some, and a scorer of which some have nothing."""
    shipped = load_catalogue(CATALOGUE)
    arms = tuple((arm, 1 / len(ARMS)) for arm in ARMS)
    treatments = tuple(
        replace(t, content={**t.content, "es": {"headline": f'"{t.id}" ñ\n\u2028', "body": "</b>"}}) if k % 3 else t
        for k, t in enumerate(shipped.treatments)
    )
    compiled = compile_catalogue(
        replace(
            shipped,
            experiment=Experiment("e", "salt", arms, (("catalogued", 0.9), ("none", 0.1))),
            exploration=Exploration(strategy, 0.3),
            treatments=treatments,
            estimates={"upsell": "uplift"} if with_uplift else {},
        ),
        COLUMNS,
    )
    scorer = TableScorer(len(shipped.actions))
    scorer.evidence = np.arange(len(shipped.actions)) % 4.0
    bundle = Bundle("m/1", "a" * 32, "f", plan_by_hand(), lambda compiled: scorer)
    return compiled, Serving(compiled, bundle, scorer)


def read_plainly(decided: Decided, locale: str | None, explain: str) -> dict[str, Any]:
    """Write an answer from its parts one by one, with nothing prepared."""
    decisions, i, compiled = decided.decisions, decided.customer, decided.serving.catalogue
    terms = compiled.catalogue
    stage = decisions.as_of[COLUMNS.index["stage"], i]
    return {
        "decision_id": decided.decision_id,
        "decision_time": _iso(decisions.now),
        "customer_id": decided.customer_id,
        "arm": decisions.arms[i],
        "layers": {layer: arm for layer, arm, _ in decisions.layers[i]},
        "stage": None if np.isnan(stage) else COLUMNS.vocabulary("stage")[int(stage)],
        "actions": [_action(decided, c, rank, locale, explain) for rank, c in enumerate(decisions.chosen[i], start=1)],
        "fallback": fallback_of(decisions, compiled, i, locale),
        "degraded": bool(decided.degraded_reasons),
        "degraded_reasons": list(decided.degraded_reasons),
        "versions": {"catalogue": terms.version, "model": "table", "features": "f"},
        "expires_at": _iso(decisions.now + terms.expires_seconds),
    }


def _action(decided: Decided, choice: Choice, rank: int, locale: str | None, explain: str) -> dict[str, Any]:
    decisions, i, compiled = decided.decisions, decided.customer, decided.serving.catalogue
    terms, c = compiled.catalogue, choice.candidate
    position = int(decisions.actions[c])
    action, treatment = terms.actions[position], terms.treatments[decisions.candidates[c]]
    spoken, content = in_locale(treatment.content, locale, terms.default_locale)
    evidence = float(decided.serving.scorer.evidence[position])
    found = factors(decisions, compiled, i, c)
    binding = [terms.rules[r] for r in compiled.plans[decisions.request.channel].rules[c] if r < len(terms.rules)]
    worth = f"{found['propensity']:.1%} likely"
    worth += f", worth {found['value']:.2f} {terms.currency}" if "value" in found else ""
    return {
        "rank": rank,
        "action_id": action.id,
        "treatment_id": treatment.id,
        "placement": choice.placement,
        "issue": action.issue,
        "group": action.group,
        "name": action.name,
        "locale": spoken,
        "content": dict(content),
        "priority": _number(decisions.priorities[i, c]),
        "propensity": _number(decisions.propensities[i, c]),
        "propensity_source": decided.serving.scorer.sources[position],
        "evidence": evidence + float(decisions.evidence.positives[position]),
        "uplift": _number(decisions.uplifts[i, c]) if decisions.uplifts.size else None,
        "value": action.value,
        "selection_probability": choice.selection_probability,
        "reasons": [*(rule.why for rule in binding if rule.why), worth] if explain != "none" else [],
    }


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("with_uplift", [False, True])
def test_thousands_of_answers_are_byte_for_byte_what_their_parts_say(with_uplift: bool) -> None:
    """Whatever channel, locale, arm and lack, the bytes of an answer are those of its parts written one by one."""
    met: Counter[str] = Counter()
    for seed in range(8):
        compiled, serving = world(("softmax", "thompson")[seed % 2], with_uplift=with_uplift)
        batch = random_batch(N, seed)
        ids = [decision_id_from(bytes([i] * 16), customer) for i, customer in enumerate(batch.customer_ids)]
        n_actions = len(compiled.catalogue.actions)
        evidence = Evidence(np.arange(n_actions) % 3 * 0.7, np.arange(n_actions) % 2 * 0.4) if seed % 3 else None
        lacks: tuple[tuple[str, ...], ...] = tuple(("features_partial",) if i % 5 == 0 else () for i in range(N))
        for k, request in enumerate(REQUESTS):
            locale, explain = LOCALES[(seed + k) % len(LOCALES)], ("chosen", "none")[(seed + k) % 2]
            for decided in decide_all(serving, Gathered(batch, lacks), request, NOW + seed + 0.25, ids, evidence):
                written = msgspec.json.encode(answer_of(decided, locale, explain))
                plain = read_plainly(decided, locale, explain)
                assert written == msgspec.json.encode(plain)
                assert json.loads(written) == as_data(answer_of(decided, locale, explain)) == plain
                met.update(action["locale"] for action in plain["actions"])
                met.update(action["propensity_source"] for action in plain["actions"])
                met.update(("fallback",) if plain["fallback"] else ())
                met.update("uplift" for action in plain["actions"] if action["uplift"] is not None)
    assert min(met[what] for what in ("en", "es", "model", "group", "prior", "fallback")) > 50
    assert (met["uplift"] > 50) == with_uplift


def test_the_answer_is_the_documented_one() -> None:
    """Fields stand in the order of the documented schema, and those of `explain: full` come with it alone."""
    _, serving = world("softmax", with_uplift=False)
    batch = random_batch(1, 3, missing=0.0, consent=1.0)
    ids = [decision_id_from(b"0" * 16, batch.customer_ids[0])]
    [decided] = decide_all(serving, Gathered(batch, ((),)), Request("app"), NOW, ids)
    full, chosen = as_data(answer_of(decided, None, "full")), as_data(answer_of(decided, None, "chosen"))
    documented = list(schemas.DecisionAnswer.model_fields)
    more = ("persona", "trace", "explanation")
    assert list(chosen) == [name for name in documented if name not in more]
    assert sorted(full) == sorted(documented)
    assert list(full)[-3:] == ["persona", "explanation", "trace"]
    assert list(chosen["actions"][0]) == list(schemas.ActionAnswer.model_fields)
    schemas.DecisionAnswer.model_validate(full)
