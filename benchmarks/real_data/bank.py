"""UCI Bank Marketing (Moro et al. 2014), calls in date order from 2008 on: does calibration hold, does drift show?

The first 18,000 calls train, the next 6,000 calibrate, the rest test; `duration`, known only after the call, is left
out. Nobody in the first 18,000 was ever called before, and all were called at one level of interest rates: what is
learned there says nothing of the later calls, whose base rate is double. An honest engine raises the alarm;
recalibrating mends the level and cannot mend the ranking; training again on newer calls does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_data.tables import as_inputs, read_columns
from training.calibrate import fit_line
from training.drift import drift, reading
from training.evaluate import auc_interval, measure
from training.uplift import fit_trees

Floats = NDArray[np.float64]

TRAIN, CALIBRATE = 18_000, 24_000
BLOCK, NEWEST = 1_500, 6_000
"""Calls after which the line of `rolling` is fitted anew on the newest 6,000, and `retrained` on all calls before."""
TEXTS = ("job", "marital", "education", "default", "housing", "loan", "contact", "month", "day_of_week", "poutcome")
NUMBERS = (
    "age", "campaign", "pdays", "previous", "emp.var.rate", "cons.price.idx", "cons.conf.idx", "euribor3m",
    "nr.employed",
)  # fmt: skip
PARAMETERS: Mapping[str, Any] = {
    "objective": "binary", "learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 100, "lambda_l2": 10.0,
    "feature_fraction": 0.7, "bagging_fraction": 0.8, "bagging_freq": 1, "cat_smooth": 50.0, "seed": 1,
    "deterministic": True, "force_row_wise": True, "verbose": -1,
}  # fmt: skip
ROUNDS = 150


@dataclass(frozen=True)
class Bank:
    """What the check found on the test calls.

    Attributes:
        measures: `raw`, `calibrated`, `rolling`, `retrained` -> `training.evaluate.measure`.
        auc_interval: 95 %, of the raw score.
        psi: Input or `score` -> PSI of the test calls against the training calls.
        quiet: The same between two random halves of the training calls.
    """

    measures: Mapping[str, Mapping[str, float]]
    auc_interval: tuple[float, float]
    psi: Mapping[str, float]
    quiet: Mapping[str, float]


def check(data: Path) -> Bank:
    """Train, calibrate, score and compare."""
    table = read_columns(data / "bank_marketing" / "bank_additional_first80.parquet")
    names = (*NUMBERS, *TEXTS)
    inputs, labels = as_inputs(table, names), (table["y"] == "yes").astype(float)
    categoricals = tuple(range(len(NUMBERS), len(names)))
    booster = fit_trees(inputs[:TRAIN], labels[:TRAIN], PARAMETERS, ROUNDS, categoricals)
    raw = np.asarray(booster.predict(inputs, raw_score=True))
    test = slice(CALIBRATE, len(labels))
    line = fit_line(raw[TRAIN:CALIBRATE], labels[TRAIN:CALIBRATE])
    rolling, retrained = [], []
    for start in range(CALIBRATE, len(labels), BLOCK):
        newest, block = slice(start - NEWEST, start), slice(start, start + BLOCK)
        rolling.append(_sigmoid(fit_line(raw[newest], labels[newest]), raw[block]))
        again = fit_trees(inputs[:start], labels[:start], PARAMETERS, ROUNDS, categoricals)
        retrained.append(np.asarray(again.predict(inputs[block])))
    probabilities = {
        "raw": _sigmoid((1.0, 0.0), raw[test]),
        "calibrated": _sigmoid(line, raw[test]),
        "rolling": np.concatenate(rolling),
        "retrained": np.concatenate(retrained),
    }
    columns = {**dict(zip(names, inputs.T, strict=True)), "score": raw}
    half = np.random.default_rng(0).random(TRAIN) < 0.5
    return Bank(
        {name: measure(labels[test], p) for name, p in probabilities.items()},
        auc_interval(labels[test], raw[test], np.arange(len(labels) - CALIBRATE)),
        drift({n: v[:TRAIN] for n, v in columns.items()}, {n: v[test] for n, v in columns.items()}),
        drift({n: v[:TRAIN][half] for n, v in columns.items()}, {n: v[:TRAIN][~half] for n, v in columns.items()}),
    )


def _sigmoid(line: tuple[float, float], raw: Floats) -> Floats:
    p: Floats = 1.0 / (1.0 + np.exp(-(line[0] * raw + line[1])))
    return p


def report(data: Path) -> Bank:
    """Print and return what was found."""
    found = check(data)
    low, high = found.auc_interval
    plain = found.measures["raw"]
    print(f"train {TRAIN:,}, calibrate {CALIBRATE - TRAIN:,}, test {plain['rows']:,.0f} calls, in date order")
    print(f"AUC {plain['auc']:.3f} [{low:.3f}, {high:.3f}]; base rate of the test {plain['base_rate']:.4f}")
    print(
        f"each {BLOCK:,} calls anew: `rolling` the line, on the newest {NEWEST:,}; `retrained` the model, on all before"
    )
    for name, m in found.measures.items():
        print(
            f"{name:12} AUC {m['auc']:.3f}, mean predicted / observed {m['predicted_ratio']:.2f}, "
            f"ECE / base rate {m['ece_ratio']:.2f}, slope {m['slope']:.2f}, Brier skill {m['brier_skill']:.3f}, "
            f"log loss {m['log_loss']:.4f}"
        )
    moved = {name: psi for name, psi in found.psi.items() if reading(psi) == "shifted"}
    listed = ", ".join(f"{name} {psi:.2f}" for name, psi in moved.items())
    print(f"drift alarm: {'RAISED' if moved else 'silent'} ({listed}); two random halves of the training calls: "
          f"at most {max(found.quiet.values()):.3f}")  # fmt: skip
    return found
