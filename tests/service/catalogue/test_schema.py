"""The JSON Schema of the catalogue: what the loader takes it takes, and what it can see of a mistake it sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from service.catalogue.document import Document, Place
from service.catalogue.loader import load_catalogue
from service.catalogue.schema import catalogue_schema

SHIPPED = Path(__file__).parents[3] / "service" / "catalogue.yaml"
SMALL = Path(__file__).parents[1] / "decision" / "small.yaml"
BROKEN = yaml.safe_load((Path(__file__).parent / "broken.yaml").read_text(encoding="utf-8"))
SEEN = ("unknown key", "unknown arm", "unknown journey stage", "expected a", "out of bounds", "not a whole number",
    "unknown issue", "not a time of day", "is not an id")  # fmt: skip
CLOSED = ("member", "scoring", "stage", "counted", "unit", "calendar", "strategy", "after", "positive", "propensity")
"""Keys whose values are of a closed list, whatever else is in the file."""


def is_seen(path: str, message: str) -> bool:
    """Say whether a schema can see a mistake: one of a single value, and not of what values say of each other."""
    if path.startswith("reservation_minutes."):  # its keys are the file's own channels
        return False
    return message.startswith(SEEN) or any(part in message for part in SEEN[4:]) or path.rpartition(".")[2] in CLOSED


def plain(text: str) -> Any:
    """Read YAML as an editor does: dates are texts, as the loader takes them."""
    loader = type("Texts", (yaml.SafeLoader,), {"yaml_implicit_resolvers": {
        first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }})  # fmt: skip
    return yaml.load(text, Loader=loader)


@pytest.fixture(scope="module")
def validator() -> jsonschema_rs.Draft202012Validator:
    schema = catalogue_schema()
    jsonschema_rs.meta.validate(schema)
    return jsonschema_rs.Draft202012Validator(schema)


@pytest.mark.parametrize("path", [SHIPPED, SMALL], ids=["shipped", "small"])
def test_good_catalogues_are_valid(validator: jsonschema_rs.Draft202012Validator, path: Path) -> None:
    """What the loader takes is valid."""
    assert [error.message for error in validator.iter_errors(plain(path.read_text(encoding="utf-8")))] == []


@pytest.mark.parametrize(("old", "new", "path", "message", "remedy"), BROKEN, ids=[b[1].strip()[:50] for b in BROKEN])
def test_broken_catalogues_are_not(
    validator: jsonschema_rs.Draft202012Validator, old: str, new: str, path: str, message: str, remedy: str
) -> None:
    """Each mistake that a schema can see is one by it, at or above its place."""
    text = SHIPPED.read_text(encoding="utf-8").replace(old, new, 1)
    if not is_seen(path, message):
        return
    errors = list(validator.iter_errors(plain(text)))
    assert errors, message
    places = [".".join(str(part) for part in error.instance_path) for error in errors]
    assert any(path.replace("[", ".").replace("]", "").startswith(place) for place in places), (path, places)


class Recorder(Document):
    """Notes which keys the readers take at which place."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[str, set[str]] = {}

    def fields(self, place: Place, required: Sequence[str] = (), optional: Sequence[str] = ()) -> dict[str, Place]:
        """Note the keys."""
        self.taken.setdefault(place.path, set()).update((*required, *optional))
        return super().fields(place, required, optional)


def known_keys(schema: Mapping[str, Any], path: Sequence[str]) -> Iterator[set[str]]:
    """Yield the keys that the schema knows at a path."""
    if "anyOf" in schema:
        for kind in schema["anyOf"]:
            yield from known_keys(kind, path)
    elif not path:
        if "properties" in schema:
            yield set(schema["properties"])
    elif path[0] in schema.get("properties", {}):
        yield from known_keys(schema["properties"][path[0]], path[1:])
    elif isinstance(schema.get("additionalProperties"), Mapping):
        yield from known_keys(schema["additionalProperties"], path[1:])


@pytest.mark.parametrize("path", [SHIPPED, SMALL], ids=["shipped", "small"])
def test_every_key_that_a_reader_takes_is_in_the_schema(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of the schema are those of the readers, at every place that a catalogue uses."""
    recorder = Recorder()
    monkeypatch.setattr("service.catalogue.loader.Document", lambda read_rule: recorder)
    load_catalogue(path)
    schema = catalogue_schema()
    assert len(recorder.taken) > 10
    for place, taken in recorder.taken.items():
        if place.rpartition(".")[2] in ("scope", "name", "reservation_minutes"):  # keys are names of the file
            continue
        [known] = list(known_keys(schema, place.split(".") if place else []))
        assert known == taken, place
