"""The routes. Each reads its body under a limit, calls one use case and writes bytes."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import blake2b
from time import perf_counter
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, TypeAdapter, ValidationError

from service.answer import answer_of
from service.api import schemas
from service.api.metrics import Metrics
from service.api.problems import ProblemError, invalid
from service.bootstrap import Runtime
from service.catalogue.loader import to_jsonable
from service.customer import customer_view
from service.decision.model import Catalogue
from service.decision.model import Request as Asked
from service.online import Ask, Decided, IdempotencyConflict, NothingLoaded, Repeat, UnknownCustomer
from service.ports import Event, Outcome, Receipt, StoreUnavailable

SINGLE_LIMIT, LIST_LIMIT, LIST_ITEMS = 64 * 1024, 2 * 1024 * 1024, 1000
Model = TypeVar("Model", bound=BaseModel)
ITEM_ID = TypeAdapter(schemas.Id)
encode = msgspec.json.Encoder().encode


def authorised(request: Request) -> None:
    """Refuse a request without the API key where one is set."""
    key = request.app.state.settings.api_key
    if key is None:
        return
    sent = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
    if not hmac.compare_digest(sent, key.get_secret_value().encode()):
        raise ProblemError(401, "no-key", "Send the header Authorization: Bearer <API key>.")


router = APIRouter()
v1 = APIRouter(prefix="/v1", dependencies=[Depends(authorised)])


def body_schema(name: str, *, or_list: bool = False) -> dict[str, Any]:
    """Describe a body that the route reads itself."""
    one: dict[str, Any] = {"$ref": f"#/components/schemas/{name}"}
    schema = {"anyOf": [one, {"type": "array", "items": one, "maxItems": LIST_ITEMS}]} if or_list else one
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def problem_response(description: str) -> dict[str, Any]:
    """Describe a problem in the OpenAPI document."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: problem_response("The body is not JSON"),
    401: problem_response("No valid API key"),
    413: problem_response("The body is too large"),
    415: problem_response("The body is not declared as JSON"),
    422: problem_response("A field is not valid; it is named"),
    503: problem_response("Not available now; Retry-After says when"),
}
NOT_FOUND = problem_response("Not known")
CONFLICT = problem_response("The same id or key came before with other content")


async def read_body(request: Request, limit: int) -> bytes:
    """Read the body, at most `limit` bytes of it."""
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json":
        raise ProblemError(415, "not-json", "Send Content-Type: application/json.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise ProblemError(413, "too-large", f"The body is larger than {limit} bytes; send less at a time.")
    return bytes(body)


def parse(model: type[Model], body: bytes) -> Model:
    """Parse one object, or say which field is wrong."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None


def runtime_of(request: Request) -> Runtime:
    """Return the open runtime."""
    runtime: Runtime = request.app.state.runtime
    return runtime


def respond(content: object, status: int = 200) -> Response:
    """Write an answer once, as bytes."""
    return Response(content if isinstance(content, bytes) else encode(content), status, media_type="application/json")


@v1.post(
    "/decisions",
    response_model=schemas.DecisionAnswer,
    responses={**PROBLEMS, 404: NOT_FOUND, 409: CONFLICT},
    openapi_extra=body_schema("DecisionAsk"),
    summary="The next best actions for one customer, here, now",
)
async def decisions(request: Request) -> Response:
    """Decide, reserve contact caps, log, answer. An Idempotency-Key makes a retry safe."""
    started = perf_counter()
    body = await read_body(request, SINGLE_LIMIT)
    asked = parse(schemas.DecisionAsk, body)
    runtime = runtime_of(request)
    serving = runtime.reloader.serving
    if serving is None:
        raise not_loaded()
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= 128:
        raise ProblemError(422, "invalid-field", "Idempotency-Key: must have 1 to 128 characters.")
    ask = Ask(
        asked.customer_id,
        request_of(asked, serving.catalogue.catalogue),
        blake2b(body, digest_size=16).hexdigest(),
        key,
        asked.dry_run,
        asked.require_known,
    )
    try:
        decided, answer = await runtime.online.decide(
            ask, lambda decided: encode(answer_of(decided, asked.locale, asked.explain))
        )
    except NothingLoaded:
        raise not_loaded() from None
    except UnknownCustomer:
        raise ProblemError(404, "unknown-customer", "No fact is known of this customer_id.") from None
    except IdempotencyConflict:
        raise ProblemError(
            409, "idempotency", "This Idempotency-Key stood for another request; use a new one."
        ) from None
    metrics: Metrics = request.app.state.metrics
    if isinstance(decided, Decided):
        metrics.decided(decided)
    metrics.seconds.labels("decisions").observe(perf_counter() - started)
    response = respond(answer)
    if isinstance(decided, Repeat):
        response.headers["Idempotent-Replay"] = "true"
    return response


def not_loaded() -> ProblemError:
    """Say that nothing was ever loaded."""
    return ProblemError(
        503, "not-loaded", "No model bundle was made yet; run `nba prepare` and `nba agent`.", retry_after=5
    )


def request_of(asked: schemas.DecisionAsk, catalogue: Catalogue) -> Asked:
    """Check a question against the catalogue and put it in the core's terms."""
    problems: list[tuple[str, str]] = []
    if asked.channel not in catalogue.channels:
        problems.append(("channel", f"must be one of {', '.join(catalogue.channels)}"))
    slots = {p.id: p.slots for p in catalogue.placements if p.channel == asked.channel}
    placements = []
    for i, placement in enumerate(asked.placements):
        if placement.name not in slots:
            problems.append((f"placements[{i}].name", f"must be one of {', '.join(slots)} on this channel"))
        placements.append((placement.name, placement.count or slots.get(placement.name, 1)))
    if len({name for name, _ in placements}) != len(placements):
        problems.append(("placements", "names a placement twice"))
    fields = {field.name: field for field in catalogue.context}
    context: dict[str, float] = {}
    for name, value in asked.context.items():
        field = fields.get(name)
        if field is None:
            problems.append(
                ("context", f"has a field that the catalogue does not declare; it declares {', '.join(fields)}")
            )
        elif field.vocabulary:
            if value not in field.vocabulary:
                problems.append((f"context.{name}", f"must be one of {', '.join(field.vocabulary)}"))
            else:
                context[name] = float(field.vocabulary.index(str(value)))
        elif isinstance(value, str):
            problems.append((f"context.{name}", "must be a number or a boolean"))
        else:
            context[name] = float(value)
    if problems:
        raise ProblemError(422, "invalid-field", f"{problems[0][0]}: {problems[0][1]}.", problems)
    return Asked(asked.channel, tuple(placements), context, tuple(asked.issues), asked.limit)


@v1.post(
    "/outcomes",
    status_code=202,
    response_model=schemas.ReceiptOut | list[schemas.ReceiptOut],
    responses={**PROBLEMS, 409: CONFLICT},
    openapi_extra=body_schema("OutcomeIn", or_list=True),
    summary="What became of actions that were shown, one or up to 1,000",
)
async def outcomes(request: Request) -> Response:
    """Acknowledge only what is in the journal."""

    def understood(item: schemas.OutcomeIn) -> Outcome:
        at = item.occurred_at.timestamp() if item.occurred_at else float("nan")
        return Outcome(item.outcome_id, item.decision_id, item.action_id, item.type, item.value, at)

    return await take_in(request, "outcome", schemas.OutcomeIn, understood, runtime_of(request).feedback.take_outcomes)


@v1.post(
    "/events",
    status_code=202,
    response_model=schemas.ReceiptOut | list[schemas.ReceiptOut],
    responses={**PROBLEMS, 409: CONFLICT},
    openapi_extra=body_schema("EventIn", or_list=True),
    summary="What customers did, one or up to 1,000; consent is an event",
)
async def events(request: Request) -> Response:
    """Acknowledge only what is in the journal."""

    def understood(item: schemas.EventIn) -> Event:
        at = item.occurred_at.timestamp() if item.occurred_at else float("nan")
        return Event(item.event_id, item.customer_id, item.type, at, item.properties)

    return await take_in(request, "event", schemas.EventIn, understood, runtime_of(request).feedback.take_events)


async def take_in(
    request: Request,
    kind: str,
    model: type[Model],
    understood: Callable[[Model], Any],
    take: Callable[[list[Any]], Any],
) -> Response:
    """Take one item, or a list with a receipt for each: one bad item does not refuse the others."""
    body = await read_body(request, LIST_LIMIT)
    is_list = body.lstrip()[:1] == b"["
    if not is_list and len(body) > SINGLE_LIMIT:
        raise ProblemError(413, "too-large", f"One {kind} may have at most {SINGLE_LIMIT} bytes.")
    if is_list:
        try:
            raw = TypeAdapter(list[Any]).validate_json(body)
        except ValidationError as error:
            raise invalid(error) from None
        if not 1 <= len(raw) <= LIST_ITEMS:
            raise ProblemError(422, "invalid-field", f"(body): a list must have 1 to {LIST_ITEMS} items.")
    else:
        raw = [parse(model, body)]
    receipts: list[schemas.ReceiptOut | None] = [None] * len(raw)
    good: list[tuple[int, Any]] = []
    for i, item in enumerate(raw):
        try:
            good.append((i, understood(item if isinstance(item, model) else model.model_validate(item))))
        except ValidationError as error:
            receipts[i] = refused(item, f"{kind}_id", invalid(error, f"[{i}]."))
    try:
        answers: list[Receipt] = await take([item for _, item in good]) if good else []
    except StoreUnavailable:
        raise ProblemError(
            503, "journal", f"The {kind} could not be stored, so it is not acknowledged; send it again.", retry_after=1
        ) from None
    for (i, _), receipt in zip(good, answers, strict=True):
        receipts[i] = schemas.ReceiptOut(
            id=receipt.id,
            status=receipt.status,
            duplicate=receipt.status == "duplicate",
            detail=receipt.detail,
        )
    done = [r for r in receipts if r is not None]
    for receipt_out in done:
        request.app.state.metrics.receipts.labels(kind, receipt_out.status).inc()
    if is_list:
        return respond([r.model_dump(exclude_none=True) for r in done], 202)
    raise_if_refused(kind, done[0])
    return respond(done[0].model_dump(exclude_none=True), 202)


def refused(item: Any, id_name: str, problem: ProblemError) -> schemas.ReceiptOut:
    """Return the receipt of an item that was not understood, under its id where that was."""
    try:
        item_id = ITEM_ID.validate_python(item[id_name])
    except (KeyError, TypeError, ValidationError):
        item_id = ""
    return schemas.ReceiptOut(id=item_id, status="invalid", duplicate=False, detail=problem.detail)


def raise_if_refused(kind: str, receipt: schemas.ReceiptOut) -> None:
    """Turn the receipt of a single item that was not stored into a problem."""
    if receipt.status == "conflict":
        raise ProblemError(409, "conflict", f"This {kind}_id came before with other content; use a new id.")
    if receipt.status == "foreign_action":
        raise ProblemError(
            422, "invalid-field", "action_id: was not in the decision.", [("action_id", "was not in the decision")]
        )
    if receipt.status == "invalid":
        name, _, message = (receipt.detail or "").partition(": ")
        raise ProblemError(422, "invalid-field", receipt.detail or "", [(name, message)])


CustomerId = Annotated[str, Path(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]


@v1.get(
    "/customers/{customer_id}",
    responses={404: NOT_FOUND, 503: PROBLEMS[503]},
    summary="What is known of a customer",
)
async def customer(request: Request, customer_id: CustomerId) -> Response:
    """Return facts with their age, journey stage, consents and contacts."""
    runtime = runtime_of(request)
    if runtime.reloader.serving is None:
        raise not_loaded()
    try:
        view = await customer_view(runtime.state, runtime.reloader.serving, customer_id, runtime.clock.now())
    except StoreUnavailable:
        raise ProblemError(503, "store", "The store does not answer.", retry_after=1) from None
    if view is None:
        raise ProblemError(404, "unknown-customer", "Nothing is known of this customer_id.")
    return respond(view)


@v1.get("/catalogue", summary="The catalogue that serves now")
async def catalogue(request: Request) -> Response:
    """Return actions, treatments, rules, caps and the experiment."""
    serving = runtime_of(request).reloader.serving
    if serving is None:
        raise not_loaded()
    return respond(to_jsonable(serving.catalogue.catalogue))


@v1.put(
    "/switches/{scope}/{scope_id}",
    responses=PROBLEMS,
    openapi_extra=body_schema("SwitchIn"),
    summary="Pause or resume all, an issue, a group, an action or a channel; effective on the next decision",
)
async def switch(request: Request, scope: str, scope_id: str) -> Response:
    """Set a kill switch."""
    asked = parse(schemas.SwitchIn, await read_body(request, SINGLE_LIMIT))
    runtime = runtime_of(request)
    serving = runtime.reloader.serving
    if serving is None:
        raise not_loaded()
    known = switchable(serving.catalogue.catalogue)
    if scope not in known:
        raise ProblemError(
            422, "invalid-field", f"scope: must be one of {', '.join(known)}.", [("scope", "is not known")]
        )
    if scope_id not in known[scope]:
        raise ProblemError(422, "invalid-field", f"id: the catalogue has no such {scope}.", [("id", "is not known")])
    try:
        await runtime.state.set_switch(
            scope, scope_id, paused=asked.paused, who=asked.who, why=asked.why, now=runtime.clock.now()
        )
    except StoreUnavailable:
        raise ProblemError(503, "store", "The switch could not be stored; send it again.", retry_after=1) from None
    return respond({"scope": scope, "id": scope_id, "paused": asked.paused})


def switchable(catalogue: Catalogue) -> dict[str, set[str]]:
    """Return what can be switched: scope -> ids; scope `all` has the one id `all`."""
    return {
        "all": {"all"},
        "issue": {a.issue for a in catalogue.actions},
        "group": {a.group for a in catalogue.actions},
        "action": {a.id for a in catalogue.actions},
        "channel": set(catalogue.channels),
    }


@router.get("/livez", summary="Is the process alive")
async def livez() -> Response:
    """Answer without touching any dependency."""
    return respond({"status": "alive"})


@router.get("/readyz", responses={503: PROBLEMS[503]}, summary="Can decisions be answered, even degraded")
async def readyz(request: Request) -> Response:
    """Answer 200 once a catalogue and a bundle are loaded."""
    runtime = runtime_of(request)
    serving = runtime.reloader.serving
    if serving is None:
        raise not_loaded()
    return respond(
        {
            "status": "ready",
            "store": "up" if await runtime.state.ping() else "down",
            "model": serving.scorer.version,
            "catalogue": serving.catalogue.catalogue.version,
        }
    )


@router.get("/metrics", summary="Prometheus metrics")
async def metrics(request: Request) -> Response:
    """Return the exposition format."""
    return Response(request.app.state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


router.include_router(v1)
