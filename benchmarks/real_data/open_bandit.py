"""Open Bandit Dataset (arXiv 2008.07146), small size, campaign "all": a uniform random log judges the Thompson policy.

The second policy ran as well, so its own log says what an estimate should have said: .0042 clicks an impression.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_data.tables import codes, one_hot, read_columns
from training.bootstrap import RESAMPLES
from training.off_policy import Evaluation, Rounds, evaluate
from training.reward_model import Pairs, cross_fit, direct

PUBLISHED = {"ips": 0.004553, "snips": 0.004776, "dr": 0.0047}
ON_POLICY = 0.0042


@dataclass(frozen=True)
class OpenBandit:
    """The random log, and what the policy that is judged would have shown."""

    rounds: Rounds
    clicks: int
    on_policy: float


def load(data: Path) -> OpenBandit:
    """Read the tables and fit the reward model: a logistic regression for each position, three folds, seed 12345."""
    log = read_columns(data / "open_bandit" / "random_all.parquet")
    items = read_columns(data / "open_bandit" / "items_all.parquet")
    chances = read_columns(data / "open_bandit" / "bts_action_dist_all.parquet")
    judged = read_columns(data / "open_bandit" / "bts_all.parquet")
    positions, actions = log["position"].astype(np.int64) - 1, log["item_id"].astype(np.int64)
    rewards, logging = log["click"].astype(float), log["propensity_score"].astype(float)
    policy = np.zeros((len(items["item_id"]), 3))
    policy[chances["item_id"], chances["position"] - 1] = chances["prob"]
    target = np.ascontiguousarray(policy[:, positions].T)
    contexts = np.column_stack([one_hot(log[f"user_feature_{k}"], drop_first=True) for k in range(4)])
    order = np.argsort(items["item_id"])
    features = [items["item_feature_0"].astype(float), *(codes(items[f"item_feature_{k}"]) for k in (1, 2, 3))]
    known = np.column_stack(features)[order]
    n, k = target.shape
    pairs = Pairs(np.repeat(np.arange(n), k), target.ravel(), np.arange(n) * k + actions)

    def inputs_of(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.column_stack([contexts[numbers // k], known[numbers % k]])

    fitted = direct(cross_fit(inputs_of, pairs, rewards, strata=positions), pairs)
    rounds = Rounds.of_single_slots(
        np.arange(n), rewards, logging, target[np.arange(n), actions],
        off_support=np.zeros(n), expected=fitted.expected, fitted=fitted.fitted,
    )  # fmt: skip
    return OpenBandit(rounds, int(rewards.sum()), float(judged["click"].mean()))


def report(data: Path, resamples: int = RESAMPLES) -> Evaluation:
    """Print the estimates beside the published ones, and return them."""
    world = load(data)
    found = evaluate(world.rounds, resamples=resamples)
    support = found.support
    print(f"random -> bts, {support.rounds:,} impressions, {world.clicks} clicks; intervals: 95 %, BCa")
    print(f"{'on the random log itself':28} {found.logged}")
    for name, estimate in found.estimates.items():
        published = f"published {PUBLISHED[name]:g}" if name in PUBLISHED else ""
        covers = "contains" if estimate.low <= ON_POLICY <= estimate.high else "misses"
        print(f"{name:28} {estimate}   {covers} {ON_POLICY:g}   {published}")
    print(f"{'bts, its own log':28} {world.on_policy:g}")
    print(
        f"effective sample size {support.effective[0]:,.1f}; largest weight {support.largest_weight:.2f}; mean weight "
        f"{support.mean_weight:.3f} +- {support.mean_weight_error:.3f}; clipped {support.clipped:.0%}"
    )
    print(f"bts against random by {found.judged_by}: {found.verdict}, gain {found.gains[found.judged_by]}")
    return found
