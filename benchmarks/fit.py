"""`python -m benchmarks.fit`: what training adds to LightGBM on a million rows of 80 inputs.

Fits the same rows with `training.train.fit_booster` and with a bare `lightgbm.train`, interleaved in one run, then all
that a model takes: rounds chosen on the newest slice, cross-fitted calibration, the model that serves. The rows are
drawn, with gaps and categories, for the work alone; the plain rivals that `nba train` prints beside are left out.
Goals: at most 1.2 times the bare fit, at most 7 fits and 4 GiB with the calibration.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.matrix import Columns, ModelInput
from training.dataset import Dataset
from training.train import CALIBRATION_FROM, PARAMETERS, TEST_FROM, Slices, fit_booster, fit_calibrated, is_unused

Floats = NDArray[np.float64]

GOAL_RATIO, GOAL_FITS, GOAL_GIB = 1.2, 7, 4.0
SEED = 20170901
TRAIN_DAYS, TEST_SHARE = 150, 0.1
CATEGORIES = 4
"""Codes of a categorical input; what every vocabulary of the contract has at least."""


def main() -> int:
    """Measure, print, and return 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--inputs", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=100, help="trees of each fit")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of fits that the ratio is the median of")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    import lightgbm

    dataset = drawn(asked.rows, asked.inputs)
    labels = dataset.column("label").astype(np.float64)
    print(
        f"{asked.rows:,} rows x {asked.inputs} inputs, {labels.mean():.1%} positive, {asked.rounds} trees of "
        f"{PARAMETERS['num_leaves']} leaves, threads: {asked.threads}; lightgbm {lightgbm.__version__}",
        flush=True,
    )
    ratios = [pair(dataset, labels, asked.rounds, asked.threads) for _ in range(asked.pairs)]
    cpu, wall = (statistics.median(ratio[i] for ratio in ratios) for i in (0, 1))
    fits, seconds = counted(
        lambda: fit_calibrated(dataset, labels, Slices.of(dataset), asked.rounds, asked.threads, dict(PARAMETERS))
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"fit_booster over bare lightgbm.train, median of {len(ratios)} pairs: CPU {cpu:.3f}, wall {wall:.3f}")
    print(f"rounds, calibration and the model: {fits} fits, {seconds:.0f} s of CPU, peak memory {peak:.2f} GiB")
    missed = cpu > GOAL_RATIO or fits > GOAL_FITS or peak > GOAL_GIB
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"goals: {GOAL_RATIO:g}, {GOAL_FITS} fits, {GOAL_GIB:g} GiB: {'missed' if missed else 'met'}")
    return int(missed)


def drawn(rows: int, inputs: int) -> Dataset:
    """Draw labelled rows of the first inputs of the model that it may split on, categories among them."""
    made = ModelInput(Columns())
    must = [name for name in made.names if name in made.categoricals]
    rest = sorted((name for name in made.names if name not in made.categoricals), key=is_unused)
    chosen = {*must, *rest[: inputs - len(must)]}
    names = tuple(name for name in made.names if name in chosen)
    draw = np.random.default_rng(SEED)
    x = np.empty((rows, len(names)))
    for column, name in enumerate(names):
        is_code = name in made.categoricals
        x[:, column] = draw.integers(0, CATEGORIES, rows) if is_code else draw.standard_normal(rows)
        if name not in ("issue", "dimension"):
            x[draw.random(rows) < 0.1, column] = np.nan
    signal = np.nan_to_num(x[:, :8]) @ np.linspace(0.5, -0.3, 8) + (x[:, names.index("dimension")] == 1) - 3.5
    label = draw.random(rows) < 1 / (1 + np.exp(-signal))
    first, last = CALIBRATION_FROM.timestamp() - TRAIN_DAYS * 86_400, TEST_FROM.timestamp()
    moments = draw.uniform(first, last, rows)
    moments[draw.random(rows) < TEST_SHARE] = last
    table = pa.table(
        {
            "customer_id": draw.integers(0, rows // 100, rows).astype(str),
            "moment": pa.array((moments * 1e6).astype(np.int64)).cast(pa.timestamp("us", "UTC")),
            "label": label,
            "group": [f"g{group}" for group in draw.integers(0, CATEGORIES, rows)],
            "channel": pa.nulls(rows, pa.string()),
        }
    )
    return Dataset(table, x, names, np.empty((0, 0)), np.empty(0, np.int64), "drawn")


def pair(dataset: Dataset, labels: Floats, rounds: int, threads: int) -> tuple[float, float]:
    """Fit bare, then ours; return ours over bare in CPU and in wall time."""
    bare = clocked(lambda: bare_fit(dataset, labels, rounds, threads))
    ours = clocked(lambda: fit_booster(dataset.inputs, labels, dataset.names, rounds, threads=threads))
    print(
        f"bare {bare[0]:.1f} s of CPU, {bare[1]:.1f} s; fit_booster {ours[0]:.1f} s of CPU, {ours[1]:.1f} s", flush=True
    )
    return ours[0] / bare[0], ours[1] / bare[1]


def bare_fit(dataset: Dataset, labels: Floats, rounds: int, threads: int) -> Any:
    """Fit as LightGBM's own documentation does, with the same parameters."""
    import lightgbm

    made = ModelInput(Columns())
    asked = {**PARAMETERS, "num_threads": threads}
    codes = [i for i, name in enumerate(dataset.names) if name in made.categoricals]
    return lightgbm.train(
        asked, lightgbm.Dataset(dataset.inputs, labels, categorical_feature=codes, params=asked), rounds
    )


def clocked(do: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of CPU, of all threads, and of the clock that something takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    do()
    return time.process_time() - cpu, time.perf_counter() - wall


def counted(do: Callable[[], Any]) -> tuple[int, float]:
    """Return how often something calls `lightgbm.train`, and its seconds of CPU."""
    import lightgbm

    fits, plain = 0, lightgbm.train

    def counting(*args: Any, **named: Any) -> Any:
        nonlocal fits
        fits += 1
        return plain(*args, **named)

    lightgbm.train = counting
    try:
        seconds = clocked(do)[0]
        return fits, seconds
    finally:
        lightgbm.train = plain


if __name__ == "__main__":
    sys.exit(main())
