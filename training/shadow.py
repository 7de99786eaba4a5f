"""What a challenger says of decisions that another model made, against what that model said: from the table `shadows`.

Decides how the two are compared, nothing about which is better to serve: that is the gate's, and an experiment's.
Propensities are compared candidate by candidate; log loss where a shown treatment was answered. Intervals draw
customers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from service.lake_files import files
from training.bootstrap import Interval, interval, sums_by
from training.drift import Baseline
from training.evaluate import EPSILON
from training.responses import CatalogueOf, responses
from training.sources import connect

Floats = NDArray[np.float64]
LEAST_RANKED = 3
"""Candidates that a decision must have for a rank correlation to say anything."""
_PAIRED = """
SELECT s.decision_id, d.customer_id, d.arm, d.model_version AS champion, s.first_candidate AS its_first,
  coalesce(d.chosen[1].candidate, d.withheld[1].candidate, -1) AS logged_first, s.propensities AS its,
  list_transform(s.candidates, lambda c: d.propensities[c + 1]) AS logged,
  list_transform(s.candidates, lambda c: d.treatment_ids[c + 1]) AS treatments
FROM read_parquet({shadows}, union_by_name=true) s
JOIN read_parquet({decisions}, union_by_name=true) d USING (decision_id)
WHERE s.model_version = ? AND NOT d.dry_run AND epoch(d.decision_time) >= ? AND epoch(d.decision_time) < ?
ORDER BY d.decision_time, s.decision_id
"""


class NoShadows(ValueError):
    """There is nothing to compare; one sentence says what to do."""


@dataclass(frozen=True)
class Answered:
    """Log loss over the treatments that were answered.

    Attributes:
        gain: Champion's loss minus challenger's: above 0 the challenger is better.
    """

    treatments: int
    positives: int
    champion: Interval
    challenger: Interval
    gain: Interval


@dataclass(frozen=True)
class Comparison:
    """A challenger beside the models that decided.

    Attributes:
        champions: Version that decided -> decisions.
        first_differs: Share of the decisions in which another candidate would have come first, by the same draw; of
            decisions of the arm `random` it says nothing, and they are left out.
        rank_correlation: Mean of the decisions' Spearman coefficients; None where no decision has enough candidates.
        difference: Mean of challenger's minus champion's propensity over all candidates.
        psi: Of the challenger's propensities against the champions'.
        answered: None where nothing shown was answered yet.
    """

    model: str
    champions: Mapping[str, int]
    decisions: int
    customers: int
    candidates: int
    first_differs: Interval | None
    rank_correlation: Interval | None
    difference: Interval
    psi: float
    answered: Answered | None


@dataclass(frozen=True)
class _Decision:
    id: str
    customer: int
    arm: str
    champion: str
    does_first_differ: bool
    its: Floats
    logged: Floats
    treatments: tuple[str, ...]


def compare(
    lake: Path, since: float, until: float, catalogue_of: CatalogueOf, *, model: str = "", as_of: float | None = None
) -> Comparison:
    """Compare a challenger with what was served.

    Args:
        since, until: Decision times, Unix seconds; `until` excluded.
        catalogue_of: As of `responses`.
        model: Version of the challenger as shadows name it; "": of the newest shadow.
        as_of: Response windows that end later are open; by default `until`.

    Raises:
        NoShadows: None is in the lake, or fewer than two customers have any.
    """
    decisions = _read(lake, since, until, model or newest_model(lake))
    customers = np.array([decision.customer for decision in decisions])
    if len(np.unique(customers)) < 2:
        raise NoShadows("an interval needs decisions of at least two customers; let shadow scoring go on")
    pairs = np.repeat(customers, [len(decision.its) for decision in decisions])
    its = np.concatenate([decision.its for decision in decisions])
    logged = np.concatenate([decision.logged for decision in decisions])
    counted = [decision for decision in decisions if decision.arm != "random"]
    ranks = [(d.customer, found) for d in decisions if (found := _spearman(d.its, d.logged)) is not None]
    champions = [decision.champion for decision in decisions]
    return Comparison(
        model or newest_model(lake),
        {champion: champions.count(champion) for champion in sorted(set(champions))},
        len(decisions),
        len(np.unique(customers)),
        len(its),
        _mean([d.customer for d in counted], [float(d.does_first_differ) for d in counted]),
        _mean([customer for customer, _ in ranks], [rank for _, rank in ranks]),
        _interval(pairs, its - logged),
        Baseline.of(logged).psi(its),
        _answered(lake, since, until, catalogue_of, decisions, as_of),
    )


def newest_model(lake: Path) -> str:
    """Return the version of the newest shadow. Raises NoShadows."""
    found = files(lake, "shadows")
    if not found:
        raise NoShadows(
            "the lake has no shadows: set NBA_SHADOW_SHARE above 0 where `nba serve` runs, with a version as challenger"
        )
    with connect() as con:
        query = "SELECT model_version FROM read_parquet(?, union_by_name=true) ORDER BY logged_at DESC LIMIT 1"
        row = con.execute(query, [found]).fetchone()
    if row is None:
        raise NoShadows("the table of shadows is empty: let shadow scoring go on")
    return str(row[0])


def _read(lake: Path, since: float, until: float, model: str) -> list[_Decision]:
    found = {table: files(lake, table) for table in ("shadows", "decisions")}
    if not all(found.values()):
        raise NoShadows("the lake has no decisions that were shadowed: let the worker write it")
    codes: dict[str, int] = {}
    with connect() as con:
        query = _PAIRED.format(**{table: _quoted(paths) for table, paths in found.items()})
        rows = con.execute(query, [model, since, until]).fetchall()
    if not rows:
        raise NoShadows(f"no decision of that time has a shadow of {model}")
    return [
        _Decision(
            decision_id,
            codes.setdefault(customer, len(codes)),
            arm,
            champion,
            its_first != logged_first,
            np.array(its, dtype=np.float64),
            np.array(logged, dtype=np.float64),
            tuple(treatments),
        )
        for decision_id, customer, arm, champion, its_first, logged_first, its, logged, treatments in rows
    ]


def _quoted(paths: list[str]) -> str:
    return "[" + ", ".join("'" + path.replace("'", "''") + "'" for path in paths) + "]"


def _spearman(a: Floats, b: Floats) -> float | None:
    """Return the rank correlation, ties sharing their mean rank; None where there is no order to compare."""
    if len(a) < LEAST_RANKED:
        return None
    x, y = rankdata(a), rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    spread = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return None if spread == 0.0 else float((x * y).sum() / spread)


def _mean(customers: list[int], values: list[float]) -> Interval | None:
    if len(set(customers)) < 2:
        return None
    return _interval(np.array(customers), np.array(values))


def _interval(customers: NDArray[np.int64], values: Floats) -> Interval:
    return interval(sums_by(customers, np.column_stack([values, np.ones(len(values))])))


def _answered(
    lake: Path,
    since: float,
    until: float,
    catalogue_of: CatalogueOf,
    decisions: list[_Decision],
    as_of: float | None,
) -> Answered | None:
    """Return both models' log loss over what was shown, was shadowed and is answered."""
    said = {
        (decision.id, treatment): (decision.customer, its, logged)
        for decision in decisions
        for treatment, its, logged in zip(decision.treatments, decision.its, decision.logged, strict=True)
    }
    table = responses(lake, since, until, catalogue_of, as_of=as_of)
    columns = [table[name].to_pylist() for name in ("decision_id", "treatment_id", "response")]
    rows = [
        (*said[decision, treatment], response)
        for decision, treatment, response in zip(*columns, strict=True)
        if response is not None and (decision, treatment) in said
    ]
    if len({row[0] for row in rows}) < 2:
        return None
    customers, its, logged, labels = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    codes, losses = customers.astype(np.int64), [_losses(labels, p) for p in (logged, its)]
    return Answered(
        len(rows),
        int(labels.sum()),
        _interval(codes, losses[0]),
        _interval(codes, losses[1]),
        _interval(codes, losses[0] - losses[1]),
    )


def _losses(labels: Floats, p: Floats) -> Floats:
    clipped = np.clip(p, EPSILON, 1.0 - EPSILON)
    losses: Floats = -(labels * np.log(clipped) + (1.0 - labels) * np.log1p(-clipped))
    return losses
