"""What became of shown treatments: which of their positives count, to whom a success is credited. Pure, columnar.

A *success* is something the customer did that fulfils the success rule of one or more actions, such as a purchase in an
aisle. It is credited to the treatment shown last before it among those with that rule whose response window is open;
the earlier ones of these *assisted*. One act may fulfil several rules and is then one success for each: who was shown
seafood and cheese and buys both has answered both.

A positive counts when it *occurred* within the response window, however late it was heard of. One that occurred after
the window is noted and does not count. Once the window is over without a positive, the action's default outcome holds:
a negative (`reject`), or nothing at all (`none`). What was never shown has no response.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision.model import Bools, Floats, Ints

NONE, REJECT = 0, 1
"""Codes of default outcomes."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Treatments that were shown, (n,) each.

    Attributes:
        customers: Codes. rules: Codes of success rules, -1 for none.
        times: When first shown, Unix seconds. windows: Response windows, seconds.
        defaults: NONE or REJECT.
    """

    customers: Ints
    rules: Ints
    times: Floats
    windows: Floats
    defaults: Ints


@dataclass(frozen=True, slots=True)
class Told:
    """Outcomes that callers told of shown treatments, (m,) each: positives of the action's own type, and rejects.

    Attributes:
        treatments: Positions in `Shown`.
        is_positive: Of the type that is the action's positive; else an explicit reject.
        times: When it occurred. heard: when it was logged. values: NaN where none was told.
    """

    treatments: Ints
    is_positive: Bools
    times: Floats
    heard: Floats
    values: Floats


@dataclass(frozen=True, slots=True)
class Successes:
    """What customers did that fulfils a rule, (k,) each; attributes as of `Told`."""

    customers: Ints
    rules: Ints
    times: Floats
    heard: Floats
    values: Floats


@dataclass(frozen=True, slots=True)
class Responses:
    """What became of each shown treatment, (n,) each.

    Attributes:
        responses: 1 positive, 0 negative, NaN where there is none: the window is open, or the default is NONE.
        times: When the first positive, or the first reject, occurred; NaN where neither did.
        values: Sum over its positives, as told if any was told with a value, else of the successes; 0 without.
        is_late: The positive was heard of only after the window was over, when the default may have been reported.
        is_after_window: A positive occurred after the window, and does not count.
        is_assisted: Others were credited with successes that this treatment came before.
        is_default: Negative only because the window passed.
        is_open: The window was still open.
    """

    responses: Floats
    times: Floats
    values: Floats
    is_late: Bools
    is_after_window: Bools
    is_assisted: Bools
    is_default: Bools
    is_open: Bools


def credit(shown: Shown, successes: Successes) -> tuple[Ints, Bools, Bools]:
    """Give each success to a treatment.

    Returns:
        (k,) position in `shown` of the treatment that is credited, -1 for none; (n,) treatments that assisted; (n,)
        treatments that came last before a success of their rule, but whose window was over by then.
    """
    n, k = len(shown.times), len(successes.times)
    credited = np.full(k, -1, dtype=np.int64)
    assisted, missed = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    order, last = _last_before(shown, successes)
    is_same = np.ones(k, dtype=np.bool_)
    for back in range(n):  # a customer has few treatments of one rule: this ends after as many rounds
        place = last - back
        is_same = is_same & (place >= 0)
        position = order[np.where(is_same, place, 0)]
        is_same &= (shown.customers[position] == successes.customers) & (shown.rules[position] == successes.rules)
        if not is_same.any():
            break
        is_open = is_same & (successes.times < shown.times[position] + shown.windows[position])
        assisted[position[is_open & (credited >= 0)]] = True
        is_first = is_open & (credited < 0)
        credited[is_first] = position[is_first]
        if back == 0:
            missed[position[is_same & ~is_open]] = True
    return credited, assisted, missed


def _last_before(shown: Shown, successes: Successes) -> tuple[Ints, Ints]:
    """Return the order of treatments by (customer, rule, time), and (k,) the last place in it not after each success.

    The place may be of another customer or rule: whoever walks back from it has to look.
    """
    n = len(shown.times)
    customers = np.concatenate([shown.customers, successes.customers])
    rules = np.concatenate([shown.rules, successes.rules])
    times = np.concatenate([shown.times, successes.times])
    is_success = np.arange(len(times)) >= n  # at the same moment the treatment comes first
    both = np.lexsort((is_success, times, rules, customers))
    treatments = both[both < n]
    place = np.cumsum(both < n) - 1
    last = np.empty(len(times), dtype=np.int64)
    last[both] = place
    return treatments, last[n:]


def respond(shown: Shown, told: Told, successes: Successes, as_of: float) -> Responses:
    """Say what became of shown treatments, by all that is known as of a moment.

    Args:
        as_of: Unix seconds; windows that end later are open.
    """
    n = len(shown.times)
    credited, assisted, missed = credit(shown, successes)
    is_credited = credited >= 0
    ends = shown.times + shown.windows
    positive = told.is_positive
    is_within = told.times < ends[told.treatments]
    first, heard = np.full(n, np.inf), np.full(n, np.inf)
    for at, times, when in (
        (told.treatments[positive & is_within], told.times[positive & is_within], told.heard[positive & is_within]),
        (credited[is_credited], successes.times[is_credited], successes.heard[is_credited]),
    ):
        np.minimum.at(first, at, times)
        np.minimum.at(heard, at, when)
    rejected = np.full(n, np.inf)
    np.minimum.at(rejected, told.treatments[~positive], told.times[~positive])
    is_positive, is_rejected = np.isfinite(first), np.isfinite(rejected)
    is_open = ends > as_of
    is_default = ~is_positive & ~is_rejected & ~is_open & (shown.defaults == REJECT)
    after = missed
    after[told.treatments[positive & ~is_within]] = True
    return Responses(
        responses=np.where(is_positive, 1.0, np.where(is_rejected | is_default, 0.0, np.nan)),
        times=np.where(is_positive, first, np.where(is_rejected, rejected, np.nan)),
        values=_values(n, told, is_within, successes, credited),
        is_late=is_positive & (heard > ends),
        is_after_window=after & ~is_positive,
        is_assisted=assisted & ~is_positive,
        is_default=is_default,
        is_open=is_open,
    )


def _values(n: int, told: Told, is_within: Bools, successes: Successes, credited: Ints) -> Floats:
    is_worth = told.is_positive & is_within & ~np.isnan(told.values)
    said, done = np.zeros(n), np.zeros(n)
    np.add.at(said, told.treatments[is_worth], told.values[is_worth])
    is_credited = (credited >= 0) & ~np.isnan(successes.values)
    np.add.at(done, credited[is_credited], successes.values[is_credited])
    is_said: NDArray[np.bool_] = np.zeros(n, dtype=np.bool_)
    is_said[told.treatments[is_worth]] = True
    return np.where(is_said, said, done)
