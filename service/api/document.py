"""The OpenAPI document: bodies that routes read themselves, problems, keys. Describes; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api import schemas
from service.api.access import GuardedRoute
from service.api.problems import MEDIA_TYPE, TITLES

LIST_ITEMS = 1000
BODIES = (schemas.DecisionAsk, schemas.OutcomeIn, schemas.EventIn, schemas.SwitchIn, schemas.Problem)


def body_schema(model: type[BaseModel], *, or_list: bool = False) -> dict[str, Any]:
    """Describe a body that the route reads itself, with the example of its model."""
    one: dict[str, Any] = {"$ref": f"#/components/schemas/{model.__name__}"}
    example = model.model_json_schema()["examples"][0]
    schema, examples = one, {"one": {"value": example}}
    if or_list:
        schema = {"anyOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": LIST_ITEMS}]}
        examples["list"] = {"value": [example]}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}
    }


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problems of a route: those named and those that any request may meet."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": TITLES[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({400, 408, 431, *statuses})
    }


BODY_PROBLEMS = (413, 415, 422, 503)


def write_document(app: FastAPI, routers: Sequence[APIRouter], *, has_keys: bool) -> dict[str, Any]:
    """Return the document: what FastAPI writes, the bodies that routes read, and the keys where they are needed.

    Args:
        routers: All that were included in the application.
    """
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, definitions = models_json_schema(
        [(model, "validation") for model in BODIES], ref_template="#/components/schemas/{model}"
    )
    components = document.setdefault("components", {})
    schemas_of = components.setdefault("schemas", {})
    schemas_of.update(definitions["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):
        schemas_of.pop(name, None)
    if has_keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}}
        for router in routers:
            _ask_for_keys(router, document)
    return document


def _ask_for_keys(router: APIRouter, document: dict[str, Any]) -> None:
    for route in router.routes:
        if isinstance(route, GuardedRoute):
            for method in route.methods or ():
                operation = document["paths"][route.path_format][method.lower()]
                operation["security"] = [{"key": []}]
                operation["x-scope"] = route.scope_needed
                operation["responses"].update({str(code): text for code, text in problems(401, 403).items()})
