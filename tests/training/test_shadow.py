"""A challenger beside what was served, on a log whose response rates are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from service.adapters.journal_entries import encode
from service.catalogue.loader import load_catalogue
from service.decision.model import Request
from service.decision.record import DecisionRow
from service.ports import Shadow
from tests.training.core_log import DAY, LOGGED, RATES, CoreLog, catalogue_at
from training.shadow import Comparison, NoShadows, compare

SAME, TRUTH = "m/same", "m/truth"
FAR = 4_000_000_000.0
Says = Callable[[str, float], float]


def shadow(row: DecisionRow, model: str, says: Says, first: int) -> Shadow:
    """Return what a model says of a row that says something of an action, given what was logged."""
    logged = np.frombuffer(row.propensities, "<f8")
    candidates = np.flatnonzero(~np.isnan(logged))
    said = [says(row.treatment_ids[c].split(".")[0], float(logged[c])) for c in candidates]
    return Shadow(
        row.decision_id, row.customer_id, row.decision_time, model, "d", tuple(candidates.tolist()), tuple(said), first
    )


def first_of(row: DecisionRow) -> int:
    """Return the candidate that the log placed first, or would have."""
    placed = row.chosen or row.withheld
    return placed[0][0] if placed else -1


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> CoreLog:
    """A log with shadows of two models: one says what was logged, one the true rates and another first choice."""
    folder: Path = tmp_path_factory.mktemp("shadow")
    log = CoreLog(folder, load_catalogue(catalogue_at(folder / "logged.yaml", LOGGED)), customers=600)
    log.decide(Request("app", (("home", 2),)))
    for n, row in enumerate(log.rows):
        same = shadow(row, SAME, lambda action, logged: logged, first_of(row))
        other = shadow(row, TRUTH, lambda action, logged: RATES[action], first_of(row) if n % 3 else 99)
        for one in (same, other):
            log.append(row.customer_id, "shadow", encode(one))
    log.close()
    return log


def compared(log: CoreLog, model: str, as_of: float = FAR) -> Comparison:
    """Compare a model."""
    return compare(log.lake.folder, 0.0, FAR, lambda version: log.catalogue, model=model, as_of=as_of)


def test_a_model_beside_itself_differs_in_nothing(log: CoreLog) -> None:
    """The same propensities: no other choice, equal ranks, no difference, no drift, equal log loss."""
    found = compared(log, SAME)
    assert found.decisions == found.customers == len(log.rows)
    assert found.champions == {"none": len(log.rows)}
    assert found.first_differs is not None
    assert found.rank_correlation is not None
    assert (found.first_differs.value, found.first_differs.high) == (0.0, 0.0)
    assert found.rank_correlation.value == pytest.approx(1.0)
    assert (found.difference.value, found.psi) == (0.0, 0.0)
    assert found.answered is not None
    assert (found.answered.gain.value, found.answered.gain.low, found.answered.gain.high) == (0.0, 0.0, 0.0)


def test_every_figure_is_the_one_counted_by_hand(log: CoreLog) -> None:
    """First choices, mean difference, rank correlation and log loss of the true rates, each recounted from the rows."""
    found = compared(log, TRUTH)
    differences, ranks, losses = [], [], []
    differs = [n % 3 == 0 for n, row in enumerate(log.rows) if row.arm != "random"]
    for row in log.rows:
        logged = np.frombuffer(row.propensities, "<f8")
        is_open = ~np.isnan(logged)
        truth = np.array([RATES.get(t.split(".")[0], np.nan) for t in row.treatment_ids])
        differences += (truth - logged)[is_open].tolist()
        if is_open.sum() >= 3 and len(set(logged[is_open].tolist())) > 1:
            ranks.append(spearmanr(truth[is_open], logged[is_open]).statistic)
        losses += [(truth[c], logged[c]) for c, _, _ in row.chosen]
    assert found.candidates == len(differences)
    assert found.difference.value == pytest.approx(np.mean(differences))
    assert found.rank_correlation is not None
    assert found.rank_correlation.value == pytest.approx(np.mean(ranks))
    assert found.first_differs is not None
    assert found.first_differs.value == pytest.approx(np.mean(differs))
    assert found.first_differs.low < np.mean(differs) < found.first_differs.high
    answered = found.answered
    assert answered is not None
    assert answered.treatments == len(losses)
    expected = np.mean([-(t * np.log(t) + (1 - t) * np.log(1 - t)) for t, _ in losses])
    assert answered.challenger.low < expected < answered.challenger.high, "the entropy of the true rates"
    assert answered.gain.low > 0.0, "the truth is better than the priors"
    assert answered.gain.value == pytest.approx(answered.champion.value - answered.challenger.value)


def test_open_windows_answer_nothing(log: CoreLog) -> None:
    """Before the windows end only what was accepted is known; without shadows a sentence says what to do."""
    early = compared(log, TRUTH, as_of=log.rows[0].decision_time + DAY).answered
    assert early is not None
    assert early.treatments == early.positives
    with pytest.raises(NoShadows, match="no decision of that time has a shadow of m/3"):
        compared(log, "m/3")
    with pytest.raises(NoShadows, match="NBA_SHADOW_SHARE above 0"):
        compare(log.lake.folder / "nothing", 0.0, FAR, lambda version: log.catalogue)
