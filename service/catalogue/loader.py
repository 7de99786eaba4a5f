"""A catalogue file -> `decision.model.Catalogue`: reads, checks and reports all problems at once, or returns it whole.

Defaults stand at the issue, so that an action says only what is its own. Everything with an id is put into the order of
ids (rules: stage, then id): the order of the file means nothing, save for placements and locales.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from yaml import MappingNode

from features.matrix import Columns
from service.catalogue import contact_policies
from service.catalogue.actions import ActionReader
from service.catalogue.canonical import to_jsonable, version_of
from service.catalogue.document import Document, Place
from service.catalogue.expressions import read_personas, symbols_of, with_persona
from service.catalogue.policies import PolicyReader
from service.catalogue.problems import CatalogueError, Problem, suggest
from service.catalogue.selection import read_experiment, read_exploration, read_quotas
from service.catalogue.symbols import DECISION_TIME, ReadRule, parse
from service.catalogue.yaml_nodes import line_of, nodes_of, read_text
from service.catalogue.zones import known_zones, zone_of
from service.decision.consent import ALL, MARKETING
from service.decision.expression import CHANNEL, KNOWN, PERSONA
from service.decision.local_time import Zone
from service.decision.model import Action, Catalogue, ContextField, Placement

__all__ = ["CatalogueError", "Problem", "load_catalogue", "to_jsonable"]

REQUIRED = ("currency", "locales", "channels", "issues", "actions", "experiment", "exploration")
OPTIONAL = (
    "expires_minutes", "least_priority", "fallback", "context", "groups", "quotas", "personas", "rules", "purposes",
    "time_zone", *contact_policies.SECTIONS,
)  # fmt: skip


def load_catalogue(path: Path | str, columns: Columns | None = None) -> Catalogue:
    """Load a catalogue.

    Args:
        path: The YAML file.
        columns: The matrix columns that rules may read; those of the feature contract if None.

    Returns:
        The catalogue, with its version.

    Raises:
        CatalogueError: With every problem found: line, path, message, remedy.
    """
    return catalogue_of(read_text(Path(path)), str(path), columns)


def catalogue_of(text: str, name: str, columns: Columns | None = None, read_rule: ReadRule = parse) -> Catalogue:
    """Make a catalogue of a text, as `load_catalogue` does of a file, whose `name` goes into messages."""
    document, root = Document(read_rule), nodes_of(text, name)
    catalogue = _catalogue(document, Place(root, "", line_of(root)), columns or Columns())
    if not text.endswith("\n"):
        last = Place(root, "document", text.count("\n") + 1)
        document.note(last, "the last line has no end: the file may be half-written", "end it with a line break")
    if document.problems:
        raise CatalogueError(name, document.problems)
    return replace(catalogue, version=version_of(catalogue))


def _catalogue(document: Document, root: Place, columns: Columns) -> Catalogue:
    """Read the sections in an order in which each finds the names that it refers to."""
    top = document.fields(root, REQUIRED, OPTIONAL)
    locales = document.texts(top.get("locales")) or ("en",)
    channels, placements = _channels(document, top.get("channels"))
    context = _context(document, top.get("context"), columns)
    groups = _groups(document, top.get("groups"))
    purposes = _purposes(document, top.get("purposes"))
    stages = columns.vocabulary("stage")
    offers = ActionReader(document, columns.layout, channels, placements, locales, groups, purposes, stages)
    issues = offers.issues(top.get("issues"))
    actions, treatments = offers.actions(top.get("actions"), issues)
    symbols = symbols_of(columns, context, channels)
    personas = read_personas(document, top.get("personas"), symbols, columns.relatives)
    symbols = with_persona(symbols, personas)
    policies = PolicyReader(document, symbols, frozenset(columns.relatives), placements, actions, treatments)
    contacts = contact_policies.ContactPolicyReader(document, channels, placements, actions, treatments)
    caps = contacts.caps(top.get("caps"), top.get("cool_offs"))
    return Catalogue(
        version="",
        currency=document.text(top.get("currency"), "USD"),
        actions=actions,
        treatments=treatments,
        placements=placements,
        rules=policies.rules(top.get("rules")),
        caps=caps,
        experiment=read_experiment(document, top.get("experiment")),
        exploration=read_exploration(document, top.get("exploration"), channels),
        context=context,
        arbitration={name: issue.factors for name, issue in issues.items()},
        context_weights={
            (channel, name): weight
            for name, issue in issues.items()
            for channel, weight in issue.context_weights.items()
        },
        thresholds={name: issue.threshold for name, issue in issues.items()},
        default_locale=locales[0],
        expires_seconds=60 * document.number(top.get("expires_minutes"), 30.0, 0),
        channels=channels,
        least_priority=document.number(top.get("least_priority"), -math.inf),
        fallback=_fallback(document, top.get("fallback"), actions),
        quiet_hours=contacts.quiet_hours(top.get("quiet_hours"), caps),
        reservations=contacts.reservations(top.get("reservation_minutes")),
        personas=personas,
        zone=_zone(document, top.get("time_zone")),
        estimates={name: issue.estimate for name, issue in issues.items()},
        stage_weights={
            (name, stage): weight for name, issue in issues.items() for stage, weight in issue.stage_weights.items()
        },
        quotas=read_quotas(document, top.get("quotas"), placements, actions),
    )


def _channels(document: Document, place: Place | None) -> tuple[tuple[str, ...], tuple[Placement, ...]]:
    channels: list[str] = []
    placements: dict[str, Placement] = {}
    for channel, inner in document.identified(place):
        channels.append(channel)
        if channel == ALL:
            document.note(inner, f"{ALL!r} stands for every channel in a customer's consent", "name it otherwise")
        for name, slots in document.identified(inner):
            if name in placements:
                document.note(slots, f"the placement {name!r} is also in {placements[name].channel}", "rename one")
            placements[name] = Placement(name, channel, document.integer(slots, 1, least=1))
    return tuple(channels), tuple(placements.values())


def _purposes(document: Document, place: Place | None) -> tuple[str, ...]:
    purposes = document.texts(place) or (MARKETING,)
    if place is not None and ALL in purposes:
        document.note(place, f"{ALL!r} stands for every purpose in a customer's refusal", "name it otherwise")
    return purposes


def _context(document: Document, place: Place | None, columns: Columns) -> tuple[ContextField, ...]:
    fields = []
    for name, inner in document.identified(place):
        if name in columns.index or name in columns.relatives or name in (CHANNEL, KNOWN, PERSONA, DECISION_TIME):
            document.note(inner, f"{name!r} is also the name of a column", "rename the context field")
        if inner.is_text:
            document.text(inner, "", ("number",))
        fields.append(ContextField(name, () if inner.is_text else document.texts(inner)))
    return tuple(fields)


def _groups(document: Document, place: Place | None) -> dict[str, tuple[float, float]]:
    """Read groups as a list, or as a mapping to their dates of validity, which bind their actions."""
    if place is not None and isinstance(place.node, MappingNode):
        return {
            group: document.dates(document.fields(inner, optional=("starts", "ends")))
            for group, inner in document.identified(place)
        }
    return dict.fromkeys(document.texts(place), (math.nan, math.nan))


def _zone(document: Document, place: Place | None) -> Zone:
    name = document.text(place, "UTC")
    try:
        return zone_of(name)
    except KeyError:
        remedy = suggest(name, known_zones(), "name one of the IANA database, such as Europe/Lisbon")
        if place is not None:
            document.note(place, f"there is no time zone {name!r}", remedy)
        return Zone()


def _fallback(document: Document, place: Place | None, actions: Sequence[Action]) -> str:
    fallback = document.text(place, "", [action.id for action in actions])
    if place is not None and any(action.id == fallback and action.is_marketing for action in actions):
        document.note(place, f"{fallback!r} is marketing and needs consent", "name an action with marketing: false")
    return fallback
