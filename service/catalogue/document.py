"""A YAML document with positions, read strictly: every problem is noted with line, path and remedy, none stops the rest.

Knows YAML and plain types; what a catalogue is made of is `loader`'s.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import yaml

from service.catalogue.rules import suggest

MAX_CHARACTERS = 4_000_000


class Problem(NamedTuple):
    """One thing wrong in a document: 1-based line, path such as `actions.x.value`, message and remedy."""

    line: int
    path: str
    message: str
    remedy: str


class CatalogueError(ValueError):
    """A catalogue cannot be used.

    Attributes:
        file: The file as it was named.
        problems: Everything that is wrong, in order of line.
    """

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file, self.problems = file, tuple(sorted(problems))
        super().__init__("\n".join(f"{file}:{p.line}: {p.path}: {p.message}; {p.remedy}" for p in self.problems))


@dataclass(frozen=True, slots=True)
class Place:
    """A node and the path to it."""

    node: yaml.Node
    path: str

    @property
    def line(self) -> int:
        """1-based line of the node."""
        return int(self.node.start_mark.line) + 1


@dataclass
class Document:
    """Collects problems while parts of one file are read. A part that cannot be read yields its default.

    Attributes:
        problems: What was found so far.
    """

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
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            # A problem with an entry is reported at its key: there a reader looks for it.
            inner = Place(value_node, f"{place.path}.{key}" if place.path else key)
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                self.problems.append(Problem(line, inner.path, f"the key {key!r} is not a text", "put it in quotes"))
            elif key in seen:
                message = f"{key!r} is there twice, first in line {seen[key]}"
                self.problems.append(Problem(line, inner.path, message, "remove or rename one"))
            else:
                seen[key] = line
                yield key, inner

    def items(self, place: Place | None) -> list[Place]:
        """Read a list."""
        if place is None:
            return []
        if not isinstance(place.node, yaml.SequenceNode):
            self.note(place, "expected a list", "write [a, b] or lines that begin with -")
            return []
        return [Place(node, f"{place.path}[{i}]") for i, node in enumerate(place.node.value)]

    def text(self, place: Place | None, default: str = "", choices: Sequence[str] = ()) -> str:
        """Read a text, one of `choices` if there are any."""
        if place is None:
            return default
        node = place.node
        if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
            self.note(place, "expected a text", "write a text, in quotes where YAML takes it for something else")
            return default
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

    def moment(self, place: Place | None) -> float:
        """Read a date or a moment in ISO 8601, UTC unless it says otherwise, as Unix seconds; NaN if absent."""
        if place is None:
            return math.nan
        try:
            moment = dt.datetime.fromisoformat(str(place.node.value))
        except ValueError:
            self.note(place, f"{str(place.node.value)!r} is not a date", "write 2018-03-31 or 2018-03-31T18:00:00Z")
            return math.nan
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.timezone.utc)).timestamp()


def read(path: Path) -> Place:
    """Read a YAML file as nodes.

    Raises:
        CatalogueError: The file is not there, not UTF-8, not one YAML document, or uses anchors or tags.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CatalogueError(
            str(path), [Problem(1, "document", f"cannot be read ({error.strerror})", "check the path")]
        ) from None
    except UnicodeDecodeError as error:
        raise CatalogueError(
            str(path), [Problem(1, "document", f"is not UTF-8 at byte {error.start}", "save it as UTF-8")]
        ) from None
    return parse(text, str(path))


def parse(text: str, file: str) -> Place:
    """Parse YAML text as nodes; see `read`."""
    if len(text) > MAX_CHARACTERS:
        raise CatalogueError(
            file, [Problem(1, "document", f"has {len(text)} characters", f"stay below {MAX_CHARACTERS}")]
        )
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            _refuse_indirection(event, file)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise CatalogueError(
            file,
            [Problem(line, "document", f"is not valid YAML ({error.problem})", "check indentation, quotes and colons")],
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise CatalogueError(
            file,
            [
                Problem(
                    1,
                    "document",
                    f"is not valid YAML ({type(error).__name__})",
                    "remove control characters and deep nesting",
                )
            ],
        ) from None
    if node is None:
        raise CatalogueError(file, [Problem(1, "document", "is empty", "write a catalogue")])
    return Place(node, "")


def _refuse_indirection(event: yaml.Event, file: str) -> None:
    """Anchors and tags make a document mean more than it shows: what stands at a line must be all there is."""
    if getattr(event, "anchor", None):
        what = "anchors and aliases are not allowed"
    elif getattr(event, "tag", None):
        what = "tags are not allowed"
    else:
        return
    raise CatalogueError(file, [Problem(event.start_mark.line + 1, "document", what, "write the value out")])
