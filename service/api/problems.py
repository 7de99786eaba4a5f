"""Errors as RFC 9457 problems. They name the field and what to do, and never echo what was sent."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from fastapi import Response
from pydantic import ValidationError

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "The request could not be read",
    401: "A valid API key is needed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict with what was sent before",
    413: "The body is too large",
    415: "The body must be JSON",
    422: "A field is not valid",
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
    ) -> None:
        super().__init__(detail)
        self.status, self.slug, self.detail, self.errors, self.retry_after = status, slug, detail, errors, retry_after

    def response(self) -> Response:
        """Return the problem as a response."""
        body: dict[str, object] = {
            "type": f"urn:nba:problem:{self.slug}",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = [{"field": name, "message": message} for name, message in self.errors]
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after is not None else None
        return Response(msgspec.json.encode(body), self.status, headers, media_type=MEDIA_TYPE)


def invalid(error: ValidationError, prefix: str = "") -> ProblemError:
    """Turn pydantic's findings into a 422 (or a 400 where the body is no JSON) that names each field."""
    findings = error.errors(include_url=False, include_context=False, include_input=False)
    if findings and findings[0]["type"] == "json_invalid":
        return ProblemError(400, "not-json", "The body is not valid JSON; send one JSON object in UTF-8.")
    errors = [(prefix + (path(f["loc"]) or "(body)"), f["msg"]) for f in findings]
    return ProblemError(422, "invalid-field", f"{errors[0][0]}: {errors[0][1]}.", errors)


def path(location: Sequence[int | str]) -> str:
    """Write pydantic's location as `placements[0].name`; keys that the caller made up are not repeated."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier() and len(part) <= 40:
            text += f".{part}" if text else part
        else:
            text += ".(key)"
    return text
