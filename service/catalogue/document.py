"""A YAML document with positions, read strictly: each problem is noted with line, path and remedy, none stops the rest.

Knows YAML and plain types; what a catalogue is made of is `loader`'s.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from service.catalogue.problems import Problem, suggest
from service.catalogue.symbols import ReadRule, parse
from service.catalogue.yaml_nodes import TEXT_TAG, line_of

IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Place:
    """A node, the path to it, and the 1-based line at which a reader looks for it: that of its key."""

    node: yaml.Node
    path: str
    line: int

    @property
    def is_text(self) -> bool:
        """Whether the node is one plain or quoted text."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == TEXT_TAG


@dataclass
class Document:
    """Collects problems while parts of one file are read. A part that cannot be read yields its default.

    Attributes:
        read_rule: Reads the text of a rule.
        problems: What was found so far.
    """

    read_rule: ReadRule = parse
    problems: list[Problem] = field(default_factory=list)

    def note(self, place: Place, message: str, remedy: str) -> None:
        """Note a problem at a place."""
        self.problems.append(Problem(place.line, place.path or "document", message, remedy))

    def fields(self, place: Place, required: Sequence[str] = (), optional: Sequence[str] = ()) -> dict[str, Place]:
        """Read a mapping with known keys; an unknown, missing or repeated key is a problem."""
        found = dict(self.entries(place))
        known = (*required, *optional)
        for key in [key for key in found if key not in known]:
            self.note(found.pop(key), f"unknown key {key!r}", suggest(key, known, "allowed are " + ", ".join(known)))
        if isinstance(place.node, yaml.MappingNode):
            for key in [key for key in required if key not in found]:
                self.note(place, f"{key!r} is missing", f"add {key}: ...")
        return found

    def entries(self, place: Place | None) -> Iterator[tuple[str, Place]]:
        """Yield the key and place of every entry of a mapping; a repeated key is a problem."""
        if place is None:
            return
        if not isinstance(place.node, yaml.MappingNode):
            self.note(place, "expected a mapping", "write key: value lines, indented below it")
            return
        seen: dict[str, int] = {}
        for key_node, value_node in place.node.value:
            line = line_of(key_node)
            is_text = isinstance(key_node, yaml.ScalarNode) and key_node.tag == TEXT_TAG
            key = str(key_node.value) if is_text else "?"
            inner = Place(value_node, f"{place.path}.{key}" if place.path else key, line)
            if not is_text:
                self.note(inner, "a key is not a text", "put it in quotes")
            elif key in seen:
                self.note(inner, f"{key!r} is there twice, first in line {seen[key]}", "remove or rename one")
            else:
                seen[key] = line
                yield key, inner

    def identified(self, place: Place | None) -> Iterator[tuple[str, Place]]:
        """Yield the entries of a mapping whose keys are ids."""
        for key, inner in self.entries(place):
            if IDENTIFIER.fullmatch(key):
                yield key, inner
            else:
                self.note(inner, f"{key!r} is not an id", "use up to 64 letters, digits, _ and -")

    def items(self, place: Place | None) -> list[Place]:
        """Read a list."""
        if place is None:
            return []
        if not isinstance(place.node, yaml.SequenceNode):
            self.note(place, "expected a list", "write [a, b] or lines that begin with -")
            return []
        return [Place(node, f"{place.path}[{i}]", line_of(node)) for i, node in enumerate(place.node.value)]

    def text(self, place: Place | None, default: str = "", choices: Sequence[str] = ()) -> str:
        """Read a text, one of `choices` if there are any."""
        if place is None:
            return default
        node = place.node
        if not place.is_text:
            self.note(place, "expected a text", "write a text, in quotes where YAML takes it for something else")
            return default
        if getattr(node, "style", None) is None and node.value.count('"') % 2:
            self.note(place, f"a quotation mark in {node.value!r} has no partner", "put the whole text in quotes")
        if choices and node.value not in choices:
            remedy = suggest(node.value, choices, "choose one of " + ", ".join(choices))
            self.note(place, f"{node.value!r} is not known here", remedy)
            return default
        return str(node.value)

    def texts(self, place: Place | None, choices: Sequence[str] = ()) -> tuple[str, ...]:
        """Read a list of texts."""
        return tuple(text for item in self.items(place) if (text := self.text(item, "", choices)))

    def number(
        self, place: Place | None, default: float = 0.0, least: float = -math.inf, most: float = math.inf
    ) -> float:
        """Read a finite number within bounds."""
        if place is None:
            return default
        node = place.node
        is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
        try:
            value = float(node.value) if is_plain and node.tag != "tag:yaml.org,2002:bool" else math.nan
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            self.note(place, "expected a number", "write digits without quotes or units")
            return default
        if not least <= value <= most:
            bounds = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
            self.note(place, f"{value:g} is out of bounds", f"write a number {bounds}")
            return default
        return value

    def integer(self, place: Place | None, default: int = 0, least: int = 0) -> int:
        """Read a whole number."""
        value = self.number(place, default, least)
        if place is not None and value != int(value):
            self.note(place, f"{value:g} is not a whole number", "write a whole number")
            return default
        return int(value)

    def flag(self, place: Place | None, *, default: bool = False) -> bool:
        """Read true or false."""
        if place is None:
            return default
        if not isinstance(place.node, yaml.ScalarNode) or place.node.value not in ("true", "false"):
            self.note(place, "expected true or false", "write true or false, without quotes")
            return default
        return bool(place.node.value == "true")

    def dates(self, fields: Mapping[str, Place]) -> tuple[float, float]:
        """Read the keys `starts` and `ends` as Unix seconds; NaN for open."""
        starts_at, ends_at = self.moment(fields.get("starts")), self.moment(fields.get("ends"))
        if ends_at <= starts_at:
            self.note(fields["ends"], "it ends before it starts", "set ends after starts")
        return starts_at, ends_at

    def moment(self, place: Place | None) -> float:
        """Read a date or a moment in ISO 8601, UTC unless it says otherwise, as Unix seconds; NaN if absent."""
        if place is None:
            return math.nan
        try:
            moment = dt.datetime.fromisoformat(str(place.node.value))
        except ValueError:
            self.note(place, f"{str(place.node.value)!r} is not a date", "write 2018-03-31 or 2018-03-31T18:00:00Z")
            return math.nan
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
