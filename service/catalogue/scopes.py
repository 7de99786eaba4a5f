"""What rules and contact policies of a catalogue can be about: `all`, or one issue, group, action or treatment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.catalogue.document import Document, Place
from service.decision.model import Action, Treatment


def scopes(actions: Sequence[Action], treatments: Sequence[Treatment]) -> dict[str, Sequence[str]]:
    """Return the ids of each kind of scope."""
    return {
        "issue": sorted({action.issue for action in actions}),
        "group": sorted({action.group for action in actions if action.group}),
        "action": [action.id for action in actions],
        "treatment": [treatment.id for treatment in treatments],
    }


def read_scope(
    document: Document, place: Place | None, known: Mapping[str, Sequence[str]], default: str = "all"
) -> tuple[str, str]:
    """Read a plain scope such as `all`, or one `kind: id`.

    Args:
        known: Kind -> ids; a plain one has none.
        default: Where there is no scope.
    """
    plain = [kind for kind, ids in known.items() if not ids]
    if place is None or place.is_text:
        return document.text(place, default, plain), ""
    found = document.fields(place, optional=[kind for kind in known if kind not in plain])
    if len(found) != 1:
        remedy = "write for example {issue: upsell}, or " + " or ".join(plain)
        document.note(place, "a scope names exactly one thing", remedy)
        return default, ""
    ((kind, inner),) = found.items()
    return kind, document.text(inner, "", known[kind])
