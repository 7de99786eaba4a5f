"""What a customer agreed to: consents as they were said -> granted, refused or unknown by purpose on one channel.

Knows words and moments; nothing of actions, stores or events. `all` as channel or purpose of what was said means every
one. A grant must name the purpose; a refusal may be of all purposes (an objection). A refusal yields only to a newer
grant that is at least as narrow: who objected to everything and then asks for e-mails gets e-mails, and who refused
e-mails gets none because of a later grant for all channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

GRANTED, REFUSED, UNKNOWN = 1, 0, -1
ALL = "all"
MARKETING = "marketing"
NEVER = float("-inf")


class Said(NamedTuple):
    """The newest word on one channel and purpose; `expiry` (infinite for none) and `at` in Unix seconds."""

    is_granted: bool
    expiry: float
    at: float


def consent_codes(said: Mapping[tuple[str, str], Said], channel: str, now: float) -> dict[str, int]:
    """Return what holds on a channel as of `now`.

    Args:
        said: (channel, purpose) -> the newest word.

    Returns:
        purpose -> GRANTED or REFUSED; a purpose that is not there is UNKNOWN.
    """
    codes = {}
    for purpose in dict.fromkeys(purpose for where, purpose in said if where in (channel, ALL)):
        code = _code(said, channel, purpose, now)
        if code != UNKNOWN:
            codes[purpose] = code
    return codes


def _code(said: Mapping[tuple[str, str], Said], channel: str, purpose: str, now: float) -> int:
    wide = _refused_at(said, ((ALL, purpose), (ALL, ALL)))
    narrow = _refused_at(said, ((channel, purpose), (channel, ALL)))
    if purpose != ALL:
        for where, refused_at in ((channel, max(wide, narrow)), (ALL, wide)):
            word = said.get((where, purpose))
            is_overruled = where == ALL and narrow > NEVER
            if word and word.is_granted and word.expiry > now and word.at > refused_at and not is_overruled:
                return GRANTED
    return REFUSED if max(wide, narrow) > NEVER else UNKNOWN


def _refused_at(said: Mapping[tuple[str, str], Said], fields: tuple[tuple[str, str], ...]) -> float:
    """Return the moment of the newest refusal among fields, or NEVER."""
    words = [said[field] for field in fields if field in said]
    return max((word.at for word in words if not word.is_granted), default=NEVER)
