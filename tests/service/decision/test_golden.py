"""Golden decisions: a table of customers and requests against what is shown, in order, and why the rest is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from service.catalogue.loader import load_catalogue
from service.decision.engine import CompiledCatalogue, compile_catalogue, decide
from service.decision.model import Request
from service.decision.trace import trace
from tests.service.decision.worlds import COLUMNS, NOW, SMALL, described

CASES = yaml.safe_load((Path(__file__).parent / "golden.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def small() -> CompiledCatalogue:
    return compile_catalogue(load_catalogue(SMALL), COLUMNS)


def laid_over(base: Any, change: Any) -> Any:
    """Return a document with the values of another laid over it."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    return {**base, **{key: laid_over(base.get(key), value) for key, value in change.items()}}


def catalogue_of(case: dict[str, Any], folder: Path) -> CompiledCatalogue:
    """Load the small catalogue with the changes of a case."""
    document = laid_over(yaml.safe_load(SMALL.read_text(encoding="utf-8")), case["catalogue"])
    path = folder / "catalogue.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return compile_catalogue(load_catalogue(path), COLUMNS)


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_golden(small: CompiledCatalogue, case: dict[str, Any], tmp_path: Path) -> None:
    """Each case shows what it says, in its order, and names where the others ended."""
    small = catalogue_of(case, tmp_path) if "catalogue" in case else small
    fields = {f.name: f.vocabulary for f in small.catalogue.context}
    request = Request(
        case.get("channel", "app"),
        tuple((name, count) for name, count in case.get("placements", [])),
        {name: float(fields[name].index(value)) for name, value in case.get("context", {}).items()},
        tuple(case.get("issues", ())),
        case.get("limit", 100),
    )
    decisions = decide(described(case), request, small, None, NOW, np.array([7], np.uint64))
    treatments = [small.catalogue.treatments[t].id for t in decisions.candidates]
    shown = [f"{treatments[c.candidate]}@{c.placement}" for c in decisions.chosen[0]]
    assert shown == case["shown"]
    assert all(c.selection_probability == 1.0 for c in decisions.chosen[0])
    ended = {entry["treatment_id"]: entry for entry in trace(decisions, small, 0)}
    for treatment, expected in case.get("ended", {}).items():
        stage, cause = (expected, None) if isinstance(expected, str) else expected
        assert ended[treatment]["stage"] == stage, treatment
        assert ended[treatment].get("rule", ended[treatment].get("cap")) == cause, treatment
