"""Hillstrom's e-mail test (2008), a true randomised trial: does the uplift model rank, and does a policy pay?

Ranking: Womens E-Mail against None, `visit`, 70/30 splits; published .0302-.0308 (arXiv 2012.09897).
Policy: whom to send which of Mens, Womens and nothing, learned out of fold, against sending Mens to everyone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_data.tables import as_inputs, read_columns
from training.bootstrap import RESAMPLES, Interval
from training.off_policy import Evaluation, Rounds, compare, evaluate
from training.uplift import OUTCOME, OUTCOME_ROUNDS, EffectRows, deal_folds, fit_effect, fit_trees
from training.uplift_measures import auuc

Floats = NDArray[np.float64]

SEEDS, TRAIN_SHARE = 50, 0.7
KNOWN_BEFORE = ("recency", "history", "mens", "womens", "newbie", "history_segment", "zip_code", "channel")
CATEGORICALS = (5, 6, 7)
MENS, WOMENS, NONE = "Mens E-Mail", "Womens E-Mail", "No E-Mail"
POLICY_FOLDS = 5


@dataclass(frozen=True)
class Ranking:
    """AUUC over the splits.

    Attributes:
        auuc: (n_seeds,) of the chosen learner. random: (n_seeds,) of random order, exact. womens: of the rule of thumb
            that ranks those first who bought women's things before.
        chosen: Learner -> splits that chose it.
    """

    auuc: Floats
    random: Floats
    womens: Floats
    chosen: dict[str, int]


def ranking(data: Path, seeds: int = SEEDS) -> Ranking:
    """Fit on 70 %, measure on 30 %, once a seed."""
    table = read_columns(data / "hillstrom" / "hillstrom.parquet")
    is_asked = table["segment"] != MENS
    inputs = as_inputs(table, KNOWN_BEFORE)[is_asked]
    n = len(inputs)
    rows = EffectRows(
        inputs, table["segment"][is_asked] == WOMENS, table["visit"][is_asked].astype(float), np.full(n, 0.5),
        np.arange(n), np.full(n, "womens"), CATEGORICALS,
    )  # fmt: skip
    measured: list[list[float]] = []
    chosen: dict[str, int] = {}
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(n)
        train, test = rows.at(order[: int(TRAIN_SHARE * n)]), rows.at(order[int(TRAIN_SHARE * n) :])
        effect = fit_effect(train, seed=seed, resamples=20)
        chosen[effect.learner] = chosen.get(effect.learner, 0) + 1
        half = np.full(len(test.treated), 0.5)
        scores = (
            effect.booster.predict(test.inputs),
            np.zeros(len(half)),
            test.inputs[:, KNOWN_BEFORE.index("womens")],
        )
        measured.append([auuc(s, test.outcomes, test.treated, half) for s in scores])
    ours, random, womens = np.array(measured).T
    return Ranking(ours, random, womens, chosen)


def over_splits(values: Floats) -> Interval:
    """Return the mean over overlapping splits with the interval of Nadeau and Bengio (2003)."""
    n = len(values)
    error = np.sqrt(values.var(ddof=1) * (1 / n + (1 - TRAIN_SHARE) / TRAIN_SHARE))
    mean = float(values.mean())
    return Interval(mean, mean - 2.01 * error, mean + 2.01 * error)


def policy(data: Path, resamples: int = RESAMPLES) -> tuple[Evaluation, Evaluation, Interval]:
    """Judge the learned policy and Mens for everyone on the trial; return both and the paired difference."""
    table = read_columns(data / "hillstrom" / "hillstrom.parquet")
    inputs, visits = as_inputs(table, KNOWN_BEFORE), table["visit"].astype(float)
    arms = np.array([MENS, WOMENS, NONE])
    sent = (table["segment"][:, None] == arms).argmax(axis=1)
    n = len(visits)
    fold_of = deal_folds(np.arange(n), POLICY_FOLDS, 0)
    visited = np.empty((n, len(arms)))
    for fold in range(POLICY_FOLDS):
        held = fold_of == fold
        for arm in range(len(arms)):
            seen = ~held & (sent == arm)
            booster = fit_trees(inputs[seen], visits[seen], OUTCOME, OUTCOME_ROUNDS, CATEGORICALS)
            visited[held, arm] = booster.predict(inputs[held])
    third, ids = np.full(n, 1 / 3), np.arange(n)

    def rounds_of(choice: NDArray[np.int64]) -> Rounds:
        fitted = {"expected": visited[ids, choice], "fitted": visited[ids, sent]}
        return Rounds.of_single_slots(ids, visits, third, (sent == choice).astype(float), **fitted)

    learned, mens = rounds_of(visited.argmax(axis=1)), rounds_of(np.zeros(n, np.int64))
    judged = evaluate(learned, resamples=resamples), evaluate(mens, resamples=resamples)
    return *judged, compare(learned, mens, "dr", resamples=resamples)


def report(data: Path) -> None:
    """Print both."""
    found = ranking(data)
    gain, rule = found.auuc - found.random, found.auuc - found.womens
    print(f"Womens against None, visit, {len(gain)} splits 70/30; intervals: 95 %, for overlapping splits")
    print(f"{'AUUC, learner chosen out of fold':36} {over_splits(found.auuc)}   target .0292, published .0302-.0308")
    print(f"{'AUUC, random order (exact)':36} {over_splits(found.random)}")
    print(f"{'AUUC, bought womens before':36} {over_splits(found.womens)}")
    print(f"{'gain over random, paired':36} {over_splits(gain)}")
    print(f"{'gain over bought womens, paired':36} {over_splits(rule)}")
    print(f"chosen: {found.chosen}")
    learned, mens, difference = policy(data)
    for name, judged in (("learned policy", learned), ("Mens to everyone", mens)):
        print(f"{name:36} visit rate {judged.estimates['dr']} by DR, {judged.estimates['snips']} by SNIPS")
    verdict = "a significant gain" if difference.low > 0 else "no significant gain"
    print(f"{'learned minus Mens to everyone':36} {difference}: {verdict}")
