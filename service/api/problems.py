"""Errors as RFC 9457 problems. They name the field and what to do, and never echo what was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from fastapi import Response
from pydantic import BaseModel, ValidationError

from service.api.schemas import FIELD_NAMES

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 20
TITLES = {
    400: "The request could not be read",
    401: "A valid API key is needed",
    403: "The API key may not do this",
    404: "Not found",
    405: "Method not allowed",
    408: "The request came too slowly",
    409: "Conflict with what was sent before",
    413: "The body is too large",
    415: "The body must be JSON",
    422: "A field is not valid",
    431: "The headers are too large",
    500: "Something went wrong here",
    503: "Not available now",
}


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        errors: Sequence[tuple[str, str]] = (),
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.slug, self.detail, self.errors = status, slug, detail, errors[:MOST_ERRORS]
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    def body(self) -> bytes:
        """Return the problem as JSON."""
        content: dict[str, object] = {
            "type": f"urn:nba:problem:{self.slug}",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            content["errors"] = [{"field": name, "message": message} for name, message in self.errors]
        return msgspec.json.encode(content)

    def response(self) -> Response:
        """Return the problem as a response."""
        return Response(self.body(), self.status, self.headers, media_type=MEDIA_TYPE)


def invalid_field(field: str, message: str) -> ProblemError:
    """Return the 422 of one field."""
    return ProblemError(422, "invalid-field", f"{field}: {message}.", [(field, message)])


def invalid(error: ValidationError, model: type[BaseModel], prefix: str = "") -> ProblemError:
    """Turn pydantic's findings into a 422 that names each field."""
    errors: dict[tuple[str, str], None] = {}
    for finding in error.errors(include_url=False, include_context=False, include_input=False):
        location, message = finding["loc"], finding["msg"].removeprefix("Value error, ")
        if finding["type"] == "extra_forbidden":
            message = "is not known here"
            if len(location) == 1:
                message += f" (known: {', '.join(model.model_fields)})"
        elif location and location[-1] in ("str", "float", "bool"):  # one finding for each type it might have been
            location, message = location[:-1], "must be a text, a number or a boolean"
        errors[prefix + (path(location) or "(body)"), message] = None
    (field, message), *_ = errors
    return ProblemError(422, "invalid-field", f"{field}: {message}.", tuple(errors))


def path(location: Sequence[int | str]) -> str:
    """Write pydantic's location as `placements[0].name`; a name that the caller made up becomes `(key)`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if part in FIELD_NAMES else "(key)"
            text += f".{name}" if text else name
    return text
