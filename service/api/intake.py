"""`POST /v1/outcomes` and `/v1/events`: one item, or a list with a receipt for each. Acknowledges what is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, TypeAdapter, ValidationError

from service.api import schemas
from service.api.access import OutcomeRoute
from service.api.body import LIST_LIMIT, SINGLE_LIMIT, read_body, read_json
from service.api.document import BODY_PROBLEMS, LIST_ITEMS, body_schema, problems
from service.api.metrics import Metrics
from service.api.problems import ProblemError, invalid, invalid_field
from service.api.replies import metrics_of, respond, runtime_of, vitals_of
from service.ports import Event, Outcome, Receipt, StoreUnavailable

Model = TypeVar("Model", bound=BaseModel)
Item = TypeVar("Item", Outcome, Event)
ITEM_ID = TypeAdapter(schemas.Id)
router = APIRouter(route_class=OutcomeRoute)


@router.post(
    "/v1/outcomes",
    status_code=202,
    response_model=schemas.ReceiptOut | list[schemas.ReceiptOut],
    responses=problems(409, *BODY_PROBLEMS),
    openapi_extra=body_schema(schemas.OutcomeIn, or_list=True),
    summary="What became of actions that were shown, one or up to 1,000",
)
async def outcomes(request: Request) -> Response:
    """Acknowledge only what is in the journal."""
    take = runtime_of(request).feedback.take_outcomes
    return await take_in(request, "outcome", schemas.OutcomeIn, outcome_of, take)


@router.post(
    "/v1/events",
    status_code=202,
    response_model=schemas.ReceiptOut | list[schemas.ReceiptOut],
    responses=problems(409, *BODY_PROBLEMS),
    openapi_extra=body_schema(schemas.EventIn, or_list=True),
    summary="What customers did, one or up to 1,000; consent is an event",
)
async def events(request: Request) -> Response:
    """Acknowledge only what is in the journal."""
    return await take_in(request, "event", schemas.EventIn, event_of, runtime_of(request).feedback.take_events)


def outcome_of(item: schemas.OutcomeIn) -> Outcome:
    """Put an outcome in the service's terms; NaN for a moment that was not said."""
    at = item.occurred_at.timestamp() if item.occurred_at else float("nan")
    return Outcome(item.outcome_id, item.decision_id, item.action_id, item.type, item.value, at)


def event_of(item: schemas.EventIn) -> Event:
    """Put an event in the service's terms; NaN for a moment that was not said."""
    at = item.occurred_at.timestamp() if item.occurred_at else float("nan")
    return Event(item.event_id, item.customer_id, item.type, at, item.properties)


async def take_in(
    request: Request,
    kind: str,
    model: type[Model],
    understood: Callable[[Model], Item],
    take: Callable[[Sequence[Item]], Awaitable[list[Receipt]]],
) -> Response:
    """Take one item, or a list with a receipt for each: one bad item does not refuse the others."""
    said, is_list = items_of(kind, await read_body(request, LIST_LIMIT))
    receipts: list[dict[str, Any]] = [{}] * len(said)
    good: list[tuple[int, Item]] = []
    for i, item in enumerate(said):
        try:
            good.append((i, understood(model.model_validate(item))))
        except ValidationError as error:
            if not is_list:
                metrics_of(request).taken[kind].labels("invalid").inc()
                raise invalid(error, model) from None
            receipts[i] = refused(item, f"{kind}_id", invalid(error, model, f"[{i}]."))
    try:
        with vitals_of(request).step("append"):
            answers = await take([item for _, item in good]) if good else []
    except StoreUnavailable:
        metrics_of(request).taken[kind].labels("unavailable").inc(len(good))
        raise ProblemError(
            503, "journal", f"The {kind} could not be stored, so it is not acknowledged; send it again.", retry_after=1
        ) from None
    for (i, _), receipt in zip(good, answers, strict=True):
        receipts[i] = written(receipt, f"[{i}]." if is_list else "")
    count(metrics_of(request), kind, receipts)
    if is_list:
        return respond(receipts, 202)
    raise_if_refused(kind, receipts[0])
    return respond(receipts[0], 202)


def written(receipt: Receipt, prefix: str) -> dict[str, Any]:
    """Return a receipt as `schemas.ReceiptOut` describes it, without what is not said."""
    said: dict[str, Any] = {
        "id": receipt.id,
        "status": receipt.status,
        "duplicate": receipt.status == "duplicate",
    }
    if receipt.flags:
        said["flags"] = list(receipt.flags)
    if receipt.detail:
        said["detail"] = prefix + receipt.detail
    return said


def count(metrics: Metrics, kind: str, receipts: Sequence[dict[str, Any]]) -> None:
    """Count receipts by what became of each, once a list and not once an item."""
    for result, number in Counter(receipt["status"] for receipt in receipts).items():
        metrics.taken[kind].labels(result).inc(number)
    for flag, number in Counter(flag for receipt in receipts for flag in receipt.get("flags", ())).items():
        metrics.flagged.labels(kind, flag).inc(number)


def items_of(kind: str, body: bytes) -> tuple[list[Any], bool]:
    """Return the items of a body as they were sent, and whether it was a list."""
    is_list = body.lstrip(b" \t\r\n")[:1] == b"["
    if not is_list and len(body) > SINGLE_LIMIT:
        raise ProblemError(413, "too-large", f"One {kind} may have at most {SINGLE_LIMIT} bytes.")
    said = read_json(body)
    if not is_list:
        return [said], False
    if not 1 <= len(said) <= LIST_ITEMS:
        raise invalid_field("(body)", f"a list must have 1 to {LIST_ITEMS} items")
    return said, True


def refused(item: Any, id_name: str, problem: ProblemError) -> dict[str, Any]:
    """Return the receipt of an item that was not understood, under its id where that was."""
    try:
        item_id = ITEM_ID.validate_python(item[id_name])
    except (KeyError, TypeError, ValidationError):
        item_id = ""
    return written(Receipt(item_id, "invalid", problem.detail), "")


def raise_if_refused(kind: str, receipt: dict[str, Any]) -> None:
    """Turn the receipt of a single item that was not stored into a problem."""
    if receipt["status"] == "conflict":
        raise ProblemError(409, "conflict", f"This {kind}_id came before with other content; use a new id.")
    if receipt["status"] == "foreign_action":
        raise invalid_field("action_id", "was not in the decision")
    if receipt["status"] == "invalid":
        name, _, message = receipt.get("detail", "").partition(": ")
        raise invalid_field(name, message.removesuffix("."))
