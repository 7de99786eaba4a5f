"""The OpenAPI document is true: whatever is generated from it is answered as it says, and never with a 5xx."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, seed, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from service.api.app import create_app
from service.api.document import BODIES
from service.api.keys import SCOPES, new_key
from service.api.schemas import Problem
from service.settings import Settings
from tests.service.api.serving import Running

CASES_SHORT, CASES_OF_BODIES, CASES_OF_OTHERS, CASES_IN_ALL = 60, 1_000, 1_900, 20_000
"""For each operation, and over all of them in the long run; an operation that takes nothing has but a few. A posted
body takes several times as long to make as any other request."""
_asked: Counter[str] = Counter()


def generated(cases: int) -> settings:
    return settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


def written() -> dict[str, Any]:
    """Return the document of an application with keys, as plain JSON."""
    _, entry = new_key("document", SCOPES)
    app = create_app(Settings(api_keys=f"[{entry}]", api_key=None, docs=None))
    document: dict[str, Any] = json.loads(json.dumps(app.openapi()))
    return document


DOCUMENT = written()
schema = schemathesis.openapi.from_dict(DOCUMENT)
posted, others = schema.include(method="POST"), schema.exclude(method="POST")


def answers_as_described(case: schemathesis.Case, guarded: Running) -> None:
    """Call with a valid key and check the answer against the document.

    A text that the schema allows may still be no channel of the catalogue, so that valid data may be refused; and in a
    list a bad item has a receipt of its own, so that the list as a whole is accepted.
    """
    excluded: list[Any] = [positive_data_acceptance]
    if isinstance(case.body, list):
        excluded.append(negative_data_rejection)
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{guarded.port}",
        headers={"Authorization": f"Bearer {guarded.keys['all']}"},
        excluded_checks=excluded,
    )


def test_the_document_is_served(guarded: Running) -> None:
    """What these tests read is what the service hands out."""
    assert guarded.call("GET", "/openapi.json", key=None).json == DOCUMENT


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, said) for path, methods in DOCUMENT["paths"].items() for method, said in methods.items()]


def test_the_document_is_valid() -> None:
    """It is an OpenAPI 3.1 document."""
    assert DOCUMENT["openapi"].startswith("3.1.")
    schema.validate()


def test_every_body_has_an_example() -> None:
    """Each body of the document comes with an example that its model takes."""
    models = {model.__name__: model for model in BODIES}
    found = 0
    for _, _, said in operations():
        for content in said.get("requestBody", {}).get("content", {}).values():
            name = (content["schema"].get("$ref") or content["schema"]["anyOf"][0]["$ref"]).rpartition("/")[2]
            models[name].model_validate(content["examples"]["one"]["value"])
            found += 1
    assert found == 4
    Problem.model_validate(DOCUMENT["components"]["schemas"]["Problem"]["examples"][0])


def test_every_problem_is_declared() -> None:
    """Each operation declares the problems that it may end with, all of one form, and no reference leads nowhere."""
    for path, _, said in operations():
        declared = {int(status) for status in said["responses"]}
        assert {400, 408, 431} <= declared
        assert {401, 403} <= declared or path in ("/livez", "/readyz")
        assert {413, 415, 422, 503} <= declared or "requestBody" not in said
        for status, response in said["responses"].items():
            if int(status) >= 400:
                assert response["content"] == {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                }
    for reference in set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DOCUMENT))):
        assert reference in DOCUMENT["components"]["schemas"]


@seed(1)
@schema.parametrize()
@generated(CASES_SHORT)
def test_cases_from_the_document(case: schemathesis.Case, guarded: Running) -> None:
    """Good and bad requests made from the document are answered as it says."""
    answers_as_described(case, guarded)


@pytest.mark.prove
@seed(2)
@posted.parametrize()
@generated(CASES_OF_BODIES)
def test_many_bodies_from_the_document(case: schemathesis.Case, guarded: Running) -> None:
    """The same for many more bodies."""
    _asked[f"{case.method} {case.operation.path}"] += 1
    answers_as_described(case, guarded)


@pytest.mark.prove
@seed(3)
@others.parametrize()
@generated(CASES_OF_OTHERS)
def test_many_requests_from_the_document(case: schemathesis.Case, guarded: Running) -> None:
    """The same for many more requests of every other operation."""
    _asked[f"{case.method} {case.operation.path}"] += 1
    answers_as_described(case, guarded)


@pytest.mark.prove
def test_how_many_cases_that_were(capsys: pytest.CaptureFixture[str]) -> None:
    """The long run asks at least twenty thousand times; how often each operation was asked is printed."""
    if not _asked:
        pytest.skip("counts the cases of the long run, which was not part of this one")
    with capsys.disabled():
        print(f"\n{sum(_asked.values())} cases from the document: {dict(_asked)}")
    assert sum(_asked.values()) >= CASES_IN_ALL
