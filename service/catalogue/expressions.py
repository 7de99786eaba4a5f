"""SQL in a catalogue: which names it may read, and how a mistake in it is told with its place in the file."""

from __future__ import annotations

from collections.abc import Sequence

from features.matrix import Columns
from service.catalogue.document import Document, Place
from service.catalogue.problems import RuleError
from service.catalogue.symbols import Symbols
from service.decision.expression import CHANNEL, KNOWN, MOMENT_PARTS, PERSONA, Expression, age_column, part_column
from service.decision.model import ContextField, Persona


def symbols_of(columns: Columns, context: Sequence[ContextField], channels: tuple[str, ...]) -> Symbols:
    """Return every name that rules may read, save `persona`, with its vocabulary."""
    return {
        **{name: columns.vocabulary(name) for name in columns.names},
        **dict.fromkeys(columns.relatives, ()),
        **dict.fromkeys(map(part_column, MOMENT_PARTS), ()),
        **{age_column(view.name): () for view in columns.layout.views},
        **{field.name: field.vocabulary for field in context},
        CHANNEL: channels,
        KNOWN: (),
    }


def read_expression(document: Document, place: Place | None, symbols: Symbols) -> Expression | None:
    """Read one SQL boolean expression; None where there is none that can be used."""
    if place is None or not place.is_text:
        return None
    text = document.text(place)
    try:
        return document.read_rule(text, symbols)
    except RuleError as error:
        document.note(place, f"{error.message} (character {error.position + 1} of {text!r})", error.remedy)
        return None


def read_personas(
    document: Document, place: Place | None, symbols: Symbols, relatives: Sequence[str]
) -> tuple[Persona, ...]:
    """Read the section `personas`: name -> SQL, in order; the first that a customer fits is its persona."""
    personas = []
    absolute = {name: vocabulary for name, vocabulary in symbols.items() if name not in relatives}
    for name, inner in document.identified(place):
        text, expression = document.text(inner), read_expression(document, inner, absolute)
        if expression is not None:
            personas.append(Persona(name, text, expression))
    return tuple(personas)


def with_persona(symbols: Symbols, personas: Sequence[Persona]) -> Symbols:
    """Return the names that rules may read where there are personas."""
    return {**symbols, PERSONA: tuple(persona.name for persona in personas)} if personas else symbols
