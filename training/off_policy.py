"""What another policy would have earned, estimated from the log of the one that ran: replay, IPS, SNIPS, DM and DR.

Decides what a log can answer and refuses, with the reason, what it cannot. Knows neither lake nor catalogue: it is
given, for every logged placement, the reward and the probabilities under both policies.

The estimand is the mean reward of a decision, V = E[sum over its slots k of r_k], with every slot chosen by the new
policy. A round is one slot of one decision. With rho = P_new(a | x, prefix) / P_log(a | x, prefix), both given what
the log had placed before in the same answer, the weight of a round is the product of rho up to its slot: exact where
what is earned in a slot depends on the customer and on what stands in the slots before it (the cascade model;
McInerney et al. 2020, Kiyohara et al. 2022). With one slot, or with the first slots alone, it is the contextual bandit
and needs no such assumption.

    IPS    mean of w r                                                             Horvitz, Thompson 1952
    SNIPS  sum w r / sum w, slot by slot                                           Swaminathan, Joachims 2015
    replay mean of r over rounds kept with probability w / max w                   Li et al. 2011, for any known log
    DM     mean of w' q(x, new policy), w' the weight of the slots before
    DR     mean of w' q(x, new policy) + w (r - q(x, a))                           Dudik et al. 2011

No weight is clipped unless asked: clipping trades an unknown bias for variance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import RESAMPLES, SEED, Interval, interval, sums_by

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

ESTIMATORS = ("replay", "ips", "snips", "dm", "dr")
LEAST_EFFECTIVE = 100.0
"""Below this effective sample size a weighted mean rests on too few rounds for its interval to mean anything."""
MOST_OFF_SUPPORT = 0.01
"""So much of the new policy's probability may lie on actions that the log could not take; reported in any case."""


class CannotAnswer(ValueError):
    """The log cannot answer the question at all; one sentence says why and what to do."""


@dataclass(frozen=True)
class Rounds:
    """Logged placements, one row each; a slot that stayed empty is a round whose action is "nothing", reward 0.

    Attributes:
        customers: (n,) codes: what is resampled.
        decisions: (n,) codes; the rounds of one decision carry slots 0, 1, ... without a gap.
        slots: (n,) position in the answer.
        rewards: (n,).
        logging: (n,) P(the logged action in this slot) under the policy that ran, given the slots before.
        target: (n,) the same probability under the new policy.
        off_support: (n,) the new policy's probability on actions that the log could not take; None where unknown.
        expected: (n,) q(x, new policy), the reward model under the new policy's distribution; None without a model.
        fitted: (n,) q(x, a), the reward model for the logged action; None without a model.
        reference: (n,) rounds of the policy that the new one is compared with, e.g. of the arm nba; None for all.
        usable: (n,) rounds that estimates rest on, whole decisions; None for all. The others serve as reference only.
        excluded: Reason -> rows of the log that were left out before.
    """

    customers: Ints
    decisions: Ints
    slots: Ints
    rewards: Floats
    logging: Floats
    target: Floats
    off_support: Floats | None = None
    expected: Floats | None = None
    fitted: Floats | None = None
    reference: Bools | None = None
    usable: Bools | None = None
    excluded: Mapping[str, int] = field(default_factory=dict)

    def at(self, rows: Bools) -> Rounds:
        """Return the rounds chosen, all of them usable."""
        columns = [f.name for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)]
        taken: dict[str, Any] = {name: getattr(self, name)[rows] for name in columns}
        return replace(self, **{**taken, "usable": None})

    @classmethod
    def of_single_slots(cls, customers: Ints, rewards: Floats, logging: Floats, target: Floats, **more: Any) -> Rounds:
        """Make rounds of decisions with one slot each."""
        n = len(rewards)
        return cls(customers, np.arange(n), np.zeros(n, np.int64), rewards, logging, target, **more)


@dataclass(frozen=True)
class Support:
    """How well the log covers the new policy.

    Attributes:
        rounds, decisions, customers: Counts.
        effective: (n_slots,) effective sample size (sum w)^2 / sum w^2 of each slot's rounds (Kish 1965).
        largest_weight: Greatest weight. mean_weight: Of first slots; 1 but for chance where the log covers the policy.
        mean_weight_error: Its standard error.
        clipped: Share of rounds whose weight was cut.
        off_support: Mean probability of the new policy on what the log could not take; NaN where unknown.
        excluded: Reason -> rows left out.
    """

    rounds: int
    decisions: int
    customers: int
    effective: tuple[float, ...]
    largest_weight: float
    mean_weight: float
    mean_weight_error: float
    clipped: float
    off_support: float
    excluded: Mapping[str, int]


@dataclass(frozen=True)
class Evaluation:
    """What the log says of the new policy.

    Attributes:
        logged: Mean reward of a decision under the policy that ran, over the rounds of reference.
        estimates: Estimator -> value of the new policy.
        gains: Estimator -> new minus logged, paired: both from the same resampled customers.
        refused: Estimator -> why it is not given.
        verdict: better | worse | no significant difference | cannot be told, by the most robust estimator there is.
        judged_by: That estimator, or "".
    """

    logged: Interval
    estimates: Mapping[str, Interval]
    gains: Mapping[str, Interval]
    refused: Mapping[str, str]
    support: Support
    verdict: str
    judged_by: str


def evaluate(
    rounds: Rounds,
    *,
    clip: float | None = None,
    least_effective: float = LEAST_EFFECTIVE,
    most_off_support: float = MOST_OFF_SUPPORT,
    method: str = "bca",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Evaluation:
    """Estimate the new policy's value with intervals by customer.

    Args:
        clip: Greatest weight of a slot's own ratio; None cuts nothing.
        least_effective: Effective sample size below which the weighted estimators are refused.
        most_off_support: Share of the new policy's probability off the log's support above which they are refused.
        method: `bca` or `percentile`, see `training.bootstrap`.

    Raises:
        CannotAnswer: where no estimator can be given: no rounds, missing probabilities, a log without chance.
    """
    kept = rounds if rounds.usable is None else rounds.at(rounds.usable)
    check(kept)
    ratios = kept.target / kept.logging
    cut = ratios if clip is None else np.minimum(ratios, clip)
    before, weights = cascade_weights(kept.decisions, kept.slots, cut)
    support = support_of(kept, weights, float(np.mean(cut < ratios)))
    refused = _refusals(kept, support, least_effective, most_off_support)
    drawn: dict[str, Any] = {"method": method, "resamples": resamples, "seed": seed}
    estimates, gains = {}, {}
    for name in ESTIMATORS:
        if name not in refused:
            components = _components(name, kept, before, weights, len(support.effective), seed)
            sums = sums_by(rounds.customers, _beside_logged(components, rounds))
            estimates[name] = interval(sums, _new, **drawn)
            gains[name] = interval(sums, _gain, **drawn)
    of_log = interval(sums_by(rounds.customers, _logged(rounds)), **drawn)
    judged_by = next((name for name in ("dr", "snips", "ips") if name in gains), "")
    return Evaluation(of_log, estimates, gains, refused, support, _verdict(gains.get(judged_by)), judged_by)


def check(rounds: Rounds) -> None:
    """Raise CannotAnswer where the log cannot answer any question about another policy."""
    n = len(rounds.rewards)
    if n == 0:
        left = ", ".join(f"{count} {reason}" for reason, count in rounds.excluded.items()) or "it is empty"
        raise CannotAnswer(f"the log has no usable row ({left}); collect decisions with their outcomes first")
    for name, probabilities in (("logging", rounds.logging), ("target", rounds.target)):
        least = np.nextafter(0.0, 1.0) if name == "logging" else 0.0
        is_wrong = ~((probabilities >= least) & (probabilities <= 1.0 + 1e-9))
        if is_wrong.any():
            row = int(np.flatnonzero(is_wrong)[0])
            raise CannotAnswer(
                f"round {row}: the {name} probability of the logged action is {probabilities[row]}; an estimate needs "
                f"it above 0 and at most 1 in every row ({int(is_wrong.sum())} of {n} are not): log it, or leave such "
                "rows out"
            )
    if (rounds.logging >= 1.0 - 1e-12).all() and not np.allclose(rounds.target, 1.0):
        raise CannotAnswer(
            "the log was made without chance: every action had probability 1, so nothing is known of any other; "
            "switch exploration or a random arm on and collect again"
        )
    if not (rounds.target > 0).any():
        raise CannotAnswer(
            "no overlap: the new policy gives probability 0 to every action in the log; log a policy that tries them"
        )


def cascade_weights(decisions: Ints, slots: Ints, ratios: Floats) -> tuple[Floats, Floats]:
    """Multiply the ratios of a decision's slots.

    Returns:
        (n,) product of the slots before the round's own (1 for the first), and (n,) with its own.
    """
    order = np.lexsort((slots, decisions))
    grouped, product = decisions[order], ratios[order].copy()
    for slot in range(1, int(slots.max()) + 1):
        rows = np.flatnonzero(slots[order] == slot)
        if (grouped[rows - 1] != grouped[rows]).any():
            raise ValueError(f"a decision has a round of slot {slot} and none of slot {slot - 1}")
        product[rows] *= product[rows - 1]
    before = np.ones(len(ratios))
    later = np.flatnonzero(slots[order] > 0)
    before[later] = product[later - 1]
    placed = np.empty(len(ratios), np.int64)
    placed[order] = np.arange(len(ratios))
    return before[placed], product[placed]


def support_of(rounds: Rounds, weights: Floats, clipped: float = 0.0) -> Support:
    """Measure how well the log covers the new policy; `weights` as of `cascade_weights`."""
    n_slots = int(rounds.slots.max()) + 1
    first = weights[rounds.slots == 0]
    return Support(
        rounds=len(weights),
        decisions=len(first),
        customers=len(np.unique(rounds.customers)),
        effective=tuple(effective_size(weights[rounds.slots == k]) for k in range(n_slots)),
        largest_weight=float(weights.max()),
        mean_weight=float(first.mean()),
        mean_weight_error=float(first.std() / np.sqrt(len(first))),
        clipped=clipped,
        off_support=float("nan") if rounds.off_support is None else float(rounds.off_support.mean()),
        excluded=rounds.excluded,
    )


def effective_size(weights: Floats) -> float:
    """Return Kish's effective sample size, (sum w)^2 / sum w^2; 0 where all weights are 0."""
    squares = float((weights**2).sum())
    return float(weights.sum() ** 2 / squares) if squares else 0.0


def _refusals(rounds: Rounds, support: Support, least_effective: float, most_off_support: float) -> dict[str, str]:
    refused = {}
    weighted = ""
    if support.off_support > most_off_support:
        weighted = (
            f"{support.off_support:.1%} of the new policy's choices are actions that the log could not take (at most "
            f"{most_off_support:.1%}): what they would earn is unknown"
        )
    elif min(support.effective) < least_effective:
        slot = int(np.argmin(support.effective))
        weighted = (
            f"the effective sample size of slot {slot + 1} is {support.effective[slot]:.1f} of {support.decisions} "
            f"decisions (at least {least_effective:g}): collect more, or judge fewer slots"
        )
    if weighted:
        refused = dict.fromkeys(("replay", "ips", "snips", "dr"), weighted)
    if len(support.effective) > 1:
        refused["replay"] = "replay needs decisions of one slot; judge the first slot alone"
    if rounds.expected is None or rounds.fitted is None:
        refused |= dict.fromkeys(("dm", "dr"), "no reward model was given")
    return refused


def _components(name: str, rounds: Rounds, before: Floats, weights: Floats, n_slots: int, seed: int) -> Floats:
    """(n, 3 x n_slots + 1): by slot numerator, denominator, rounds; then one for each decision."""
    rewards, ones = rounds.rewards, np.ones(len(weights))
    numerators, denominators = weights * rewards, ones
    if name == "replay":
        kept = weights >= weights.max() * (1.0 - np.random.default_rng(seed).random(len(weights)))
        numerators, denominators = kept * rewards, kept.astype(np.float64)
    elif name == "snips":
        denominators = weights
    elif name != "ips" and rounds.expected is not None and rounds.fitted is not None:
        numerators = before * rounds.expected
        if name == "dr":
            numerators = numerators + weights * (rewards - rounds.fitted)
    in_slot = rounds.slots[:, None] == np.arange(n_slots)
    by_slot = [in_slot * column[:, None] for column in (numerators, denominators, ones)]
    return np.column_stack([*by_slot, rounds.slots == 0])


def _beside_logged(components: Floats, rounds: Rounds) -> Floats:
    """(n, 3 x n_slots + 3): `_logged` of all rounds, then the components of the usable ones, 0 for the others."""
    beside = np.zeros((len(rounds.rewards), components.shape[1] + 2))
    beside[:, :2] = _logged(rounds)
    beside[slice(None) if rounds.usable is None else rounds.usable, 2:] = components
    return beside


def _logged(rounds: Rounds) -> Floats:
    """(n, 2) reward, and one for each decision, of the rounds of reference."""
    counted = np.ones(len(rounds.rewards)) if rounds.reference is None else rounds.reference.astype(np.float64)
    return np.column_stack([counted * rounds.rewards, counted * (rounds.slots == 0)])


def _value(sums: Floats) -> Floats:
    """Sum over the slots their mean reward x the share of decisions that have the slot."""
    n_slots = sums.shape[-1] // 3
    numerators, denominators, rounds = (sums[..., k * n_slots : (k + 1) * n_slots] for k in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        value: Floats = (numerators / denominators * rounds).sum(axis=-1) / sums[..., -1]
    return value


def _new(sums: Floats) -> Floats:
    return _value(sums[..., 2:])


def _gain(sums: Floats) -> Floats:
    gained: Floats = _new(sums) - sums[..., 0] / sums[..., 1]
    return gained


def _verdict(gain: Interval | None) -> str:
    if gain is None:
        return "cannot be told"
    if gain.low > 0:
        return "better"
    return "worse" if gain.high < 0 else "no significant difference"


def compare(rounds: Rounds, rival: Rounds, estimator: str = "snips", **drawn: Any) -> Interval:
    """Return the value of one new policy minus that of another on the same log, paired by resampled customers.

    Args:
        rounds, rival: The same rows of the log, in the same order, with the target of each policy.
        estimator: ips | snips | dr.
        drawn: As of `training.bootstrap.interval`.

    Raises:
        CannotAnswer: where the log cannot answer for one of them, or the rows are not the same.
    """
    if not (np.array_equal(rounds.rewards, rival.rewards) and np.array_equal(rounds.logging, rival.logging)):
        raise CannotAnswer("two policies are compared on the same rows of one log; these differ")
    parts = []
    for side in (rounds, rival):
        check(side)
        before, weights = cascade_weights(side.decisions, side.slots, side.target / side.logging)
        parts.append(_components(estimator, side, before, weights, int(side.slots.max()) + 1, SEED))
    width = parts[0].shape[1]
    sums = sums_by(rounds.customers, np.concatenate(parts, axis=1))
    return interval(sums, lambda s: _value(s[..., :width]) - _value(s[..., width:]), **drawn)
