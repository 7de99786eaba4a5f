"""`POST /v1/decisions`: check the question against the catalogue, decide, write the answer."""

from __future__ import annotations

import re
from hashlib import blake2b
from time import perf_counter

from fastapi import APIRouter, Request, Response

from service.answer import answer_of
from service.api import schemas
from service.api.access import DecideRoute
from service.api.body import SINGLE_LIMIT, read_body, sent
from service.api.document import BODY_PROBLEMS, body_schema, problems
from service.api.observed import note_decision
from service.api.problems import ProblemError, invalid_field
from service.api.replies import encode, metrics_of, not_loaded, parse, respond, runtime_of, serving_of, vitals_of
from service.decision.model import Catalogue
from service.decision.model import Request as Asked
from service.explanation import explain_decision
from service.online import Ask, Decided, IdempotencyConflict, NothingLoaded, Repeat, UnknownCustomer

router = APIRouter(route_class=DecideRoute)
VISIBLE = re.compile(rb"[\x21-\x7e]{1,128}")
KEY_HEADER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes a retry safe: the same key with the same body gives the same decision again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[\\x21-\\x7e]+$"},
}


@router.post(
    "/v1/decisions",
    response_model=schemas.DecisionAnswer,
    responses=problems(404, 409, *BODY_PROBLEMS),
    openapi_extra={**body_schema(schemas.DecisionAsk), "parameters": [KEY_HEADER]},
    summary="The next best actions for one customer, here, now",
)
async def decisions(request: Request) -> Response:
    """Decide, reserve contact caps, log, answer. An Idempotency-Key makes a retry safe."""
    started = perf_counter()
    key = idempotency_key(request)
    body = await read_body(request, SINGLE_LIMIT)
    asked = parse(schemas.DecisionAsk, body)
    ask = Ask(
        asked.customer_id,
        request_of(asked, serving_of(request).catalogue.catalogue),
        blake2b(body, digest_size=16).hexdigest(),
        key,
        asked.dry_run,
        asked.require_known,
    )
    try:
        decided, answer = await runtime_of(request).online.decide(
            ask, lambda decided: encode(answer_of(decided, asked.locale, asked.explain))
        )
        if asked.explain == "full" and isinstance(decided, Decided):
            answer = await explained(request, decided, asked, started)
    except NothingLoaded:
        raise not_loaded() from None
    except UnknownCustomer:
        raise ProblemError(404, "unknown-customer", "No fact is known of this customer_id.") from None
    except IdempotencyConflict:
        raise ProblemError(
            409, "idempotency", "This Idempotency-Key stood for another request; use a new one."
        ) from None
    metrics = metrics_of(request)
    if isinstance(decided, Decided):
        metrics.decided(decided)
        vitals_of(request).decided(decided)
        note_decision(request, decided)
    metrics.decision_seconds.observe(perf_counter() - started)
    response = respond(answer)
    if isinstance(decided, Repeat):
        response.headers["Idempotent-Replay"] = "true"
    return response


async def explained(request: Request, decided: Decided, asked: schemas.DecisionAsk, started: float) -> bytes:
    """Return the answer with contributions, or with why there are none, within the deadline of an explanation."""
    runtime, model = runtime_of(request), decided.model
    left = runtime.settings.explain_deadline_ms / 1000 - (perf_counter() - started)
    answer = answer_of(decided, asked.locale, asked.explain)
    answer.explanation = await explain_decision(
        runtime.explainer,
        model.bundle.digest,
        decided.serving.catalogue,
        model.scorer,
        decided.batch,
        decided.decisions,
        decided.customer,
        left,
    )
    return encode(answer)


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key, or None where none was sent."""
    said = sent(request, b"idempotency-key")
    if not said:
        return None
    if len(said) > 1 or not VISIBLE.fullmatch(said[0]):
        raise invalid_field("Idempotency-Key", "must be sent once, with 1 to 128 visible ASCII characters")
    return said[0].decode()


def request_of(asked: schemas.DecisionAsk, catalogue: Catalogue) -> Asked:
    """Check a question against the catalogue and put it in the core's terms."""
    problems: list[tuple[str, str]] = []
    if asked.channel not in catalogue.channels:
        problems.append(("channel", f"must be one of {', '.join(catalogue.channels)}"))
    placements = placements_of(asked, catalogue, problems)
    context = context_of(asked, catalogue, problems)
    if problems:
        raise ProblemError(422, "invalid-field", f"{problems[0][0]}: {problems[0][1]}.", problems)
    return Asked(asked.channel, placements, context, tuple(asked.issues), asked.limit, asked.locale or "")


def placements_of(
    asked: schemas.DecisionAsk, catalogue: Catalogue, problems: list[tuple[str, str]]
) -> tuple[tuple[str, int], ...]:
    """Return the placements to fill with their slots."""
    if not asked.placements:
        return ()
    slots = {p.id: p.slots for p in catalogue.placements if p.channel == asked.channel}
    for i, placement in enumerate(asked.placements):
        if placement.name not in slots:
            problems.append((f"placements[{i}].name", f"must be one of {', '.join(slots)} on this channel"))
    if len({p.name for p in asked.placements}) != len(asked.placements):
        problems.append(("placements", "names a placement twice"))
    return tuple((p.name, p.count or slots.get(p.name, 1)) for p in asked.placements)


def context_of(asked: schemas.DecisionAsk, catalogue: Catalogue, problems: list[tuple[str, str]]) -> dict[str, float]:
    """Return the context as numbers: the position in its vocabulary for a text."""
    if not asked.context:
        return {}
    fields = {field.name: field for field in catalogue.context}
    context: dict[str, float] = {}
    for name, value in asked.context.items():
        field = fields.get(name)
        if field is None:
            problems.append(
                ("context", f"has a field that the catalogue does not declare; it declares {', '.join(fields)}")
            )
        elif field.vocabulary:
            if value in field.vocabulary:
                context[name] = float(field.vocabulary.index(str(value)))
            else:
                problems.append((f"context.{name}", f"must be one of {', '.join(field.vocabulary)}"))
        elif isinstance(value, str):
            problems.append((f"context.{name}", "must be a number or a boolean"))
        else:
            context[name] = float(value)
    return context
