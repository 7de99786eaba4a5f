"""A judged log as rounds for the off-policy estimates, with their reward model.

Decides what a placement earned and what the reward model sees: the new model's propensity, the issue and the slot.
What the log placed and nobody saw earned nothing: a placement is what is judged. Knows no lake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.decision.experiment import NBA
from training.judged_log import NOTHING, Earned, JudgedLog, Slot
from training.off_policy import MOST_OFF_SUPPORT, Rounds
from training.reward_model import Pairs, cross_fit, direct

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Prepared:
    """A judged log as arrays, from which the rounds of all issues or of one are made.

    Attributes:
        rounds: Without rewards and reward model. issues: (n,) of the logged action, "" for nothing.
        earned: (n,) what it earned. pairs: Of the reward model. pair_issues: (m,). q: (m,).
    """

    rounds: Rounds
    issues: NDArray[np.str_]
    earned: Floats
    pairs: Pairs
    pair_issues: NDArray[np.str_]
    q: Floats

    def of_issue(self, issue: str | None = None) -> Rounds:
        """Return rounds whose reward counts actions of one issue alone, or of all."""
        own = np.ones(len(self.issues), np.bool_) if issue is None else self.issues == issue
        counted = None if issue is None else self.pair_issues == issue
        fitted = direct(self.q, self.pairs, counted)
        return replace(self.rounds, rewards=self.earned * own, expected=fitted.expected, fitted=fitted.fitted)


def prepare(log: JudgedLog, earned: Earned, issue_of: Mapping[str, str], *, first_slot: bool = False) -> Prepared:
    """Lay a judged log out as arrays and fit the reward model: a logistic regression on propensity, issue and slot.

    Args:
        issue_of: Treatment id -> issue, for treatments of both catalogues.
        first_slot: Use the first slot of each decision alone.
    """
    slots: list[tuple[int, int, Slot]] = [
        (d, k, slot)
        for d, decision in enumerate(log.decisions)
        for k, slot in enumerate(decision.slots[:1] if first_slot else decision.slots)
    ]
    owners = _codes([log.decisions[d].customer_id for d, _, _ in slots])
    worth = np.array([earned.get((log.decisions[d].decision_id, s.placed), 0.0) or 0.0 for d, _, s in slots])
    arms = np.array([log.decisions[d].arm for d, _, _ in slots], dtype=np.str_)
    is_nba = arms == NBA
    off_support = np.array([s.off_support for _, _, s in slots])
    usable, without_chance = _arms_with_chance(arms, off_support)
    rounds = Rounds(
        owners,
        np.array([d for d, _, _ in slots], dtype=np.int64),
        np.array([k for _, k, _ in slots], dtype=np.int64),
        worth,
        np.array([s.logging for _, _, s in slots]),
        np.clip(np.array([s.target for _, _, s in slots]), 0.0, 1.0),
        off_support=off_support,
        reference=is_nba if is_nba.any() else None,
        usable=usable,
        excluded={**log.excluded, **_counted(log, without_chance)},
    )
    pairs, treatments, inputs = _pairs([slot for _, _, slot in slots], rounds.slots, issue_of)
    q = cross_fit(lambda numbers: inputs[numbers], pairs, worth, groups=owners) if len(slots) else np.empty(0)
    return Prepared(
        rounds,
        np.array([issue_of.get(slot.placed, "") for _, _, slot in slots], dtype=np.str_),
        worth,
        pairs,
        np.array([issue_of.get(treatment, "") for treatment in treatments], dtype=np.str_),
        q,
    )


def _arms_with_chance(arms: NDArray[np.str_], off_support: Floats) -> tuple[NDArray[np.bool_], list[str]]:
    """Return (n,) the rounds of arms that could have done what the new policy would, and the arms that could not.

    Arms are drawn by chance and by customer, so an arm that chose too narrowly can be left out without harm; where
    all did, all stay, and the estimates say why they are refused.
    """
    narrow = [str(arm) for arm in np.unique(arms) if off_support[arms == arm].mean() > MOST_OFF_SUPPORT]
    if len(narrow) == len(np.unique(arms)):
        narrow = []
    return ~np.isin(arms, narrow), narrow


def _counted(log: JudgedLog, narrow: Sequence[str]) -> dict[str, int]:
    return {
        f"in arm {arm}, which could not do what the new policy would": sum(d.arm == arm for d in log.decisions)
        for arm in narrow
    }


def _pairs(slots: Sequence[Slot], orders: Ints, issue_of: Mapping[str, str]) -> tuple[Pairs, list[str], Floats]:
    """Return the pairs of all rounds, their treatments, and (m, p) what the reward model sees of them."""
    issues = sorted({*issue_of.values()})
    rounds: list[int] = []
    target: list[float] = []
    treatments: list[str] = []
    propensities: list[float] = []
    logged: list[int] = []
    for n, slot in enumerate(slots):
        names = dict.fromkeys((*slot.chances, *(() if slot.placed == NOTHING else (slot.placed,))))
        logged.append(len(rounds) + list(names).index(slot.placed) if slot.placed != NOTHING else -1)
        for treatment in names:
            rounds.append(n)
            treatments.append(treatment)
            target.append(slot.chances.get(treatment, 0.0))
            propensities.append(slot.propensities.get(treatment, np.nan))
    p = np.array(propensities, dtype=np.float64)
    known = np.where(np.isnan(p), np.nanmean(p) if (~np.isnan(p)).any() else 0.5, p)
    known = np.clip(known, 1e-4, 1 - 1e-4)
    of = np.array([issue_of.get(treatment, "") for treatment in treatments], dtype=np.str_)
    owner = np.array(rounds, dtype=np.int64)
    columns = [
        np.log(known / (1 - known)),
        np.isnan(p).astype(float),
        *((of == issue).astype(float) for issue in issues),
    ]
    inputs = np.column_stack([*columns, orders[owner].astype(float)])
    return Pairs(owner, np.array(target, dtype=np.float64), np.array(logged, dtype=np.int64)), treatments, inputs


def _codes(names: Sequence[str]) -> Ints:
    return np.unique(np.array(names, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
