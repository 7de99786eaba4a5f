"""The decision log as columns: what a row of the table `decisions` holds, and the way back. Knows no file and no store.

Analysts read lists, texts and numbers; facts and view times stay the float64 bytes that were served. The way back is
exact to the bit, which is why the moment stands there twice: as microseconds to read, as float64 to decide with again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from service.decision.record import DecisionRow, Placed

_AS_THEY_ARE = (
    "decision_id", "customer_id", "channel", "limit", "locale", "arm", "arm_probability", "catalogue_version",
    "model_version", "features_version", "bundle_digest", "facts", "view_times", "time_zone", "is_known", "is_loggable",
    "reselected", "dry_run",
)  # fmt: skip
_LISTS = ("issues", "treatment_ids", "degraded_reasons")
_ARRAYS = {
    "stages": "i1",
    "reasons": "<i4",
    "propensities": "<f8",
    "priorities": "<f8",
    "uplifts": "<f8",
    "room": "<i2",
}
_NAMED = {
    "placements": ("placement", "count"),
    "paused": ("scope", "scope_id"),
    "layers": ("layer", "arm", "probability"),
    "evidence": ("candidate", "positives", "expected"),
}


def to_columns(row: DecisionRow) -> dict[str, Any]:
    """Return a row of the table `decisions`, without its journal id; `decision_time` is in microseconds."""
    return {
        **{name: getattr(row, name) for name in _AS_THEY_ARE},
        **{name: list(getattr(row, name)) for name in _LISTS},
        **{name: np.frombuffer(getattr(row, name), kind).tolist() for name, kind in _ARRAYS.items()},
        **{name: [_named(names, pair) for pair in getattr(row, name)] for name, names in _NAMED.items()},
        "decision_time": round(row.decision_time * 1e6),
        "decision_seconds": row.decision_time,
        "context": list(row.context),
        "consents": list(row.consents),
        "chosen": _placed(row, row.chosen),
        "withheld": _placed(row, row.withheld),
        "distributions": [
            {
                "placement": placement,
                "candidates": np.frombuffer(candidates, "<i2").tolist(),
                "probabilities": np.frombuffer(probabilities, "<f8").tolist(),
            }
            for placement, candidates, probabilities in row.distributions
        ],
    }


def from_columns(columns: Mapping[str, Any]) -> DecisionRow:
    """Return the row that was logged, to the bit; columns of other tables beside are ignored."""
    same: dict[str, Any] = {name: columns[name] for name in _AS_THEY_ARE}
    same |= {name: tuple(columns[name]) for name in _LISTS}
    same |= {name: np.array(columns[name], dtype=kind).tobytes() for name, kind in _ARRAYS.items()}
    same |= {name: tuple(tuple(pair[n] for n in names) for pair in columns[name]) for name, names in _NAMED.items()}
    return DecisionRow(
        **same,
        decision_time=columns["decision_seconds"],
        context=tuple((name, value) for name, value in columns["context"]),
        consents=tuple((purpose, granted) for purpose, granted in columns["consents"]),
        chosen=_choices(columns["chosen"]),
        withheld=_choices(columns["withheld"]),
        distributions=tuple(
            (
                slot["placement"],
                np.array(slot["candidates"], dtype="<i2").tobytes(),
                np.array(slot["probabilities"], dtype="<f8").tobytes(),
            )
            for slot in columns["distributions"]
        ),
    )


def _named(names: tuple[str, ...], values: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


def _placed(row: DecisionRow, choices: tuple[Placed, ...]) -> list[dict[str, Any]]:
    return [
        {
            "candidate": candidate,
            "treatment_id": row.treatment_ids[candidate],
            "placement": placement,
            "selection_probability": probability,
        }
        for candidate, placement, probability in choices
    ]


def _choices(placed: list[dict[str, Any]]) -> tuple[Placed, ...]:
    return tuple((p["candidate"], p["placement"], p["selection_probability"]) for p in placed)
