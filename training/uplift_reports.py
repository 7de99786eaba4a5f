"""Picture and words of an effect model, for MLflow and for people. Decides nothing that a decision depends on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.uplift import Effect, EffectRows, with_propensities
from training.uplift_measures import Ranked

MOST_ACTIONS = 30
USED, NOT_USED = "#0b5394", "#b7b7b7"


def draw_effects(folder: Path, effect: Effect, rows: EffectRows) -> Path:
    """Draw the Qini curve out of fold and each action's mean effect with its interval as one PNG file."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    known = with_propensities(rows).propensities
    ranked = Ranked(effect.out_of_fold, rows.outcomes, rows.treated, known if known is not None else np.empty(0))
    shares, curve = ranked.qini_curve()
    with plt.rc_context({"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(13, 6), layout="constrained")
        left.plot(100 * shares, 100 * curve, lw=1.6, color=USED, label=f"{effect.learner}, out of fold")
        left.plot([0, 100], [0, 100 * curve[-1]], color="black", lw=0.8, ls="--", label="In random order")
        left.set(xlabel="Rows shown, greatest effect first, %", ylabel="Successes won, % of the treated")
        left.set_title(f"Qini coefficient {effect.qini[effect.learner]}", fontsize=10)
        left.legend(frameon=False)
        found = sorted(effect.actions.items(), key=lambda item: item[1].effect.value)[-MOST_ACTIONS:]
        for place, (_, action) in enumerate(found):
            colour = USED if action.is_significant else NOT_USED
            right.plot([100 * action.effect.low, 100 * action.effect.high], [place, place], color=colour, lw=2)
            right.plot(100 * action.effect.value, place, "o", ms=5, color=colour)
        right.axvline(0.0, color="black", lw=0.8, ls="--")
        right.set_yticks(range(len(found)), [f"{name} ({action.rows:,})" for name, action in found])
        right.set(xlabel="Mean effect of being shown, points of probability, 95 % by customer")
        right.set_title("By action (rows); blue: significant, used in arbitration", fontsize=10)
        path = folder / "effects.png"
        figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def effect_card(base: str, effect: Effect, rows: EffectRows) -> str:
    """Return the part of the model card that an effect model adds, as Markdown."""
    used = [name for name, action in effect.actions.items() if action.is_significant]
    lines = [
        f"- the propensity model of version {base}, and beside it one booster of effects, learned from "
        f"{len(rows.treated):,} placements: {int(rows.treated.sum()):,} made, {int((~rows.treated).sum()):,} withheld "
        "by chance",
        f"- learner {effect.learner}, chosen out of fold by Qini ({_measures(effect)}); the booster follows it with a "
        f"correlation of {effect.fidelity:.3f}",
        f"- used for {len(used)} of {len(effect.actions)} actions, whose effect is told from chance (Holm): "
        + (", ".join(sorted(used)) or "none"),
        "- every other action is ranked by its propensity, or the part of it that showing makes, as its issue says",
    ]
    return "## What showing changes\n\n" + "\n".join(lines)


def _measures(effect: Effect) -> str:
    return "; ".join(f"{name} {gain}" for name, gain in effect.qini.items())
