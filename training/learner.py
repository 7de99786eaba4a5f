"""Fits how households respond, from the rows of a log: when shown, and when held out.

Decides what is fitted on which rows. Knows rows and labels; no simulation, no registry. The newest part of the rows
chooses the number of trees and carries the calibration, so neither is judged on what it was fitted on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from features.layout import SECONDS_PER_DAY
from features.matrix import ModelInput
from service.decision.calibration import Calibrator
from service.decision.model import Contacts
from training.calibrate import fit_calibrator
from training.train import PARAMETERS, PATIENCE

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NEWEST = 0.2
"""Share of the rows, by moment, that rounds and calibration are taken from."""
MAX_ROUNDS = 200
LEAST_POSITIVES = 20
CODES = ("shown_action", "shown_channel")
CONTACT_HALF_LIVES_DAYS = (7.0, 28.0)
CONTEXT = (*CODES, *(f"contacts_h{days:.0f}" for days in CONTACT_HALF_LIVES_DAYS))
"""Inputs beside those of `ModelInput`: which action in which channel, as codes, and how much was shown lately."""


@dataclass(frozen=True)
class Rows:
    """What a log tells of n pairs of customer and action: those that were seen, and those held out on purpose.

    Attributes:
        inputs: (n, n_inputs) of the model as of the decision. context: (n, len(CONTEXT)).
        labels: (n,) 0 or 1. is_shown: (n,) False for the held-out. moments: (n,) Unix seconds.
        chances: (n,) probability of the arm x of the choice, given what was placed before.
        customers: (n,) positions.
    """

    inputs: Floats
    context: Floats
    labels: Floats
    is_shown: Bools
    chances: Floats
    moments: Floats
    customers: Ints

    @classmethod
    def joined(cls, blocks: Sequence[Rows]) -> Rows:
        """Put blocks below each other."""
        names = cls.__dataclass_fields__
        return cls(**{name: np.concatenate([getattr(block, name) for block in blocks]) for name in names})

    def at(self, chosen: Bools) -> Self:
        """Return the rows chosen."""
        return type(self)(**{name: getattr(self, name)[chosen] for name in self.__dataclass_fields__})

    @property
    def actions(self) -> Ints:
        """(n,) positions in the catalogue's actions."""
        return self.context[:, CONTEXT.index("shown_action")].astype(np.int64)


def context(actions: Ints, channel: int, recent: Floats) -> Floats:
    """Return (n, len(CONTEXT)) for actions in one channel, and what `recent_contacts` gave for each row, (n, 2)."""
    return np.column_stack([actions.astype(np.float64), np.full(len(actions), float(channel)), recent])


def recent_contacts(contacts: Contacts, n: int, now: float) -> Floats:
    """Return (n, 2) impressions of each of n customers, faded with the half-lives as of `now`, Unix seconds."""
    is_seen = np.array([kind == "impression" for kind in contacts.kinds], dtype=np.bool_)
    ages = np.maximum(now - contacts.times[is_seen], 0.0) / SECONDS_PER_DAY
    customers = contacts.customers[is_seen]
    faded = [np.bincount(customers, np.exp2(-ages / days), minlength=n) for days in CONTACT_HALF_LIVES_DAYS]
    return np.column_stack(faded)


@dataclass(frozen=True)
class Response:
    """A calibrated model of a response.

    Attributes:
        predict: Rows of the inputs and `CONTEXT` -> (n,) raw log-odds.
    """

    predict: Callable[[Floats], Floats]
    calibrator: Calibrator

    def probabilities(self, inputs: Floats, beside: Floats, issues: Floats) -> Floats:
        """Return (n,) calibrated probabilities of rows; `beside` is (n, len(CONTEXT))."""
        return self.calibrator.apply(self.predict(np.column_stack([inputs, beside])), issues)


def fit_response(names: ModelInput, rows: Rows, seed: int) -> Response | None:
    """Fit one model; None where the rows have too few of either outcome to say anything.

    Args:
        names: What the columns of the rows' inputs are.
    """
    import lightgbm

    is_newest = rows.moments >= np.quantile(rows.moments, 1 - NEWEST) if len(rows.moments) else np.empty(0, np.bool_)
    newest, older = rows.at(is_newest), rows.at(~is_newest)
    if min(newest.labels.sum(), (1 - newest.labels).sum(), older.labels.sum()) < LEAST_POSITIVES:
        return None
    parameters = {**PARAMETERS, "seed": seed, "num_threads": 1, "feature_fraction": 0.7}
    made = {
        "feature_name": [*names.names, *CONTEXT],
        "categorical_feature": [*names.categoricals, *CODES],
        "params": parameters,
    }
    fitted = lightgbm.Dataset(np.column_stack([older.inputs, older.context]), older.labels, **made)
    beside = np.column_stack([newest.inputs, newest.context])
    watched = lightgbm.Dataset(beside, newest.labels, reference=fitted, params=parameters)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    booster = lightgbm.train(parameters, fitted, MAX_ROUNDS, valid_sets=[watched], callbacks=[stop])
    predict = _predictor(booster)
    calibrator = fit_calibrator(predict(beside), newest.labels, newest.inputs[:, names.names.index("issue")])
    return Response(predict, calibrator)


def _predictor(booster: Any) -> Callable[[Floats], Floats]:
    """Return what walks the trees: lignum where it is installed, the same bits in a third of the time."""
    try:
        import lignum
    except ImportError:
        return partial(booster.predict, raw_score=True, num_threads=1)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(booster.model_to_string())
        file.flush()
        return partial(lignum.load(file.name, format="lightgbm").predict, raw_score=True, n_jobs=1)
