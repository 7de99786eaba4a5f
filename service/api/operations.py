"""What people and machines that run the service ask: health, metrics, the catalogue, a customer, the switches."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from service.answer import iso
from service.api import schemas
from service.api.access import AdminRoute, ReadRoute
from service.api.body import SINGLE_LIMIT, read_body
from service.api.document import BODY_PROBLEMS, body_schema, problems
from service.api.problems import ProblemError, invalid_field
from service.api.replies import metrics_of, parse, respond, runtime_of, serving_of, vitals_of
from service.api.status import status_of
from service.bootstrap import Runtime
from service.catalogue.loader import to_jsonable
from service.customer import customer_view
from service.decision.record import DecisionRow
from service.decision.replay import batch_of
from service.decision.switches import SCOPES, switchable
from service.explanation import explain_decision, unavailable
from service.past import Past, look_back, past_view
from service.ports import StoreUnavailable

health, views, switches = APIRouter(), APIRouter(route_class=ReadRoute), APIRouter(route_class=AdminRoute)
PathId = Annotated[str, Path(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
Scope = Literal["all", "channel", "placement", "issue", "group", "action", "treatment"]
if Scope.__args__ != SCOPES:  # type: ignore[attr-defined]
    raise ImportError("operations.Scope and switches.SCOPES name different scopes")
EXPLAIN_SECONDS = 15.0
"""How long a past decision's explanation may take: nobody waits for it at a till."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@health.get("/livez", responses=problems(), summary="Is the process alive")
async def livez() -> Response:
    """Answer without touching any dependency."""
    return respond({"status": "alive"})


@health.get("/readyz", responses=problems(503), summary="Can decisions be answered, even degraded")
async def readyz(request: Request) -> Response:
    """Answer 200 once a catalogue and a bundle are loaded, and until this process is about to end."""
    draining = request.app.state.draining
    if draining.is_on and not draining.is_replaced:
        raise ProblemError(503, "draining", "This process is about to end; ask another one.", retry_after=1)
    serving = serving_of(request)
    return respond(
        {
            "status": "ready",
            "store": "up" if await runtime_of(request).state.ping() else "down",
            "model": serving.scorer.version,
            "challenger": serving.challenger.scorer.version if serving.challenger is not None else None,
            "catalogue": serving.catalogue.catalogue.version,
        }
    )


@views.get("/statusz", responses=problems(), summary="How each part is doing")
async def statusz(request: Request) -> Response:
    """Return each dependency's breaker, what serves since when, the journal's backlog, what is paused."""
    runtime = runtime_of(request)
    return respond(await status_of(runtime, vitals_of(request), is_draining=request.app.state.draining.is_on))


@views.get(
    "/metrics",
    responses={**problems(), 200: {"content": {METRICS_TYPE: {"schema": {"type": "string"}}}}},
    response_class=Response,
    summary="Prometheus metrics",
)
async def metrics(request: Request) -> Response:
    """Return the exposition format."""
    return Response(await metrics_of(request).text(), media_type=METRICS_TYPE)


@views.get("/v1/customers/{customer_id}", responses=problems(404, 422, 503), summary="What is known of a customer")
async def customer(request: Request, customer_id: PathId) -> Response:
    """Return facts with their age, journey stage, consents and contacts."""
    runtime, serving = runtime_of(request), serving_of(request)
    try:
        view = await customer_view(runtime.state, serving, customer_id, runtime.clock.now())
    except StoreUnavailable:
        raise ProblemError(503, "store", "The store does not answer.", retry_after=1) from None
    if view is None:
        raise ProblemError(404, "unknown-customer", "Nothing is known of this customer_id.")
    return respond(view)


@views.get(
    "/v1/decisions/{decision_id}", responses=problems(404, 422, 503), summary="A decision that was made, and why"
)
async def decision(
    request: Request, decision_id: PathId, explain: Annotated[Literal["chosen", "full"], Query()] = "chosen"
) -> Response:
    """Return what was shown and why everything else was not, as it was logged, and whether it is the same made anew.

    `explain=full` adds what each fact contributed to the propensities of the chosen.
    """
    runtime = runtime_of(request)
    try:
        row = await runtime.decisions.find(decision_id) if runtime.decisions is not None else None
    except StoreUnavailable:
        raise ProblemError(503, "store", "The store does not answer.", retry_after=1) from None
    if row is None:
        raise ProblemError(404, "unknown-decision", "No decision of this id is in the log.")
    past = await asyncio.to_thread(_look_back, runtime, row)
    view = past_view(past)
    if explain == "full":
        view["explanation"] = await _explained(runtime, past)
    return respond(view)


async def _explained(runtime: Runtime, past: Past) -> dict[str, Any]:
    if past.catalogue is None or past.decisions is None or past.scorer is None:
        return unavailable(past.why)
    batch = batch_of(past.row, past.catalogue.columns.layout)
    return await explain_decision(
        runtime.explainer,
        past.row.bundle_digest,
        past.catalogue,
        past.scorer,
        batch,
        past.decisions,
        0,
        EXPLAIN_SECONDS,
    )


def _look_back(runtime: Runtime, row: DecisionRow) -> Past:
    """Find what made a decision and make it anew. Blocking."""
    versions = runtime.past
    catalogue = versions.catalogue_of(row.catalogue_version) if versions is not None else None
    scorer = versions.scorer_of(row.bundle_digest, catalogue) if versions is not None and catalogue else None
    return look_back(row, catalogue, scorer)


@views.get("/v1/catalogue", responses=problems(503), summary="The catalogue that serves now")
async def catalogue(request: Request) -> Response:
    """Return actions, treatments, rules, caps and the experiment."""
    return respond(to_jsonable(serving_of(request).catalogue.catalogue))


@views.get("/v1/switches", responses=problems(503), summary="What is paused, by whom and why")
async def list_switches(request: Request) -> Response:
    """Return the switches in force."""
    try:
        paused = await runtime_of(request).state.switches()
    except StoreUnavailable:
        raise ProblemError(503, "store", "The store does not answer.", retry_after=1) from None
    return respond([{**one, "at": iso(one["at"])} for one in paused])


@switches.put(
    "/v1/switches/{scope}/{scope_id}",
    responses=problems(404, *BODY_PROBLEMS),
    openapi_extra=body_schema(schemas.SwitchIn),
    summary="Pause or resume all, a channel, placement, issue, group, action or treatment, from the next decision on",
)
async def switch(request: Request, scope: Scope, scope_id: PathId) -> Response:
    """Set a kill switch."""
    asked = parse(schemas.SwitchIn, await read_body(request, SINGLE_LIMIT))
    runtime = runtime_of(request)
    is_known = scope_id in switchable(serving_of(request).catalogue.catalogue)[scope]
    try:
        if not is_known and not await is_paused_now(runtime, scope, scope_id):
            raise invalid_field("scope_id", f"the catalogue has no such {scope}")
        await runtime.state.set_switch(
            scope, scope_id, paused=asked.paused, who=asked.who, why=asked.why, now=runtime.clock.now()
        )
    except StoreUnavailable:
        raise ProblemError(503, "store", "The switch could not be stored; send it again.", retry_after=1) from None
    return respond({"scope": scope, "id": scope_id, "paused": asked.paused})


async def is_paused_now(runtime: Runtime, scope: str, scope_id: str) -> bool:
    """Say whether a pause is in force, so that it can be ended after its action has left the catalogue."""
    return any((one["scope"], one["id"]) == (scope, scope_id) for one in await runtime.state.switches())
