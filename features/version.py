"""One text that stands for the feature contract: what is stored, in which order, and which columns come of it.

Two processes with the same version read the same bytes as the same facts. Knows nothing of models or stores.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Any

from features.contract import FEATURE_SERVICE, JOIN_KEY, LAYOUT, RATIOS, STAGES, UTC_OFFSET_HOURS
from features.matrix import Columns, ModelInput


@lru_cache(maxsize=1)
def describe_contract() -> dict[str, Any]:
    """Describe the contract as plain data: views, facts, vocabularies, dimensions, ratios and model inputs in order."""
    views = [
        {
            "name": view.name,
            "max_age_days": view.max_age_days,
            "facts": [
                {
                    "name": fact.name,
                    "kind": fact.kind.value,
                    "half_life_days": fact.half_life_days,
                    "vocabulary": list(fact.vocabulary),
                    "per": fact.per,
                    "length": fact.length,
                }
                for fact in view.facts
            ],
        }
        for view in LAYOUT.views
    ]
    model_input = ModelInput(Columns())
    return {
        "join_key": JOIN_KEY,
        "feature_service": FEATURE_SERVICE,
        "utc_offset_hours": UTC_OFFSET_HOURS,
        "views": views,
        "dimensions": {name: list(members) for name, members in LAYOUT.dimensions.items()},
        "ratios": [list(ratio) for ratio in RATIOS],
        "stages": list(STAGES),
        "model_inputs": list(model_input.names),
        "categoricals": list(model_input.categoricals),
    }


@lru_cache(maxsize=1)
def features_version() -> str:
    """Return the first 16 hex digits of the SHA-256 of the contract's canonical JSON."""
    text = json.dumps(describe_contract(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
