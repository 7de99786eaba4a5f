"""A YAML text -> nodes with positions, one strict reading: one document, no anchors, no tags, and nothing constructed.

Anchors and tags make a document mean more than it shows: what stands at a line must be all there is.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from service.catalogue.problems import CatalogueError, Problem

MAX_CHARACTERS = 4_000_000
TEXT_TAG = "tag:yaml.org,2002:str"
RESOLVER: Any = yaml.resolver.Resolver()


class Refusal(Exception):
    """The text is no such document.

    Attributes:
        line: 1-based.
    """

    def __init__(self, line: int, message: str, remedy: str) -> None:
        super().__init__(message)
        self.line, self.message, self.remedy = line, message, remedy


def read_text(path: Path) -> str:
    """Read a file whole, once.

    Raises:
        CatalogueError: It is not there, or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise refused(str(path), Refusal(1, f"cannot be read ({error.strerror})", "check the path")) from None
    except UnicodeDecodeError as error:
        raise refused(str(path), Refusal(1, f"is not UTF-8 at byte {error.start}", "save it as UTF-8")) from None


def nodes_of(text: str, name: str) -> yaml.Node:
    """Return the root of a document.

    Args:
        name: Of the file, for messages.

    Raises:
        CatalogueError: It is too long, empty, not one YAML document, or uses anchors or tags.
    """
    try:
        return _compose(text)
    except Refusal as refusal:
        raise refused(name, refusal) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        remedy = "check indentation, quotes and colons there and just above"
        where = Refusal(mark.line + 1 if mark else 1, f"is not valid YAML ({error.problem})", remedy)
        raise refused(name, where) from None
    except (yaml.YAMLError, RecursionError) as error:
        what = f"is not valid YAML ({type(error).__name__})"
        raise refused(name, Refusal(1, what, "remove control characters and deep nesting")) from None


def refused(name: str, refusal: Refusal) -> CatalogueError:
    """Return the error for a document that cannot be read at all."""
    return CatalogueError(name, [Problem(refusal.line, "document", refusal.message, refusal.remedy)])


def line_of(marked: yaml.Node | yaml.Event) -> int:
    """Return the 1-based line at which something begins."""
    mark = marked.start_mark
    return int(mark.line) + 1 if mark else 1


def _compose(text: str) -> yaml.Node:
    """Build the nodes from libyaml's events."""
    if len(text) > MAX_CHARACTERS:
        raise Refusal(1, f"has {len(text)} characters", f"stay below {MAX_CHARACTERS}")
    top: list[yaml.Node] = []
    levels = [top]  # of each collection that is open: its nodes so far
    opened: list[yaml.Node] = []
    events: Any = yaml.parse(text, Loader=yaml.CSafeLoader)  # its marks are of another class, with the same fields
    for event in events:
        _refuse_indirection(event)
        if isinstance(event, yaml.ScalarEvent):
            levels[-1].append(_scalar(event))
        elif isinstance(event, yaml.CollectionStartEvent):
            kind: Any = yaml.MappingNode if isinstance(event, yaml.MappingStartEvent) else yaml.SequenceNode
            opened.append(kind("", [], event.start_mark, event.end_mark))
            levels[-1].append(opened[-1])
            levels.append([])
        elif isinstance(event, yaml.CollectionEndEvent):
            nodes, node = levels.pop(), opened.pop()
            node.value = (
                nodes if isinstance(node, yaml.SequenceNode) else list(zip(nodes[::2], nodes[1::2], strict=True))
            )
        elif isinstance(event, yaml.DocumentStartEvent) and top:
            raise Refusal(line_of(event), "is not valid YAML (a second document)", "keep one document in the file")
    if not top:
        raise Refusal(1, "is empty", "write a catalogue")
    return top[0]


def _scalar(event: Any) -> yaml.ScalarNode:
    is_plain = bool(event.implicit[0])
    tag = _plain_tag(event.value) if is_plain else TEXT_TAG
    return yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark, None if is_plain else event.style)


@lru_cache(maxsize=4096)
def _plain_tag(value: str) -> str:
    """Return what YAML takes a value without quotes for."""
    return str(RESOLVER.resolve(yaml.ScalarNode, value, (True, False)))


def _refuse_indirection(event: yaml.Event) -> None:
    has_anchor = getattr(event, "anchor", None) is not None
    if has_anchor or getattr(event, "tag", None) is not None:
        what = "anchors and aliases" if has_anchor else "tags"
        raise Refusal(line_of(event), f"{what} are not allowed", "write the value out")
