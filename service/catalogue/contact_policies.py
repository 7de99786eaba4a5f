"""The contact policy of a catalogue: caps, cool-offs, quiet hours and reservations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from features.layout import SECONDS_PER_DAY
from service.catalogue.document import Document, Place
from service.catalogue.scopes import read_scope, scopes
from service.decision.model import CALENDAR, CONTACT_KINDS, Action, Cap, Placement, QuietHours, Treatment
from service.decision.record import CONTACTS_DAYS, MOST_ROOM

RESPONSES = ("accept", "click", "conversion", "reject")
UNITS = ("action", "message")
SECTIONS = ("caps", "cool_offs", "quiet_hours", "reservation_minutes")
_WHERE = ("scope", "channels")
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00")


@dataclass(frozen=True, slots=True)
class ContactPolicyReader:
    """Reads what limits contacts, against the names declared elsewhere in the file."""

    document: Document
    channels: tuple[str, ...]
    placements: tuple[Placement, ...]
    actions: tuple[Action, ...]
    treatments: tuple[Treatment, ...]

    def caps(self, caps: Place | None, cool_offs: Place | None) -> tuple[Cap, ...]:
        """Read the sections `caps` and `cool_offs`, in the order of ids; an id stands for one policy of any section."""
        found = [self._cap(cap_id, inner) for cap_id, inner in self.document.identified(caps)]
        taken = {cap.id for cap in found}
        for cap_id, inner in self.document.identified(cool_offs):
            self._refuse_taken(cap_id, inner, taken)
            found.append(self._cool_off(cap_id, inner))
        return tuple(sorted(found, key=lambda cap: cap.id))

    def quiet_hours(self, place: Place | None, caps: Sequence[Cap]) -> tuple[QuietHours, ...]:
        """Read the section `quiet_hours`, in the order of ids. What is not marketing is exempt unless it is named."""
        found = []
        for quiet_id, inner in self.document.identified(place):
            self._refuse_taken(quiet_id, inner, {cap.id for cap in caps})
            fields = self.document.fields(inner, ("from", "to", "reason"), _WHERE)
            scope, scope_id = self._scope(fields.get("scope"), "marketing")
            starts, ends = self._time_of_day(fields.get("from")), self._time_of_day(fields.get("to"))
            if starts == ends and "from" in fields and "to" in fields:
                self.document.note(fields["to"], "the hours end where they begin", "write 21:00 to 08:00")
            reason = self.document.text(fields.get("reason"))
            found.append(QuietHours(quiet_id, scope, scope_id, starts, ends, self._channels(fields), reason))
        return tuple(sorted(found, key=lambda quiet: quiet.id))

    def reservations(self, place: Place | None) -> dict[str, float]:
        """Read the section `reservation_minutes`: channel -> seconds."""
        most = CONTACTS_DAYS * SECONDS_PER_DAY / 60
        found = self.document.fields(place, optional=self.channels) if place is not None else {}
        return {channel: 60 * self.document.number(inner, 30.0, 1, most) for channel, inner in found.items()}

    def _cap(self, cap_id: str, place: Place) -> Cap:
        fields = self.document.fields(
            place, ("limit", "reason"), (*_WHERE, "counted", "days", "calendar", "unit", "placements")
        )
        scope, scope_id = self._scope(fields.get("scope"), "all")
        window_seconds, calendar = self._window(fields, place)
        limit = self.document.integer(fields.get("limit"), 0, least=0)
        if limit >= MOST_ROOM:
            self.document.note(fields["limit"], f"{limit} is out of bounds", f"write a number below {MOST_ROOM}")
        return Cap(
            cap_id,
            scope,
            scope_id,
            self.document.text(fields.get("counted"), "impression", CONTACT_KINDS),
            limit,
            window_seconds,
            self._channels(fields),
            self.document.text(fields.get("reason")),
            calendar,
            self.document.text(fields.get("unit"), "action", UNITS),
            self._placements(fields),
        )

    def _cool_off(self, cap_id: str, place: Place) -> Cap:
        """A cool-off is a cap of one response."""
        fields = self.document.fields(place, ("after", "reason"), (*_WHERE, "days", "calendar"))
        scope, scope_id = self._scope(fields.get("scope"), "all")
        window_seconds, calendar = self._window(fields, place)
        after = self.document.text(fields.get("after"), "reject", RESPONSES)
        reason = self.document.text(fields.get("reason"))
        return Cap(cap_id, scope, scope_id, after, 1, window_seconds, self._channels(fields), reason, calendar)

    def _window(self, fields: Mapping[str, Place], place: Place) -> tuple[float, str]:
        if ("days" in fields) == ("calendar" in fields):
            self.document.note(place, "a window is either days or calendar", "add days: 7, or calendar: week")
        if "calendar" in fields:
            return 0.0, self.document.text(fields["calendar"], "day", CALENDAR)
        return SECONDS_PER_DAY * self.document.number(fields.get("days"), 1.0, 1 / 1440, CONTACTS_DAYS), ""

    def _scope(self, place: Place | None, default: str) -> tuple[str, str]:
        each = {kind: [*ids, "*"] for kind, ids in scopes(self.actions, self.treatments).items()}
        return read_scope(self.document, place, {"all": (), "marketing": (), **each}, default)

    def _channels(self, fields: Mapping[str, Place]) -> tuple[str, ...]:
        return self.document.texts(fields["channels"], self.channels) if "channels" in fields else ()

    def _placements(self, fields: Mapping[str, Place]) -> tuple[str, ...]:
        known = [placement.id for placement in self.placements]
        return self.document.texts(fields["placements"], known) if "placements" in fields else ()

    def _time_of_day(self, place: Place | None) -> float:
        """Read a local time such as 21:00 as seconds of the day."""
        if place is None:
            return 0.0
        # As it stands in the file: YAML takes 21:00 for a number to the base 60.
        text = str(place.node.value)
        if not _TIME_OF_DAY.fullmatch(text):
            self.document.note(place, f"{text!r} is not a time of day", 'write it as "21:00"')
            return 0.0
        hours, _, minutes = text.partition(":")
        return int(hours) % 24 * 3600.0 + int(minutes) * 60.0

    def _refuse_taken(self, policy_id: str, place: Place, taken: set[str]) -> None:
        if policy_id in taken:
            self.document.note(place, f"{policy_id!r} is also the id of a cap or cool-off", "rename one")
