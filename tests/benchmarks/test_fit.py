"""The benchmark of training counts what it says it counts, on rows like the model's."""

from __future__ import annotations

import lightgbm
import numpy as np

from benchmarks.fit import bare_fit, counted, drawn
from features.matrix import Columns, ModelInput
from training.train import PARAMETERS, Slices, fit_calibrated


def test_what_is_drawn_is_like_the_model_s_rows() -> None:
    """All categories are among the inputs, there are gaps, and every slice has positives."""
    dataset = drawn(3_000, 80)
    assert dataset.inputs.shape == (3_000, 80)
    assert set(ModelInput(Columns()).categoricals) <= set(dataset.names)
    assert 0.05 < np.isnan(dataset.inputs).mean() < 0.15
    slices = Slices.of(dataset)
    assert all(dataset.column("label")[mask].any() for mask in (slices.train, slices.calibration, slices.test))


def test_fits_are_counted() -> None:
    """Rounds, calibration and the model are six fits; afterwards LightGBM is as before, and the bare fit is one."""
    dataset, plain = drawn(3_000, 80), lightgbm.train
    labels = dataset.column("label").astype(np.float64)
    slices = Slices.of(dataset)
    fits, seconds = counted(lambda: fit_calibrated(dataset, labels, slices, 3, 1, dict(PARAMETERS)))
    assert fits == 6
    assert seconds > 0
    assert lightgbm.train is plain
    assert counted(lambda: bare_fit(dataset, labels, 3, 1))[0] == 1
