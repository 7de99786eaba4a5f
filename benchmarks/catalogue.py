"""How long a large catalogue takes to load, and what its rules cost: `python -m benchmarks.catalogue`.

2,500 actions in 5,000 treatments with 2,500 distinct rules, written as YAML, then read, checked and compiled as serving
does at a start and at a reload. And the circuit alone: 250 distinct rules for one customer, plain and with one in
twenty of them calling functions.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.core import NOW, customers, median_us
from features.matrix import Columns
from service.catalogue.loader import load_catalogue
from service.catalogue.rules import parse_rule
from service.catalogue.yaml_nodes import nodes_of
from service.decision.circuit import Circuit
from service.decision.engine import compile_catalogue
from service.decision.expression import columns_read

ACTIONS, RULES, FOR_ONE = 2_500, 2_500, 250
LIMIT_SECONDS = 3.0
NUMBERS = (
    "spend_h28", "spend_h364", "baskets_h28", "baskets_h91", "units_h91", "days_since_last_basket", "silence_days",
    "basket_value", "discount_share", "shopping_days_90", "aisle_spend_h364__cheese", "aisle_share__produce",
)  # fmt: skip
TEXTS = ("stage = 'loyal'", "stage IN ('active', 'loyal')", "age_band <> '65+'", "home_ownership = 'Homeowner'")
CALLS = (
    "spend_h28 / baskets_h28 > {a}", "CASE WHEN stage = 'new' THEN {a} ELSE {b} END < spend_h28",
    "age_band LIKE '4%' AND baskets_h91 > {a}", "COALESCE(kids_count, 0) + 1 > {b} / 10",
    "greatest(spend_h28, spend_h91, {a}) > {b}",
)  # fmt: skip


FRAME = """currency: USD
locales: [en, es]
channels: {app: {app_home: 3}, email: {email_grid: 4}}
groups: [fresh]
experiment: {id: large, salt: large, arms: {nba: 1.0}}
exploration: {strategy: none}
issues:
  upsell:
    scoring: model
    prior: 0.02
    treatments: {app: {placements: [app_home]}, email: {placements: [email_grid], cost: 0.001}}
    content: {en: {headline: "Save on {name}"}, es: {headline: "Ahorra en {name}"}}
actions:"""


def rules(n: int, seed: int, calls: float) -> list[str]:
    """Write n distinct rules of a few comparisons; a share of them calls functions."""
    rng = random.Random(seed)
    written: dict[str, None] = {}
    while len(written) < n:
        a, b = round(rng.uniform(0, 90), 2), round(rng.uniform(0, 400), 2)
        if rng.random() < calls:
            text = rng.choice(CALLS).format(a=a, b=b)
        else:
            x, y = rng.sample(NUMBERS, 2)
            text = rng.choice(
                [f"{x} >= {a}", f"{x} >= {a} AND {y} < {b}", f"({x} > {a} OR {y} IS NULL) AND NOT {rng.choice(TEXTS)}"]
            )
        written[text] = None
    return list(written)


def large_catalogue() -> str:
    """Write a catalogue of the size that the goal names."""
    lines = [FRAME]
    for i in range(ACTIONS):
        lines.append(
            f"  action_{i}: {{issue: upsell, group: fresh, member: cheese, channels: [app, email], "
            f"value: {1 + i % 90}, name: {{en: Action {i}, es: Acción {i}}}}}"
        )
    lines.append("rules:")
    for i, text in enumerate(rules(RULES, 0, 0.05)):
        lines += [
            f"  rule_{i}:", "    stage: eligibility", f"    scope: {{action: action_{i}}}", f'    rule: "{text}"',
            f"    reason: not for this customer, by rule {i}",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def seconds(run: Callable[[], object], times: int) -> tuple[float, float]:
    """Return the median time of a call on the clock, and of the processor: they differ where others use it too."""
    took = []
    for _ in range(times):
        start = time.perf_counter(), time.process_time()
        run()
        took.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return median(wall for wall, _ in took), median(cpu for _, cpu in took)


def evaluation_us(texts: Sequence[str], columns: Columns, repeats: int) -> float:
    """Return the median time in which a circuit of all rules answers for one customer."""
    symbols = {name: columns.vocabulary(name) for name in columns.names}
    trees = [parse_rule(text, symbols) for text in texts]
    names = tuple(dict.fromkeys(name for tree in trees for name in columns_read(tree)))
    circuit = Circuit(trees, names, columns.index, ())
    as_of = columns.as_of(customers(columns, 1).facts, NOW)
    nothing = np.empty((0, 1))
    return median_us(lambda: circuit.evaluate(as_of, nothing), repeats)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2_000)
    arguments = parser.parse_args()
    columns = Columns()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalogue.yaml"
        path.write_text(large_catalogue(), encoding="utf-8")
        catalogue = load_catalogue(path, columns)
        print(f"{len(catalogue.actions)} actions, {len(catalogue.treatments)} treatments, {len(catalogue.rules)} rules")
        reading = seconds(lambda: nodes_of(large_catalogue(), "catalogue.yaml"), arguments.times)
        loading = seconds(lambda: load_catalogue(path, columns), arguments.times)
        compiling = seconds(lambda: compile_catalogue(catalogue, columns), arguments.times)
    wall, cpu = loading[0] + compiling[0], loading[1] + compiling[1]
    parts = {"YAML": reading, "with it all of reading and checking": loading, "compiling": compiling}
    print("  " + "; ".join(f"{name} {on_clock:.2f} s (CPU {busy:.2f} s)" for name, (on_clock, busy) in parts.items()))
    verdict = "kept" if wall < LIMIT_SECONDS else "MISSED"
    print(f"  in all {wall:.2f} s (CPU {cpu:.2f} s); the limit is {LIMIT_SECONDS:g} s: {verdict}")
    for calls in (0.0, 0.05):
        took = evaluation_us(rules(FOR_ONE, 1, calls), columns, arguments.repeats)
        print(f"{FOR_ONE} distinct rules, one customer, {calls:.0%} with functions: {took:.0f} us")


if __name__ == "__main__":
    main()
