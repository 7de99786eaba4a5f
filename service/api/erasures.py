"""`DELETE /v1/customers/{id}` and what became of it: asks, and reads receipts; the worker does the work."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from service.api.access import EraseRoute
from service.api.document import problems
from service.api.operations import PathId
from service.api.problems import ProblemError
from service.api.replies import respond, runtime_of
from service.ports import StoreUnavailable


class ErasureOut(BaseModel):
    """An erasure that was asked for, and once it is done the signed receipt of what was removed."""

    receipt_id: str
    status: Literal["pending", "done"]
    customer: str | None = Field(None, description="Keyed hash of the customer.")
    asked_at: str | None = None
    asked_by: str | None = None
    done_at: str | None = None
    removed: dict[str, int] | None = Field(None, description="How much was removed, by place.")
    signature: str | None = Field(
        None, description="Keyed BLAKE2b of everything else, under this installation's secret."
    )


ReceiptId = Annotated[str, Path(pattern=r"^[0-9]{2}-[0-9a-f]{32}$")]
router = APIRouter(route_class=EraseRoute)


@router.delete(
    "/v1/customers/{customer_id}",
    status_code=202,
    response_model=ErasureOut,
    responses=problems(422, 503),
    summary="Forget a customer: nothing of theirs is taken from now on, the worker removes what is there",
)
async def forget(request: Request, customer_id: PathId) -> Response:
    """Answer with the receipt to ask for; a customer who is being removed keeps the receipt that there is."""
    runtime = runtime_of(request)
    try:
        if runtime.erasures is None:
            raise StoreUnavailable("state_unavailable")
        receipt_id = await runtime.erasures.ask(customer_id, "api", runtime.clock.now())
    except StoreUnavailable:
        raise ProblemError(503, "store", "The erasure could not be stored; send it again.", retry_after=1) from None
    return respond({"receipt_id": receipt_id, "status": "pending"}, 202)


@router.get(
    "/v1/erasures/{receipt_id}",
    response_model=ErasureOut,
    responses=problems(404, 422, 503),
    summary="What was removed of a customer, and where",
)
async def erasure(request: Request, receipt_id: ReceiptId) -> Response:
    """Return the receipt; signed once the erasure is done."""
    runtime = runtime_of(request)
    try:
        found = await runtime.erasures.find(receipt_id) if runtime.erasures is not None else None
    except StoreUnavailable:
        raise ProblemError(503, "store", "The store does not answer.", retry_after=1) from None
    if found is None:
        raise ProblemError(404, "unknown-erasure", "No erasure has this receipt id.")
    return respond(found)
