"""Opens a model's text: which engine walks the trees.

Lignum where it gives Booster's golden scores to the bit, else LightGBM's Booster with one thread. Must not know where
bundles lie, how they were made, or what the scores mean: that is `service.decision.bundle_scorer`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from service.adapters.native_trees import LIBRARY, is_trusted
from service.decision.bundle_scorer import Predict
from service.decision.model import Floats

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Golden:
    """Rows with the scores that whoever serves them must reproduce.

    Attributes:
        rows: (n, n_inputs). raw: (n,) Booster's scores, compared by bits. probabilities: (n,) calibrated.
    """

    rows: Floats
    raw: Floats
    probabilities: Floats

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Golden:
        """Read JSON-able data, in which null stands for NaN."""
        rows = np.array([[np.nan if v is None else float(v) for v in row] for row in document["rows"]], dtype=float)
        raw = np.array([float(v) for v in document["raw"]])
        probabilities = np.array([float(v) for v in document["probabilities"]])
        if rows.ndim != 2 or not len(rows) or raw.shape != (len(rows),) or probabilities.shape != raw.shape:
            raise ValueError("golden rows, raw scores and probabilities do not match in number")
        return cls(rows, raw, probabilities)

    def document(self) -> dict[str, Any]:
        """Return JSON-able data; floats survive JSON to the bit."""
        rows = [[None if v != v else v for v in row] for row in self.rows.tolist()]
        return {"rows": rows, "raw": self.raw.tolist(), "probabilities": self.probabilities.tolist()}


def open_booster(model: Path) -> Predict:
    """Return LightGBM's own predictor, one thread; the process that calls it must trust the file."""
    import lightgbm

    booster = lightgbm.Booster(model_str=model.read_text(encoding="utf-8"))
    predict: Predict = partial(booster.predict, raw_score=True, num_threads=1)
    return predict


def open_lignum(model: Path, library: Path | None = None) -> Predict | None:
    """Return lignum's predictor, or None where the package is not installed.

    Args:
        library: The model's trees as native code, trusted.
    """
    try:
        import lignum
    except ImportError:
        return None
    compiled = None if library is None else str(library)
    loaded = lignum.load(str(model), format="lightgbm", compiled=compiled)
    predict: Predict = partial(loaded.predict, raw_score=True, n_jobs=1)
    return predict


def open_native(model: Path, golden: Golden) -> Predict | None:
    """Return the predictor of the model's compiled trees, where they are there, trusted and right to the bit."""
    library = model.parent / LIBRARY
    if not is_trusted(library):
        if library.exists():
            logger.warning("compiled trees are not used: others than this user may write %s or its folder", LIBRARY)
        return None
    try:
        native = open_lignum(model, library)
    except RuntimeError as error:  # of another model, or of another version of lignum
        logger.warning("compiled trees are not used: %s", type(error).__name__)
        return None
    if native is not None and np.array_equal(native(golden.rows), golden.raw):
        return native
    logger.warning("compiled trees are not used: their scores differ from the golden ones")
    return None


def open_predictor(model: Path, golden: Golden, *, native: bool = False) -> Predict:
    """Return the fastest predictor that gives the golden raw scores to the bit.

    Args:
        native: Also look for compiled trees beside the model: native code, which runs with the rights of this process.

    Raises:
        ValueError: where even Booster's scores differ by more than 1e-9.
    """
    compiled = open_native(model, golden) if native else None
    if compiled is not None:
        return compiled
    fast = open_lignum(model)
    if fast is not None:
        if np.array_equal(fast(golden.rows), golden.raw):
            return fast
        logger.warning("lignum's scores differ from the golden ones: scoring with LightGBM's Booster")
    slow = open_booster(model)
    worst = float(np.max(np.abs(slow(golden.rows) - golden.raw)))
    if not worst <= 1e-9:
        raise ValueError(f"the model's scores differ from its golden ones by {worst:.3g}")
    return slow
