"""The tree of a rule as plain JSON-able data and back, to the bit. Knows no text of a rule and no file.

A node is a list of its kind's name and its fields; a tuple is a list under an empty name; NaN is null.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, cast

from service.decision import expression
from service.decision.expression import NULL, Constant, Expression, Number, Truth

_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (*expression.Number.__args__, *expression.Expression.__args__)
}


def to_plain(tree: Expression) -> list[Any]:
    """Return JSON-able data for a tree."""
    return cast(list[Any], _plain(tree))


def from_plain(data: Any) -> Expression:
    """Return the tree that `to_plain` made data of.

    Raises:
        ValueError: It is no such data.
    """
    try:
        tree = _tree(data)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"this is no tree of a rule ({type(error).__name__})") from None
    if not isinstance(tree, Expression):
        raise ValueError("this is no tree of a rule")
    return tree


def _plain(part: Any) -> Any:
    if isinstance(part, tuple):
        return ["", *map(_plain, part)]
    if isinstance(part, Number | Expression):
        return [type(part).__name__, *(_plain(getattr(part, field.name)) for field in fields(part))]
    return None if isinstance(part, float) and math.isnan(part) else part


def _tree(data: Any) -> Any:
    if not isinstance(data, list):
        return math.nan if data is None else data
    name, *inner = data
    if name == "":
        return tuple(map(_tree, inner))
    if name == Truth.__name__:
        return Truth(*inner)  # its null is the unknown, and no number
    node = _KINDS[name](*map(_tree, inner))
    return NULL if isinstance(node, Constant) and node.value != node.value else node
