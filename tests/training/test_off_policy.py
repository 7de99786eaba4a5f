"""Off-policy estimates against worlds whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.bandit_world import BanditWorld
from training.off_policy import CannotAnswer, Rounds, cascade_weights, effective_size, evaluate

WORLD = BanditWorld.made()


def covered(seeds: range) -> dict[str, float]:
    """Return for each estimator the share of logs whose 95 % interval holds the truth."""
    hits: dict[str, list[bool]] = {}
    for seed in seeds:
        found = evaluate(WORLD.log(seed), resamples=400, seed=seed)
        for name, estimate in found.estimates.items():
            hits.setdefault(name, []).append(estimate.low <= WORLD.truth <= estimate.high)
    return {name: float(np.mean(hit)) for name, hit in hits.items()}


def test_intervals_cover_the_truth():
    """Of twenty logs at least sixteen intervals of each weighted estimator hold the truth."""
    found = covered(range(20))
    assert min(found[name] for name in ("ips", "snips", "dr", "replay")) >= 0.8


@pytest.mark.prove
def test_intervals_cover_the_truth_in_90_to_98_of_100():
    """Over 200 logs the 95 % intervals of SNIPS and DR hold the truth in 90 to 98 % of them."""
    found = covered(range(1_000, 1_200))
    print(f"coverage over 200 logs: {found}")
    for name in ("snips", "dr"):
        assert 0.90 <= found[name] <= 0.98


def test_estimators_agree_with_their_formulas():
    """Each estimate is the textbook sum, to rounding."""
    rounds = WORLD.log(3)
    found = evaluate(rounds, resamples=20).estimates
    w, r = rounds.target / rounds.logging, rounds.rewards
    assert rounds.expected is not None
    assert rounds.fitted is not None
    assert found["ips"].value == pytest.approx(np.mean(w * r), rel=1e-12)
    assert found["snips"].value == pytest.approx((w * r).sum() / w.sum(), rel=1e-12)
    assert found["dm"].value == pytest.approx(rounds.expected.mean(), rel=1e-12)
    assert found["dr"].value == pytest.approx(np.mean(rounds.expected + w * (r - rounds.fitted)), rel=1e-12)


def test_the_same_policy_is_worth_what_the_log_shows():
    """A policy judged on its own log has weight 1 everywhere, full effective size, no gain and no verdict."""
    rounds = WORLD.log(4, with_model=False)
    found = evaluate(replace(rounds, target=rounds.logging), resamples=50)
    assert found.estimates["ips"] == found.estimates["snips"] == found.logged
    assert found.support.effective == (pytest.approx(found.support.rounds),)
    assert found.gains["snips"].value == 0.0
    assert found.verdict == "no significant difference"


def test_replay_of_a_uniform_log_is_the_mean_of_matches():
    """For a deterministic policy and a uniform log, replay is the mean reward where both chose alike (Li et al.)."""
    random = np.random.default_rng(0)
    n, actions, wanted = 4_000, random.integers(0, 4, 4_000), random.integers(0, 4, 4_000)
    rewards = random.binomial(1, 0.2, n).astype(float)
    rounds = Rounds.of_single_slots(np.arange(n), rewards, np.full(n, 0.25), (actions == wanted).astype(float))
    found = evaluate(rounds, resamples=50)
    assert found.estimates["replay"].value == pytest.approx(rewards[actions == wanted].mean(), rel=1e-12)
    assert found.refused == dict.fromkeys(("dm", "dr"), "no reward model was given")


def test_a_better_policy_is_called_better_and_a_worse_one_worse():
    """With enough rounds the verdict follows the truth."""
    rounds = WORLD.log(5, customers=6_000)
    assert WORLD.truth > (WORLD.rates * WORLD.logging).sum(axis=1).mean() + 0.02
    assert evaluate(rounds, resamples=200).verdict == "better"
    swapped = BanditWorld(WORLD.rates, WORLD.target, WORLD.logging)
    assert evaluate(swapped.log(5, customers=6_000), resamples=200).verdict == "worse"


def ranking_log(n: int, seed: int) -> tuple[Rounds, float]:
    """Draw two-slot answers over three actions whose second reward depends on what stands first; with the truth."""
    random = np.random.default_rng(seed)
    first, second = np.array([0.5, 0.3, 0.2]), np.array([[0, 0.6, 0.4], [0.5, 0, 0.5], [0.7, 0.3, 0]])
    new_first, new_second = np.array([0.2, 0.2, 0.6]), np.array([[0, 0.2, 0.8], [0.9, 0, 0.1], [0.1, 0.9, 0]])
    worth = np.array([0.2, 0.4, 0.6])
    after = np.array([[0, 0.1, 0.9], [0.5, 0, 0.2], [0.8, 0.3, 0]])
    truth = (new_first * worth).sum() + (new_first[:, None] * new_second * after).sum()
    a = (random.random(n)[:, None] > np.cumsum(first)).sum(1)
    b = (random.random(n)[:, None] > np.cumsum(second[a], axis=1)).sum(1)
    rewards = np.concatenate([random.random(n) < worth[a], random.random(n) < after[a, b]]).astype(float)
    ids, slots = np.tile(np.arange(n), 2), np.repeat([0, 1], n)
    logging = np.concatenate([first[a], second[a, b]])
    return Rounds(ids, ids, slots, rewards, logging, np.concatenate([new_first[a], new_second[a, b]])), float(truth)


def test_a_ranking_is_weighted_by_what_stands_above():
    """The cascade weights give the value of a ranking policy whose second reward depends on the first action."""
    rounds, truth = ranking_log(40_000, 1)
    found = evaluate(rounds, resamples=300)
    assert truth == pytest.approx(0.932, abs=1e-9)
    for name in ("ips", "snips"):
        assert found.estimates[name].low < truth < found.estimates[name].high
    assert found.estimates["snips"].high - found.estimates["snips"].low < 0.06
    assert "one slot" in found.refused["replay"]
    assert len(found.support.effective) == 2


def test_slots_multiply_within_a_decision_whatever_the_order_of_rows():
    """The weight of a slot is the product of the ratios up to it; a gap in the slots is an error."""
    decisions, slots = np.array([7, 3, 7, 3, 7]), np.array([2, 0, 0, 1, 1])
    before, weights = cascade_weights(decisions, slots, np.array([5.0, 2.0, 3.0, 0.5, 2.0]))
    assert before.tolist() == [6.0, 1.0, 1.0, 2.0, 3.0]
    assert weights.tolist() == [30.0, 2.0, 3.0, 1.0, 6.0]
    with pytest.raises(ValueError, match="slot 1 and none of slot 0"):
        cascade_weights(np.array([1, 2]), np.array([0, 1]), np.ones(2))


def test_weights_are_cut_only_when_asked_and_the_share_is_told():
    """Without a limit nothing is clipped; with one, the largest weight is the limit."""
    rounds = WORLD.log(6, with_model=False)
    assert evaluate(rounds, resamples=20).support.clipped == 0.0
    support = evaluate(rounds, resamples=20, clip=1.5).support
    assert support.largest_weight == 1.5
    assert 0.0 < support.clipped < 0.5


def refused(rounds: Rounds) -> str:
    """Return why a log cannot answer."""
    with pytest.raises(CannotAnswer) as caught:
        evaluate(rounds, resamples=20)
    return str(caught.value)


def test_a_log_that_cannot_answer_is_refused_with_the_reason():
    """No rows, a missing or zero propensity, a log without chance and no overlap each have a sentence of their own."""
    n = 50
    ids, ones, half = np.arange(n), np.ones(n), np.full(n, 0.5)
    empty = np.empty(0)
    none = Rounds.of_single_slots(np.empty(0, np.int64), empty, empty, empty, excluded={"degraded": 4})
    assert "4 degraded" in refused(none)
    holed = half.copy()
    holed[3] = np.nan
    assert refused(Rounds.of_single_slots(ids, ones, holed, half)).startswith("round 3: the logging probability")
    holed[3] = 0.0
    assert "is 0.0" in refused(Rounds.of_single_slots(ids, ones, holed, half))
    assert "without chance" in refused(Rounds.of_single_slots(ids, ones, ones, half))
    assert "no overlap" in refused(Rounds.of_single_slots(ids, ones, half, np.zeros(n)))


def test_estimators_that_the_log_does_not_support_are_refused_and_the_model_alone_stays():
    """Too small an effective sample, or a policy off the log's support, takes all weighted estimators away."""
    rounds = WORLD.log(8, customers=60)
    small = evaluate(rounds, resamples=20)
    assert set(small.refused) == {"replay", "ips", "snips", "dr"}
    assert "effective sample size of slot 1" in small.refused["ips"]
    assert small.verdict == "cannot be told"
    assert set(small.estimates) == {"dm"}
    off = evaluate(replace(WORLD.log(9), off_support=np.full(WORLD.log(9).rewards.shape, 0.2)), resamples=20)
    assert "20.0% of the new policy's choices" in off.refused["snips"]


def test_effective_size_is_kishs():
    """Equal weights count fully, one heavy weight counts as one."""
    assert effective_size(np.full(9, 3.0)) == pytest.approx(9.0)
    assert effective_size(np.array([1e9, 1.0, 1.0])) == pytest.approx(1.0, abs=1e-6)
    assert effective_size(np.zeros(3)) == 0.0


def test_rounds_that_are_not_usable_serve_as_reference_alone():
    """Estimates rest on the usable rounds as if there were no others; the gain is over the reference."""
    rounds = WORLD.log(11, with_model=False)
    rounds = replace(rounds, off_support=np.zeros(len(rounds.rewards)))
    usable = rounds.customers % 3 > 0
    found = evaluate(replace(rounds, usable=usable, reference=~usable), resamples=50)
    alone = evaluate(rounds.at(usable), resamples=50)
    assert found.estimates["snips"].value == alone.estimates["snips"].value
    assert found.support == alone.support
    assert found.logged.value == pytest.approx(rounds.rewards[~usable].mean(), rel=1e-12)
    gain = found.gains["snips"].value
    assert gain == pytest.approx(found.estimates["snips"].value - found.logged.value, rel=1e-12)
