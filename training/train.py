"""One LightGBM over customer x action for all issues, its calibration, and the plain models it is judged beside.

Decides split, parameters and what a model may look at. The newest slice before the test serves twice without seeing
itself: rounds are chosen on it, and each part of its households is scored by a model fitted on all others, from which
the calibration is fitted. The model that serves is then fitted on all rows before the test. Campaign 13's window
is still open when the first test campaign begins, as in any yearly plan; no label of a test row is ever seen.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import UTC_OFFSET_HOURS
from features.matrix import Columns, ModelInput
from service.decision.calibration import Calibrator
from service.decision.model import ISSUES
from training.calibrate import fit_calibrator
from training.dataset import Dataset

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CALIBRATION_FROM = datetime(2017, 8, 1, -UTC_OFFSET_HOURS, tzinfo=UTC)
TEST_FROM = datetime(2017, 9, 1, -UTC_OFFSET_HOURS, tzinfo=UTC)
MAX_ROUNDS, PATIENCE, SEED, THREADS = 300, 25, 20170901, 2
LOG_SLICE = 0.2
"""Share of an issue's logged rows, the newest, that are the test; so many before them are the calibration slice."""
FOLDS = 4
"""Parts of the newest slice's households. Base rates drift: the model that serves has seen all of that slice, so those
that the calibration is fitted on must have seen most of it, or the drift is counted twice."""
PARAMETERS: Mapping[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.08,
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 20.0,
    "path_smooth": 20.0,
    "cat_smooth": 50.0,
    "cat_l2": 50.0,
    "max_bin": 127,
    "seed": SEED,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
UNUSED_PARTS = ("first_basket", "first_seen", "baskets_count", "spend_total", "_h364")
"""The data begin on one day, so whatever sums over all of the past grows with the calendar: a model that splits on it
takes the date for a trait of the customer (mean predicted / observed on the test then is 1.3). Ratios of them stay."""
UNUSED_CALENDAR = ("window_days",)
"""No two big campaigns were of one length: a split on the length picks one campaign, and its season, by its number of
days. The window stays an input, for a history in which it varies by itself."""
UNUSED_PREFIXES = ("sends_", "redemptions_", "aisle_redemptions_")


def is_unused(name: str) -> bool:
    """Say whether the model must not split on an input, though it stays in its place."""
    grows = name in UNUSED_CALENDAR or any(part in name for part in UNUSED_PARTS)
    return grows or (name.endswith("_count") and name.startswith(UNUSED_PREFIXES))


@dataclass(frozen=True)
class Slices:
    """Which rows serve what; masks (n_rows,)."""

    train: Bools
    calibration: Bools
    test: Bools

    @classmethod
    def of(cls, dataset: Dataset) -> Slices:
        """Split by the moment of the row.

        An issue that has logged rows is calibrated and judged on these alone, since what the log tells is what will be
        decided; all that the history has of it is then learned from.
        """
        moments, is_logged = dataset.column("moment"), dataset.is_logged
        issues = dataset.inputs[:, dataset.names.index("issue")]
        starts = np.full((2, len(moments)), [[CALIBRATION_FROM.timestamp()], [TEST_FROM.timestamp()]])
        for issue in np.unique(issues[is_logged]):
            own = is_logged & (issues == issue)
            starts[:, issues == issue] = np.inf
            starts[:, own] = log_edges(moments[own])[:, None]
        is_test = moments >= starts[1]
        is_calibration = (moments >= starts[0]) & ~is_test
        return cls(~is_test & ~is_calibration, is_calibration, is_test)


def log_edges(moments: Floats) -> Floats:
    """Return (2,) when calibration and test slice of an issue's logged rows begin, from their moments."""
    return np.quantile(moments, [1 - 2 * LOG_SLICE, 1 - LOG_SLICE])


@dataclass(frozen=True)
class Trained:
    """A model ready to be evaluated and registered.

    Attributes:
        booster: lightgbm.Booster, fitted on all rows before the test. parameters: It was fitted with.
        scores: name of a model -> (n_rows,) probabilities of all rows; `lightgbm` is the calibrated one.
        raw: (n_rows,) the booster's log-odds.
    """

    booster: Any
    calibrator: Calibrator
    rounds: int
    parameters: Mapping[str, Any]
    slices: Slices
    raw: Floats
    scores: Mapping[str, Floats]


def fit_booster(
    inputs: Floats,
    labels: Floats,
    names: tuple[str, ...],
    rounds: int,
    *,
    held: Any = None,
    threads: int = THREADS,
    parameters: Mapping[str, Any] = PARAMETERS,
) -> Any:
    """Fit the booster.

    Args:
        inputs: (n, n_inputs). labels: (n,) 0 or 1. names: Of the inputs.
        rounds: Number of trees; at most, where `held` is given.
        held: (inputs, labels) on which training stops early.
        threads: How many threads LightGBM may use. parameters: Of the booster.
    """
    import lightgbm

    categoricals = list(ModelInput(Columns()).categoricals)
    asked = {
        **parameters,
        "num_threads": threads,
        "feature_contri": [0.0 if is_unused(name) else 1.0 for name in names],
    }
    made = {"feature_name": list(names), "categorical_feature": categoricals, "params": asked}
    data = lightgbm.Dataset(inputs, labels, **made)
    if held is None:
        return lightgbm.train(asked, data, rounds)
    watched = lightgbm.Dataset(*held, reference=data, params=asked)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    return lightgbm.train(asked, data, rounds, valid_sets=[watched], callbacks=[stop])


def train(
    dataset: Dataset,
    max_rounds: int = MAX_ROUNDS,
    threads: int = THREADS,
    parameters: Mapping[str, Any] | None = None,
) -> Trained:
    """Train, calibrate, and score all rows with the model and its plain rivals.

    Args:
        dataset: What `build_dataset` gave.
        max_rounds: Most trees.
        threads: How many threads LightGBM may use.
        parameters: Taken in place of those of the same name in `PARAMETERS`.

    Raises:
        ValueError: where a slice has no rows or no positives.
    """
    labels, slices = dataset.column("label").astype(np.float64), Slices.of(dataset)
    for name, mask in (("train", slices.train), ("calibration", slices.calibration), ("test", slices.test)):
        if not labels[mask].any():
            raise ValueError(f"the {name} slice has no positive row; load more of the history")
    asked = {**PARAMETERS, **(parameters or {})}
    booster, calibrator, rounds = fit_calibrated(dataset, labels, slices, max_rounds, threads, asked)
    raw = np.asarray(booster.predict(dataset.inputs, raw_score=True, num_threads=threads))
    calibrated = calibrator.apply(raw, calibrator.lines(dataset.kinds))
    scores = {**plain_models(dataset, labels, ~slices.test), "lightgbm": calibrated}
    return Trained(booster, calibrator, rounds, asked, slices, raw, scores)


def fit_calibrated(
    dataset: Dataset, labels: Floats, slices: Slices, max_rounds: int, threads: int, parameters: Mapping[str, Any]
) -> tuple[Any, Calibrator, int]:
    """Fit the booster that serves and its calibration, two fits and one a fold.

    Args:
        labels: (n_rows,) 0 or 1. max_rounds, threads, parameters: As of `train`.

    Returns:
        The booster fitted on all rows before the test, its calibrator, and the number of its trees.
    """
    x, names, train_, newest = dataset.inputs, dataset.names, slices.train, slices.calibration
    held = (x[newest], labels[newest])
    first = fit_booster(x[train_], labels[train_], names, max_rounds, held=held, threads=threads, parameters=parameters)
    rounds = max(int(first.best_iteration), 1)
    calibrator = _cross_fitted(dataset, labels, slices, rounds, threads, parameters)
    seen = ~slices.test
    booster = fit_booster(x[seen], labels[seen], names, rounds, threads=threads, parameters=parameters)
    return booster, calibrator, rounds


def _cross_fitted(
    dataset: Dataset, labels: Floats, slices: Slices, rounds: int, threads: int, parameters: Mapping[str, Any]
) -> Calibrator:
    customers = dataset.column("customer_id")
    fold = np.array([zlib.crc32(str(customer).encode()) % FOLDS for customer in customers])
    raw = np.full(len(labels), np.nan)
    for own in range(FOLDS):
        scored = slices.calibration & (fold == own)
        fitted = slices.train | (slices.calibration & (fold != own))
        booster = fit_booster(
            dataset.inputs[fitted], labels[fitted], dataset.names, rounds, threads=threads, parameters=parameters
        )
        if scored.any():
            raw[scored] = booster.predict(dataset.inputs[scored], raw_score=True, num_threads=threads)
    newest = slices.calibration
    issues = dataset.inputs[newest, dataset.names.index("issue")]
    return fit_calibrator(raw[newest], labels[newest], issues, dataset.column("group")[newest].tolist())


def plain_models(dataset: Dataset, labels: Floats, seen: Bools) -> dict[str, Floats]:
    """Score all rows by the rate of the issue, of the action, and by logistic regressions, fitted on the rows seen."""
    issues = dataset.inputs[:, dataset.names.index("issue")]
    members = np.nan_to_num(dataset.inputs[:, dataset.names.index("dimension")], nan=-1.0)
    constant, popularity, logistic = (np.full(len(labels), np.nan) for _ in range(3))
    for code in range(len(ISSUES)):
        own = issues == code
        if not labels[own & seen].any():
            continue
        constant[own] = labels[own & seen].mean()
        for member in np.unique(members[own]):
            cell = own & (members == member)
            fitted = cell & seen
            # Fifty rows' worth of the issue's rate keep a thin cell from claiming certainty.
            popularity[cell] = (labels[fitted].sum() + 50 * constant[own][0]) / (fitted.sum() + 50)
        logistic[own] = _logistic(dataset, labels, own, own & seen)
    return {"constant": constant, "popularity": popularity, "logistic_regression": logistic}


def _logistic(dataset: Dataset, labels: Floats, own: Bools, fitted: Bools) -> Floats:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    categoricals = set(ModelInput(Columns()).categoricals)
    codes = [i for i, name in enumerate(dataset.names) if name in categoricals]
    numbers = [i for i, name in enumerate(dataset.names) if name not in categoricals and not is_unused(name)]
    scaled = make_pipeline(
        FunctionTransformer(_squash),
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    encoded = make_pipeline(
        SimpleImputer(strategy="constant", fill_value=-1.0, keep_empty_features=True),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    )
    model = make_pipeline(
        ColumnTransformer([("numbers", scaled, numbers), ("codes", encoded, codes)]),
        LogisticRegression(C=0.001, max_iter=300, tol=1e-3),
    )
    model.fit(dataset.inputs[fitted], labels[fitted])
    return np.asarray(model.predict_proba(dataset.inputs[own])[:, 1])


def _squash(values: Floats) -> Floats:
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))
