"""What the simulator leaves out of a contact history can count on no cap."""

from __future__ import annotations

import numpy as np
import pytest

from features.layout import SECONDS_PER_DAY
from features.matrix import Columns
from service.catalogue.loader import load_catalogue
from service.decision.engine import CompiledCatalogue, compile_catalogue
from service.decision.model import Contacts, LocalTimes
from tests.service.decision.worlds import CATALOGUE, NOW, random_contacts
from training.contact_history import longest_window, within

N = 60


@pytest.fixture(scope="module")
def shipped() -> CompiledCatalogue:
    return compile_catalogue(load_catalogue(CATALOGUE), Columns())


@pytest.fixture(scope="module")
def contacts(shipped: CompiledCatalogue) -> Contacts:
    """Decisions and impressions of the last 40 days, which is all that the simulator writes down."""
    made = random_contacts(N, 4, [action.id for action in shipped.catalogue.actions], 40)
    is_own = np.isin(made.kinds, ("decision", "impression"))
    kept = [k for k, own in enumerate(is_own.tolist()) if own]
    columns = (made.kinds, made.decision_ids, made.showings)
    kinds, ids, showings = (tuple(column[k] for k in kept) for column in columns)
    return Contacts(made.customers[is_own], made.times[is_own], kinds, ids, showings)


@pytest.mark.parametrize("channel", ["app", "email", "mailer", "till"])
def test_what_is_too_old_to_count_leaves_the_same_room(
    shipped: CompiledCatalogue, contacts: Contacts, channel: str
) -> None:
    """Room on every counter is that of the whole history, though a fifth of it is gone."""
    since = NOW - longest_window(shipped.catalogue.caps)
    recent = within(contacts, since)
    assert 0 < len(recent.times) < 0.9 * len(contacts.times)
    local = LocalTimes.utc(NOW, N)
    whole = shipped.caps.room(contacts, channel, NOW, local)
    assert np.array_equal(shipped.caps.room(recent, channel, NOW, local), whole)


def test_the_longest_window_is_that_of_what_is_counted_here(shipped: CompiledCatalogue) -> None:
    """The 60 days after a rejection are not waited for; a calendar's window is a month at most."""
    assert longest_window(shipped.catalogue.caps) == 32 * SECONDS_PER_DAY
    assert longest_window(()) == 0.0
